"""The courses' printed values, and the right ones where they differ."""

from __future__ import annotations

import pytest

from weft.plan.accounting import flops_per_token, layer_flops
from weft.plan.course.counting import GroupedDecoder, SmallDecoder
from weft.plan.course.deepseek_mfu import DeepSeekStep, published_mfu
from weft.plan.course.latent import (
    absorbed_elements,
    expanded_elements,
    prefill_attention,
    prefill_gi_flops,
)
from weft.plan.course.linear_cache import (
    LinearCache,
    grouped_bytes_per_token,
    hidden_bytes_per_token,
    latent_bytes_per_token,
)
from weft.plan.course.mfu import MFUExample
from weft.plan.course.serving import (
    bandwidth_tokens_per_s,
    peak_flops_estimate,
    quick_prefill_ms,
    quick_requests_per_s,
    quick_tokens_per_s,
)
from weft.plan.course.transfer import Transfer
from weft.plan.mla_mode import MLAShape, expanded_flops
from weft.plan.work import Work
from weft.spec import AttentionSpec, LayerSpec, MLASpec, MLPSpec, ModelSpec, MoESpec

MLA = MLASpec(128, 512, 128, 64, 128, query_latent_dim=1536)
MOE = LayerSpec(MLA, MoESpec(256, 8, MLPSpec(2048), shared=MLPSpec(2048)))
DENSE = LayerSpec(MLA, MLPSpec(18432))
DEEPSEEK = ModelSpec("deepseek_v3", 129280, 7168, (DENSE,) * 3 + (MOE,) * 58)


def test_small_decoder():
    decoder = SmallDecoder()
    assert decoder.num_parameters == 57_950_208
    assert decoder.forward_flops(1, 1024) == pytest.approx(102.27e9, abs=5e6)
    assert decoder.ffn_activation_bytes(4, 1024) == 32 * 2**20
    assert decoder.score_bytes(4, 1024) == 128 * 2**20
    assert decoder.kv_bytes(1, 2048) == 32 * 2**20


def test_qwen_with_and_without_the_untied_head():
    model = GroupedDecoder()
    assert model.num_parameters(strict=False) == 31_984_189_440
    assert model.num_parameters(strict=True) == 32_762_757_120
    assert model.kv_bytes_per_token == 262_144


def test_four_mfu_values():
    example = MFUExample()
    assert example.grouped(1.5) == 0.4007877972553143
    assert example.latent(1.5) == 0.3938851712438857
    assert example.grouped_detail(1.5) == 0.4019112012361143
    assert example.latent_detail(1.5) == pytest.approx(0.3957755336704, rel=1e-14)


def test_deepseek_step_as_the_course_counts():
    step = DeepSeekStep()
    assert step.attention == 3_012_112_104_292_352
    assert step.experts == 3_340_316_325_183_488
    assert step.dense == 3_324_923_162_394_624
    assert step.head == 7_773_547_208_376_320
    assert step.main == 1_185_676_505_754_107_904
    assert step.mtp == 50_136_080_959_143_936
    assert step.total == 1_285_948_667_672_395_776
    assert step.mfu(21.0, 512, 354) == 0.3378555947736949


def test_deepseek_step_put_right():
    step = DeepSeekStep(strict=True)
    assert step.mfu(21.0, 512, 354) == pytest.approx(0.321605, abs=5e-7)
    assert 100 * published_mfu(causal=False) == pytest.approx(43.87, abs=0.005)
    assert 100 * published_mfu(causal=True) == pytest.approx(39.08, abs=0.005)


def test_deepseek_own_figures_agree_within_a_fifth_of_a_point():
    assert 100 * published_mfu(causal=False) == pytest.approx(43.73, abs=0.2)
    assert 100 * published_mfu(causal=True) == pytest.approx(38.94, abs=0.2)


def test_strict_step_is_what_the_planner_counts_from_the_specification():
    step = DeepSeekStep(num_tokens=4096, strict=True, num_mtp=0)
    work = Work((*Work.train(1, 4096).segments,), causal=False)
    assert layer_flops(MOE, 7168, work) == step.attention + step.experts
    assert layer_flops(DENSE, 7168, work) == step.attention + step.dense
    assert flops_per_token(DEEPSEEK, 4096, "palm") * 4096 == step.main


def test_memory_of_the_modes():
    assert expanded_elements(1, 16384) == 671_170_560
    assert absorbed_elements(1, 16384, strict=False) == 2_281_979_904
    assert absorbed_elements(1, 16384, strict=True) == 9_577_024
    ratio = absorbed_elements(1, 16384, strict=False) / expanded_elements(1, 16384)
    assert ratio == pytest.approx(3.4, abs=0.05)


def test_prefill_with_a_cached_prefix():
    assert tuple(prefill_attention(1, 2000)) == (
        67_565_035_520, 97_517_568, 67_150_675_968, 81_960_960, 234_881_024,
    )  # fmt: skip
    curve = [round(prefill_gi_flops(4000, cached, strict=False), 2) for cached in (0, 2000, 4000)]
    assert curve == [4971.19, 4031.49, 3092.30]
    assert prefill_gi_flops(4000, 2000, strict=True) == pytest.approx(2548.09, abs=0.01)
    without_mask = prefill_attention(10, 0, causal_factor=1.0)
    assert without_mask.total == expanded_flops(MLAShape(), 10, 0).total


