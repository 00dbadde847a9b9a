from __future__ import annotations

import pytest

from weft.core.errors import ConfigError, ResourceError
from weft.plan.gpt_activations import GPTBlock
from weft.plan.hardware.catalogue import device
from weft.plan.hardware.cluster import Cluster
from weft.plan.layout import Recompute, TrainingLayout
from weft.plan.ledger import (
    fit_memory,
    layer_activation_bytes,
    rank_ledger,
    training_ledger,
)
from weft.plan.matrices import layer_matrices
from weft.plan.parameters import count_parameters
from weft.plan.run_estimate import estimate_run, interval_factor
from weft.plan.stages import layer_slices
from weft.plan.step_time import step_time
from weft.plan.training_constants import training_constants
from weft.plan.validate.architecture import parse_architecture
from weft.spec import HardwareSpec

LLAMA_8B = parse_architecture("L32 h4096 a32 kv8 f14336 v128256")
LLAMA_70B = parse_architecture("L80 h8192 a64 kv8 f28672 v128256")
GPT3 = parse_architecture("L96 h12288 a96 f49152 v51200 gelu tied")
QWEN_30B = parse_architecture("L48 h2048 a32 kv4 d128 E128 k8 mf768 v151936")
DEEPSEEK = parse_architecture(
    "L61(3 dense) h7168 MLA a128 qlr1536 kvlr512 rope64 nope128 v128 f18432 E256 k8 shared1 "
    "mf2048 v129280 mtp1"
)
ONE_NODE = TrainingLayout(data=8, micro_batch=1, global_batch=64, length=4096)


def seconds(spec, layout, hardware="H100", **links) -> float:
    return step_time(spec, layout, Cluster.of(hardware, layout.num_devices, **links)).total_s


def test_parts_add_up():
    step = step_time(LLAMA_8B, ONE_NODE, Cluster.of("H100", 8))
    parts = [getattr(step, name) for name in step.__dataclass_fields__ if name != "recompute_s"]
    assert step.total_s == pytest.approx(sum(parts))
    assert min(parts) >= 0.0


def test_one_device_sends_nothing():
    alone = ONE_NODE.but(data=1)
    step = step_time(LLAMA_8B, alone, Cluster.of("H100", 1))
    assert (step.tensor_s, step.context_s, step.expert_s) == (0, 0, 0)
    assert (step.pipeline_s, step.bubble_s, step.data_s) == (0, 0, 0)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputation_takes_time_and_saves_memory(recompute):
    again = ONE_NODE.but(recompute=recompute, attention="scores")
    plain = ONE_NODE.but(attention="scores")
    assert seconds(LLAMA_8B, again) > seconds(LLAMA_8B, plain)
    assert training_ledger(LLAMA_8B, again).total < training_ledger(LLAMA_8B, plain).total


def test_faster_devices_take_less():
    times = [seconds(LLAMA_8B, ONE_NODE, name) for name in ("A100", "H100", "B200")]
    assert times == sorted(times, reverse=True)


def test_twice_the_network_never_slows():
    layout = TrainingLayout(data=64, global_batch=64, length=2048, zero=3)
    cluster = Cluster.of("A100", 64)
    slow = cluster.scale_out
    fast = slow.with_bandwidth(2 * slow.bandwidth, "test")
    assert seconds(LLAMA_8B, layout, "A100", scale_out=fast) < seconds(LLAMA_8B, layout, "A100")


def test_tensor_parallelism_inside_a_node_beats_it_across_nodes():
    inside = TrainingLayout(tensor=8, data=2, global_batch=16, length=4096)
    across = inside.but(tensor=16, data=1)
    fields = ("tensor_s",)
    one, other = (
        step_time(LLAMA_70B, layout, Cluster.of("H100", 16)) for layout in (inside, across)
    )
    assert all(getattr(other, name) > getattr(one, name) for name in fields)


def test_interleaving_shrinks_the_bubble():
    plain = TrainingLayout(pipeline=4, tensor=2, global_batch=16, length=4096)
    cluster = Cluster.of("H100", 8)
    bubbles = [
        step_time(LLAMA_70B, plain.but(chunks=chunks), cluster).bubble_s for chunks in (1, 5)
    ]
    assert bubbles[1] < 0.5 * bubbles[0]


def test_adapters_skip_weight_gradients_and_their_states():
    full, adapters = ONE_NODE, ONE_NODE.but(frozen=True)
    ratio = seconds(LLAMA_8B, adapters) / seconds(LLAMA_8B, full)
    assert 0.6 < ratio < 0.8
    assert training_ledger(LLAMA_8B, adapters).states == pytest.approx(
        2 * count_parameters(LLAMA_8B).total, rel=1e-3
    )


