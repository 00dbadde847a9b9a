from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.plan.accounting import distinct_layers, flops_per_token, layer_ops, model_ops
from weft.plan.flops import forward_flops
from weft.plan.hardware.catalogue import device
from weft.plan.kernels import KernelModel, op_cost, ops_cost, peak_flops
from weft.plan.matrices import layer_matrices
from weft.plan.ops import elementwise, gemm
from weft.plan.parameters import count_parameters
from weft.plan.work import Dtypes, Segment, Shard, Work
from weft.spec import (
    AttentionSpec,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LayerSpec,
    LinearAttentionSpec,
    Mamba2Spec,
    MLASpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    ShortConvSpec,
)

H100 = device("H100")
DENSE = LayerSpec(AttentionSpec(32, 8, 128), MLPSpec(14336))
WINDOWED = LayerSpec(AttentionSpec(32, 8, 128, window=128), MLPSpec(14336))
MLA = MLASpec(128, 512, 128, 64, 128, query_latent_dim=1536)
MIXTURE = LayerSpec(MLA, MoESpec(256, 8, MLPSpec(2048), shared=MLPSpec(2048)))


def model(*layers: LayerSpec, dim: int = 4096) -> ModelSpec:
    return ModelSpec("llama", 128_256, dim, layers)


@pytest.mark.parametrize(
    "mixer",
    [
        AttentionSpec(8, 2, 64), MLASpec(8, 64, 32, 16, 32), GatedDeltaNetSpec(4, 8, 64, 64),
        KimiDeltaSpec(8, 64), Mamba2Spec(16, 64, 64), ShortConvSpec(512),
        LinearAttentionSpec(8, 64, 64),
    ],
    ids=lambda mixer: type(mixer).__name__,
)  # fmt: skip
def test_every_mixer_becomes_kernels_whose_products_are_its_matrices(mixer):
    layer = LayerSpec(mixer, MLPSpec(1024))
    ops = layer_ops(layer, 512, Work.train(2, 256), Shard(), Dtypes(), mla_mode="expanded")
    products = sum(op.weights for op in ops if op.kind == "gemm")
    assert products == sum(matrix.weights for matrix in layer_matrices(layer, 512))
    assert ops_cost("layer", ops, H100).seconds > 0.0


@pytest.mark.parametrize("spec", [model(DENSE, DENSE), model(WINDOWED), model(MIXTURE, dim=7168)])
def test_kernels_do_the_flops_that_the_counter_counts(spec):
    work = Work.train(1, 512)
    kernels = sum(op.total_flops for op in model_ops(spec, work, mla_mode="expanded"))
    counted = forward_flops(spec, [512]).total
    assert kernels == pytest.approx(counted, rel=1e-12)


def test_equal_layers_are_one_record():
    ops = model_ops(model(*(DENSE,) * 30, WINDOWED), Work.train(1, 128))
    counts = [op.count for op in ops if op.name == "qkv"]
    assert counts == [30, 1]
    assert distinct_layers(model(DENSE, WINDOWED, DENSE))[DENSE] == 2


@pytest.mark.parametrize("tensor", [2, 4, 8])
def test_tensor_parallel_devices_share_the_products(tensor):
    whole = layer_ops(DENSE, 4096, Work.train(1, 64), Shard(), Dtypes())
    part = layer_ops(DENSE, 4096, Work.train(1, 64), Shard(tensor=tensor), Dtypes())
    assert sum(op.flops for op in part) == pytest.approx(sum(op.flops for op in whole) / tensor)


def test_key_value_heads_are_copied_beyond_their_number():
    few = LayerSpec(AttentionSpec(32, 2, 128), MLPSpec(1024))
    weights = [
        sum(m.local_weights(Shard(tensor=t)) for m in layer_matrices(few, 4096, t)[:1])
        for t in (2, 8)
    ]
    assert weights[0] == 4096 * (16 + 2) * 128
    assert weights[1] == 4096 * (4 + 2) * 128