@pytest.mark.parametrize(
    ("attention", "peak", "crossovers"),
    [
        ("mla", 989, (32_375, 12_031, 2)), ("mla", 148, (5, 2, 2)), ("mla", 400, (8_143, 62, 2)),
        ("gqa", 989, (172_142, 81_719, 339)), ("gqa", 400, (64_439, 27_868, 1)),
    ],
)  # fmt: skip
def test_crossovers_of_transfer_and_recomputation(attention, peak, crossovers):
    transfer = Transfer(attention, peak)
    assert tuple(transfer.crossover_tokens(rate) for rate in (0.5, 1, 10)) == crossovers


@pytest.mark.parametrize(
    ("attention", "peak", "lengths", "milliseconds"),
    [
        ("mla", 989, (1000, 4000, 8000, 17000), (0.701, 3.711, 9.832, 32.421)),
        ("mla", 148, (1000, 4000, 8000, 17000), (4.685, 24.795, 65.705, 216.651)),
        ("mla", 400, (1000, 4000, 8000, 17000), (1.734, 9.174, 24.311, 80.161)),
        ("gqa", 989, (1400, 7000, 14000), (0.426, 3.313, 9.578)),
        ("gqa", 400, (1400, 7000, 14000), (1.054, 8.190, 23.682)),
    ],
)
def test_milliseconds_of_recomputation(attention, peak, lengths, milliseconds):
    transfer = Transfer(attention, peak)
    assert [round(transfer.recompute_ms(length), 3) for length in lengths] == list(milliseconds)


def test_milliseconds_of_transfer():
    mla, gqa = Transfer("mla", 989), Transfer("gqa", 989)
    lengths = (1000, 4000, 8000, 17000)
    table = [[round(mla.transfer_ms(n, rate), 3) for n in lengths] for rate in (0.5, 1, 10)]
    assert table == [
        [3.065, 12.262, 24.523, 52.111], [1.533, 6.131, 12.262, 26.056],
        [0.153, 0.613, 1.226, 2.606],
    ]  # fmt: skip
    assert [round(gqa.transfer_ms(n, 1), 3) for n in (1400, 7000, 14000)] == [
        3.815, 19.073, 38.147,
    ]  # fmt: skip


def test_crossovers_in_si_units():
    mla, gqa = Transfer("mla", 989, strict=True), Transfer("gqa", 989, strict=True)
    assert [mla.crossover_tokens(rate) for rate in (0.5, 1, 10)] == [30_601, 10_734, 2]
    assert [gqa.crossover_tokens(rate) for rate in (0.5, 1, 10)] == [167_904, 79_600, 176]
    with pytest.raises(ValueError, match="slower up to"):
        mla.crossover_tokens(0.5, limit=100)


def test_linear_caches():
    kda, gdn = LinearCache(), LinearCache(num_key_heads=16)
    assert (kda.num_bytes, gdn.num_bytes) == (1_122_304, 1_097_728)
    assert kda.crossover_tokens(latent_bytes_per_token()) == 975
    assert gdn.crossover_tokens(grouped_bytes_per_token()) == 536
    assert gdn.snapshot_bytes_per_token() == 8576
    assert gdn.gates_bytes_per_token == 12_352
    assert hidden_bytes_per_token() == 4096
    assert grouped_bytes_per_token() == 2048


def test_linear_cache_in_float32_and_shared_by_two():
    half = LinearCache(tensor=2)
    assert half.num_bytes == LinearCache().num_bytes // 2
    full = LinearCache(state_bytes_each=4)
    assert full.num_bytes - LinearCache().num_bytes == 2 * 32 * 128 * 128


def test_serving_speed_from_peak_flops():
    estimate = peak_flops_estimate()
    assert estimate.prefill_tflop == pytest.approx(65.2835, abs=5e-5)
    assert estimate.decode_tflop == pytest.approx(0.0644252, abs=5e-8)
    assert round(estimate.ttft_ms) == 441
    assert int(estimate.tokens_per_s) == 2297
    assert int(estimate.tokens_per_s_rounded) == 2466
    assert round(quick_prefill_ms(32e9, 1000, 148e12)) == 432
    assert int(quick_tokens_per_s(32e9, 148e12)) == 2312


def test_reading_the_weights_bounds_batch_size_one():
    weights = 2 * GroupedDecoder().num_parameters(strict=True)
    bound = bandwidth_tokens_per_s(weights, 4e12)
    assert bound == pytest.approx(61, abs=0.5)
    assert peak_flops_estimate().tokens_per_s / bound == pytest.approx(38, abs=1)


def test_quick_formula_counts_requests():
    assert quick_requests_per_s(10, 312e12, 0.462, 70e9, 1000) == pytest.approx(10.3, abs=0.05)


def test_planner_prefill_equals_the_course_without_a_mask():
    layer = LayerSpec(AttentionSpec(40, 8, 128), MLPSpec(27_648))
    work = Work(Work.prefill(1, 1024).segments, causal=False)
    assert 64 * layer_flops(layer, 5120, work) == GroupedDecoder().prefill_flops(1024)
