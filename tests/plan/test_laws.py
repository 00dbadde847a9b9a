"""General laws with worked values: ZeRO, scaling, money, speculation, utilization, GPT memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.plan.economy import (
    price_per_million_tokens,
    price_ratio,
    run_bill,
    serving_bytes,
    training_days,
    weight_bytes,
)
from weft.plan.gpt_activations import GPTBlock, interleave_factor
from weft.plan.scaling import (
    CHINCHILLA,
    CHINCHILLA_REFIT,
    KaplanLaw,
    fit_loss,
    fit_power,
    isoflop_optimum,
    llama3_tokens,
    training_compute,
)
from weft.plan.speculation import (
    best_num_drafted,
    draft_speed_up,
    expected_tokens,
    simulate_tokens,
    speed_up,
)
from weft.plan.utilization import (
    bandwidth_utilization,
    hardware_flops_utilization,
    megatron_step_flops,
    model_flops_utilization,
    ridge_intensity,
    roofline_flops,
    roofline_points,
)
from weft.plan.zero import MEGATRON, StateBytes, state_bytes, step_traffic


@pytest.mark.parametrize(
    ("num_shards", "gigabytes"),
    [(64, (120, 31.40625, 16.640625, 1.875)), (4, (120, 52.5, 41.25, 30.0))],
)
def test_zero_stages_of_seven_and_a_half_billion(num_shards, gigabytes):
    sizes = [state_bytes(7.5e9, stage, num_shards) / 1e9 for stage in (0, 1, 2, 3)]
    assert sizes == pytest.approx(gigabytes, rel=1e-12)


@given(st.integers(1, 4096))
def test_memory_never_rises_with_the_stage(num_shards):
    sizes = [state_bytes(1e9, stage, num_shards) for stage in (0, 1, 2, 3)]
    assert sizes == sorted(sizes, reverse=True)


def test_traffic_of_the_stages():
    assert [step_traffic(1.0, stage) for stage in (0, 1, 2, 3)] == [2.0, 2.0, 2.0, 3.0]


def test_megatron_keeps_eighteen_bytes_or_six_and_twelve_shared():
    assert MEGATRON.total == 18.0
    assert MEGATRON.sharded(1, 16).total == 6.0 + 12.0 / 16


def test_zero_has_four_stages():
    with pytest.raises(ConfigError, match="stage 4"):
        StateBytes().sharded(4, 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("law", [CHINCHILLA, CHINCHILLA_REFIT])
def test_fit_recovers_the_law_it_was_made_from(law):
    sizes = np.repeat(np.geomspace(1e8, 1e10, 6), 6)
    tokens = np.tile(np.geomspace(1e9, 1e12, 6), 6)
    losses = [law.loss(n, d) for n, d in zip(sizes, tokens, strict=True)]
    fitted = fit_loss(sizes, tokens, losses)
    assert fitted.size_exponent == pytest.approx(law.size_exponent, rel=1e-3)
    assert fitted.data_exponent == pytest.approx(law.data_exponent, rel=1e-3)
    assert fitted.irreducible == pytest.approx(law.irreducible, rel=1e-3)


def test_fit_stays_near_under_noise():
    generator = np.random.default_rng(0)
    sizes = np.repeat(np.geomspace(1e8, 1e10, 8), 8)
    tokens = np.tile(np.geomspace(1e9, 1e12, 8), 8)
    losses = [CHINCHILLA.loss(n, d) for n, d in zip(sizes, tokens, strict=True)]
    fitted = fit_loss(sizes, tokens, np.array(losses) * np.exp(generator.normal(0, 3e-3, 64)))
    assert fitted.size_exponent == pytest.approx(0.34, abs=0.02)
    assert fitted.data_exponent == pytest.approx(0.28, abs=0.02)


def test_optimum_is_the_bottom_of_the_isoflop_curve():
    flops = 1e21
    sizes = np.geomspace(2e8, 2e10, 41)
    losses = [CHINCHILLA.loss(n, flops / (6 * n)) for n in sizes]
    best = sizes[int(np.argmin(losses))]
    assert CHINCHILLA.optimal(flops)[0] == pytest.approx(best, rel=0.12)
    near = slice(int(np.argmin(losses)) - 4, int(np.argmin(losses)) + 5)
    assert isoflop_optimum(sizes[near], losses[near]) == pytest.approx(best, rel=0.12)


def test_published_optima():
    assert CHINCHILLA.optimal(1e21)[0] == pytest.approx(1_824_217_696.8955524, rel=1e-12)
    assert CHINCHILLA.optimal(5.76e23)[0] == pytest.approx(32_189_859_151.368168, rel=1e-12)


def test_serving_makes_smaller_models_better():
    size, tokens = CHINCHILLA.optimal(1e21)
    loss = CHINCHILLA.loss(size, tokens)
    none = CHINCHILLA.optimal_with_inference(loss, 0.0)
    much = CHINCHILLA.optimal_with_inference(loss, 1e12)
    assert none[0] == pytest.approx(size, rel=0.01)
    assert much[0] < size
    assert CHINCHILLA.loss(*much) == pytest.approx(loss)
    assert CHINCHILLA.tokens_for(much[0], loss) == pytest.approx(much[1])
    with pytest.raises(ConfigError, match="no model reaches"):
        CHINCHILLA.optimal_with_inference(1.0, 0.0)


def test_kaplan_and_llama_laws():
    law = KaplanLaw()
    assert law.loss_of_size(8.8e13) == law.loss_of_data(5.4e13) == law.loss_of_compute(3.1e8) == 1
    assert llama3_tokens(3.8e25) == pytest.approx(1.05e13, rel=5e-3)
    assert training_compute(405e9, 15.6e12) == pytest.approx(3.791e25, rel=1e-3)
    assert fit_power([1, 10, 100], [2, 20, 200]) == pytest.approx((2.0, 1.0))


def test_scaling_needs_enough_runs():
    with pytest.raises(ConfigError, match="five constants"):
        fit_loss([1e8] * 3, [1e9] * 3, [3.0] * 3)
    with pytest.raises(ConfigError, match="three sizes"):
        isoflop_optimum([1e8, 1e9], [3.0, 2.9])
    with pytest.raises(ConfigError, match="no minimum"):
        isoflop_optimum([1e8, 1e9, 1e10], [2.9, 3.0, 2.9])


@pytest.mark.parametrize(
    ("acceptance", "drafted", "tokens"), [(0.7, 3, 2.533), (0.8, 4, 3.3616), (1.0, 5, 6.0)]
)
def test_expected_tokens_and_their_simulation(acceptance, drafted, tokens):
    assert expected_tokens(acceptance, drafted) == pytest.approx(tokens)
    simulated = simulate_tokens(acceptance, drafted, num_steps=40_000, seed=1)
    assert simulated == pytest.approx(tokens, rel=0.01)


def test_drafting_pays_until_checking_costs():
    assert draft_speed_up(0.8, 4, 0.05) == pytest.approx(2.8013333333333335)
    free = speed_up(0.8, 4, draft_s=0.05, target_s=1.0, check_s=1.0)
    assert free == pytest.approx(draft_speed_up(0.8, 4, 0.05))
    assert speed_up(0.8, 4, draft_s=0.05, target_s=1.0, check_s=5.0) < 1.0
    assert best_num_drafted(0.0, 0.1) == 0
    assert best_num_drafted(0.95, 0.01) > 8
    with pytest.raises(ConfigError, match="acceptance"):
        expected_tokens(1.5, 3)


def test_money():
    assert price_per_million_tokens(14.8e3, num_devices=8) == pytest.approx(0.3003003003003003)
    bill = run_bill(2048, 3600.0, price_per_hour=2.0, power_w=700, power_share=1.0)
    assert (bill.device_hours, bill.money) == (2048, 4096)
    assert bill.energy_kwh == pytest.approx(2048 * 0.7)
    assert price_ratio(20_000, 100) == 200.0
    assert training_days(3.8e25, 16_000, 989.4e12, 0.4) == pytest.approx(69.5, abs=0.1)


def test_deployment_memory():
    assert weight_bytes(671e9, 16) == 1342e9
    assert weight_bytes(671e9, 8) == 671e9
    needed = serving_bytes(70e9, 8, kv_bytes_per_token=163_840, num_tokens=8192 * 32,
                           overhead_share=0.0)  # fmt: skip
    assert needed == 112_949_672_960


def test_utilization_names_what_it_counts():
    assert 100 * model_flops_utilization(1, 400e12, 989.4e12) == pytest.approx(40.42854255104103)
    assert hardware_flops_utilization(3.0, 1.0, 10.0, 100.0) == pytest.approx(0.4)
    assert bandwidth_utilization(2.0, 10.0, 100.0) == pytest.approx(0.2)
    assert ridge_intensity(989e12, 3.35e12) == pytest.approx(295, abs=0.5)
    flops = megatron_step_flops(1536, 2048, 96, 12288, 51200, recompute=True)
    assert flops == pytest.approx(4.5109707533231063e18, rel=1e-12)


def test_roofline_rises_to_the_ridge_and_stays():
    points = roofline_points(100.0, 10.0)
    assert (10.0, 100.0) in points
    rates = [rate for _, rate in points]
    assert rates == sorted(rates)
    assert roofline_flops(5.0, 100.0, 10.0) == 50.0


@pytest.mark.parametrize(
    ("tensor", "sequence", "recompute", "size"),
    [
        (1, False, "none", 2868903936), (8, False, "none", 578813952),
        (8, True, "none", 358612992), (8, False, "selective", 327155712),
        (8, True, "selective", 106954752), (1, False, "full", 50331648),
    ],
)  # fmt: skip
def test_gpt3_layer_activations(tensor, sequence, recompute, size):
    block = GPTBlock(2048, 1, 12288, 96, tensor, sequence)
    assert block.layer_bytes(recompute) == size


def test_first_stage_and_ends_of_gpt3():
    block = GPTBlock(2048, 1, 12288, 96, 8, sequence_parallel=True)
    assert block.first_stage_bytes(96, "selective") == 10267656192
    assert block.ends_bytes(51_200) == pytest.approx(68157440)
    assert interleave_factor(8, 3) == pytest.approx(1.2916666666666667)
    assert 100 * block.selective_flops_share == pytest.approx(2.7, abs=0.1)