def test_experts_are_spread_and_each_device_does_its_share():
    layer = MIXTURE
    alone = layer_ops(layer, 7168, Work.train(1, 512), Shard(), Dtypes(), mla_mode="expanded")
    spread = layer_ops(
        layer, 7168, Work.train(1, 512), Shard(expert=64), Dtypes(), mla_mode="expanded"
    )
    up = [next(op for op in ops if op.name == "experts up") for ops in (alone, spread)]
    assert up[0].flops == up[1].flops
    assert up[0].groups == pytest.approx(256, rel=1e-3)
    assert up[1].groups == pytest.approx(4, rel=1e-3)


def test_a_small_batch_reads_few_experts():
    def used(batch: int) -> float:
        ops = layer_ops(MIXTURE, 7168, Work.decode(batch, 10), Shard(), Dtypes())
        return next(op for op in ops if op.name == "experts up").groups

    assert used(1) == pytest.approx(8)
    assert used(8) == pytest.approx(256 * (1 - (1 - 8 / 256) ** 8))


def test_decode_absorbs_latent_attention_and_prefill_expands_it():
    def names(work: Work) -> set[str]:
        return {op.name for op in layer_ops(MIXTURE, 7168, work, Shard(), Dtypes())}

    assert "absorb" in names(Work.decode(4, 4096))
    assert "latent up" not in names(Work.decode(4, 4096))
    assert "latent up" in names(Work.prefill(1, 4096))


@given(st.integers(1, 300), st.integers(0, 300), st.integers(1, 400))
def test_pairs_are_those_of_a_loop(new, cached, window):
    work = Work((Segment(new, cached, 3),))
    expected = 3 * sum(min(cached + i + 1, window) for i in range(new))
    assert work.pairs(window) == expected
    assert work.pairs() == 3 * sum(cached + i + 1 for i in range(new))


def test_work_needs_tokens():
    with pytest.raises(ConfigError, match="at least one new token"):
        Work((Segment(0, 5),))
    with pytest.raises(ConfigError):
        Shard(tensor=0)


@pytest.mark.parametrize("convention", ["palm", "causal", "hardware"])
def test_three_conventions_of_a_dense_model(convention):
    spec, length = model(*(DENSE,) * 4), 2048
    count = count_parameters(spec)
    weights = count.matmul + count.head
    pairs = 4 * 4096 * length * 4
    repeated = 2 * count.matmul + pairs // 2
    expected = {
        "palm": 6 * weights + 3 * pairs,
        "causal": 6 * weights + 3 * pairs // 2,
        "hardware": 6 * weights + 3 * pairs // 2 + repeated,
    }
    assert flops_per_token(spec, length, convention, recomputed=1.0) == expected[convention]


@given(st.floats(1, 1e4), st.floats(16, 1e4), st.floats(16, 1e4))
def test_more_work_never_takes_less_time(rows, inner, columns):
    less = op_cost(gemm("a", rows, inner, columns), H100)
    more = op_cost(gemm("a", 2 * rows, inner, columns), H100)
    assert 0 < less.seconds <= more.seconds


def test_ideal_shares_give_the_data_sheet():
    from dataclasses import replace

    ideal = replace(
        H100, matmul_share={}, memory_share=1.0, attention_share=1.0, kernel_start_s=0.0
    )
    op = gemm("big", 8192, 8192, 8192)
    assert op_cost(op, ideal, KernelModel(inner_half=0.0)).seconds == op.flops / 989.4e12
    copy = elementwise("copy", 3.35e12)
    assert op_cost(copy, ideal).seconds == pytest.approx(1.0)


def test_sum_of_children_is_the_parent():
    cost = ops_cost("model", model_ops(model(DENSE), Work.prefill(1, 256)), H100)
    assert cost.seconds == pytest.approx(sum(child.seconds for child in cost.children))
    assert cost.flops == sum(child.flops for child in cost.children)


def test_bound_is_named():
    assert op_cost(gemm("prefill", 8192, 4096, 4096), H100).bound == "compute"
    assert op_cost(gemm("decode", 8, 8192, 28672), H100).bound == "memory"
    assert op_cost(elementwise("tiny", 10.0), H100).bound == "latency"


def test_types_a_device_lacks_fall_back_or_are_refused():
    assert peak_flops(device("A100"), "float8") == peak_flops(device("A100"), "bfloat16")
    with pytest.raises(ConfigError, match="no matmul peak"):
        peak_flops(device("A100"), "float64")