def test_adapters_on_four_bit_weights_fit_a_small_device():
    layout = TrainingLayout(
        frozen=True, adapter_rank=16, weight_bytes=0.5625, length=2048, recompute="full", zero=0
    )
    ledger = training_ledger(LLAMA_8B, layout)
    adapters = sum(
        16 * (matrix.inner + matrix.columns)
        for layer in LLAMA_8B.layers
        for matrix in layer_matrices(layer, LLAMA_8B.dim)
    )
    assert ledger.optimizer == 12 * adapters
    assert ledger.weights == pytest.approx(
        0.5625 * count_parameters(LLAMA_8B).total + 2 * adapters, rel=1e-3
    )
    assert ledger.total < 24e9 < training_ledger(LLAMA_8B, layout.but(frozen=False)).total


def test_a_run_is_priced_and_its_use_named():
    layout = TrainingLayout(data=8, global_batch=64, length=8192, zero=3, recompute="full")
    run = estimate_run(LLAMA_8B, layout, Cluster.of("H100", 8), num_tokens=1e9)
    assert 0.2 < run.mfu < run.mfu_palm < 0.6
    assert run.mfu < run.hfu
    assert run.days is not None
    assert run.bill is not None
    rate = run.tokens_per_s_per_device.value
    assert run.days * 86_400 == pytest.approx(1e9 / 8 / rate)
    assert run.bill.device_hours == pytest.approx(8 * 24 * run.days)
    assert run.step_s.low < run.step.total_s < run.step_s.high
    assert run.memory.fits


def test_mixtures_are_predicted_less_surely():
    constants = training_constants()
    assert interval_factor(QWEN_30B, constants) > interval_factor(LLAMA_8B, constants)


def test_narrow_products_are_faster_but_not_twice():
    wide = seconds(LLAMA_70B, TrainingLayout(tensor=8, global_batch=8, length=4096))
    narrow = TrainingLayout(tensor=8, global_batch=8, length=4096, dtype="float8")
    assert 1.2 < wide / seconds(LLAMA_70B, narrow) < 2.0


def test_experts_across_nodes_cost_communication():
    layout = TrainingLayout(data=64, expert=8, global_batch=64, length=4096)
    wide = layout.but(expert=64)
    cluster = Cluster.of("H100", 64)
    assert (
        step_time(QWEN_30B, wide, cluster).expert_s > step_time(QWEN_30B, layout, cluster).expert_s
    )


def test_latent_attention_and_its_extra_module_are_timed():
    layout = TrainingLayout(data=32, pipeline=8, expert=32, global_batch=512, length=4096)
    step = step_time(DEEPSEEK, layout, Cluster.of("H800", 256))
    rate = layout.tokens_per_step / step.total_s / 256
    assert 400 < rate < 2500  # DeepSeek's own run in FP8 made 1,543


def test_long_sequences_travel_around_the_ring():
    layout = TrainingLayout(context=8, global_batch=1, length=131_072, attention="tuned")
    step = step_time(LLAMA_8B, layout, Cluster.of("H100", 8))
    assert step.context_s > 0.0
    local = rank_ledger(LLAMA_8B, layout, 0).activations
    whole = rank_ledger(LLAMA_8B, layout.but(context=1), 0).activations
    assert local == pytest.approx(whole / 8)


@pytest.mark.parametrize("stages", [1, 4, 8, 16])
def test_stages_hold_every_layer(stages):
    slices = layer_slices(LLAMA_70B, TrainingLayout(pipeline=stages))
    assert sum(sum(part.values()) for part in slices) == 80


def test_a_large_vocabulary_takes_the_place_of_layers():
    spec = parse_architecture("L70 h14336 a64 f57344 v250k gelu tied")
    slices = layer_slices(spec, TrainingLayout(pipeline=12, tensor=4))
    assert [sum(part.values()) for part in slices] == [5, *[6] * 10, 5]


@pytest.mark.parametrize(
    ("tensor", "sequence", "recompute"),
    [(1, True, "none"), (8, False, "none"), (8, True, "none"), (8, True, "selective")],
)
def test_tensors_kept_by_a_gpt_block_are_those_of_the_paper(tensor, sequence, recompute):
    layout = TrainingLayout(
        tensor=tensor, length=2048, sequence_parallel=sequence, recompute=recompute,
        attention="scores",
    )  # fmt: skip
    block = GPTBlock(2048, 1, 12288, 96, tensor, sequence)
    kept = rank_ledger(GPT3, layout, 0).activations / 96
    assert kept == pytest.approx(block.layer_bytes(recompute), rel=0.01)


def test_whole_layer_recomputation_keeps_inputs_and_one_layer():
    layout = TrainingLayout(length=2048, recompute="full", attention="scores")
    working = layer_activation_bytes(GPT3.layers[0], GPT3.dim, layout)
    stream = 2.0 * 2048 * 12288
    assert rank_ledger(GPT3, layout, 0).activations == pytest.approx(97 * stream + working)


def test_memory_never_rises_with_the_stage_of_sharding():
    sizes = [training_ledger(LLAMA_8B, ONE_NODE.but(zero=stage)).states for stage in (0, 1, 2)]
    sizes.append(training_ledger(LLAMA_8B, ONE_NODE.but(zero=3)).states)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(18 * count_parameters(LLAMA_8B).total, rel=1e-3)


def test_early_stages_hold_more_micro_batches():
    layout = TrainingLayout(pipeline=8, tensor=8, global_batch=32, length=8192)
    sizes = [rank_ledger(LLAMA_70B, layout, rank).activations for rank in range(8)]
    assert sizes == sorted(sizes, reverse=True)
    assert training_ledger(LLAMA_70B, layout).rank == 0


def test_experts_are_stored_where_they_live():
    layout = TrainingLayout(data=8, global_batch=8, length=4096)
    spread = layout.but(expert=8)
    one, other = training_ledger(QWEN_30B, layout), training_ledger(QWEN_30B, spread)
    assert other.weights < 0.25 * one.weights


def test_what_does_not_fit_says_by_how_much_and_what_to_change():
    layout = TrainingLayout(data=8, micro_batch=8, global_batch=64, length=8192)
    memory = device("H100").memory_bytes
    verdict = fit_memory(LLAMA_8B, layout, memory)
    assert not verdict.fits
    assert verdict.layout is not None
    assert training_ledger(LLAMA_8B, verdict.layout).total <= memory
    with pytest.raises(ResourceError, match="more than the") as caught:
        verdict.require()
    assert caught.value.fix == verdict.change
    assert fit_memory(LLAMA_8B, verdict.layout, memory).fits


def test_what_nothing_can_save_says_so():
    with pytest.raises(ResourceError, match="more devices"):
        fit_memory(LLAMA_70B, TrainingLayout(length=8192), 80e9).require()


def test_what_fits_is_left_alone():
    verdict = fit_memory(LLAMA_8B, ONE_NODE.but(zero=3), 80e9)
    assert verdict.fits
    verdict.require()
    assert verdict.missing_bytes < 0
    assert (verdict.change, verdict.layout) == ("", None)


def test_a_device_nobody_fitted_is_still_answered():
    own = HardwareSpec(
        "own", {"bfloat16": 100e12}, 32 * 10**9, 1e12, scale_up="pcie4", scale_out="ethernet-100"
    )
    assert seconds(LLAMA_8B, TrainingLayout(global_batch=1), own) > 0.0


def test_impossible_layouts_are_refused():
    with pytest.raises(ConfigError, match=r"layout\.tensor is 0"):
        TrainingLayout(tensor=0)
    with pytest.raises(ConfigError, match="do not split"):
        TrainingLayout(context=3, length=4096)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputing_some_layers_lies_between_none_and_all(recompute: Recompute) -> None:
    cluster = Cluster.parse("H100x8")
    plain = TrainingLayout(data=8, zero=3, micro_batch=2, global_batch=32, length=4096)
    layouts = [plain.but(recompute=recompute, recompute_share=share) for share in (0.0, 0.25, 1.0)]
    none, some, every = (rank_ledger(LLAMA_8B, one, 0).activations for one in layouts)
    working = layer_activation_bytes(LLAMA_8B.layers[0], LLAMA_8B.dim, plain)
    extra = working if recompute == "full" else 0.0
    assert none - extra == pytest.approx(rank_ledger(LLAMA_8B, plain, 0).activations)
    assert some == pytest.approx(0.75 * none + 0.25 * every)
    fast, slower, slowest = (step_time(LLAMA_8B, one, cluster) for one in layouts)
    assert fast.recompute_s == 0.0
    assert slower.recompute_s == pytest.approx(slowest.recompute_s / 4)
    assert layouts[1].recomputed == f"{recompute} in 25 % of layers"
