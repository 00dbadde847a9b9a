"""Counts from the specification equal the real modules and torch's own counter."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.plan.specs import DIM, EXPERT, LAYER_NORM, MIXERS, SPECS, mixture, model
from weft.models import heads
from weft.models.decoder import Decoder
from weft.models.encoder import Encoder
from weft.models.encoder_decoder import EncoderDecoder
from weft.nn.context import StepContext
from weft.plan.course.counting import SmallDecoder
from weft.plan.flops import (
    attended_pairs,
    attention_flops,
    forward_flops,
    recurrence_flops,
    soft_flops,
    training_flops,
)
from weft.plan.matrices import layer_matrices
from weft.plan.parameters import count_parameters, layer_parameters, mtp_parameters
from weft.spec import (
    AttentionSpec,
    EncoderDecoderSpec,
    EncoderSpec,
    GatedDeltaNetSpec,
    KimiDeltaSpec,
    LayerSpec,
    LinearAttentionSpec,
    Mamba2Spec,
    MambaSpec,
    MatrixRWKVSpec,
    MLASpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    NormSpec,
    zoo,
)

LENGTHS = (9, 7)  # more than a sparse query keeps; experts divide their sum evenly


@pytest.mark.parametrize("name", SPECS)
def test_parameters_and_buffers_equal_the_module(name: str) -> None:
    module = Decoder(SPECS[name], device="meta")
    count = count_parameters(SPECS[name])
    assert count.total == module.num_parameters
    assert count.buffers == sum(buffer.numel() for buffer in module.buffers())


def test_every_part_is_counted_where_it_belongs() -> None:
    spec = SPECS["sandwich"]
    count, module = count_parameters(spec), Decoder(spec, device="meta")

    def size(*patterns: str) -> int:
        parameters = module.named_parameters()
        return sum(p.numel() for name, p in parameters if any(s in name for s in patterns))

    assert count.embedding == size("embed.")
    assert count.positions == size("positions")
    assert count.mixers == size("mixer.")
    assert count.ffns == size("ffn.")
    assert count.norms == size("norm")
    assert count.head == size("head.")


def test_an_expert_that_is_not_used_is_idle() -> None:
    count = count_parameters(mixture(8, 2, EXPERT, shared=MLPSpec(48)))
    assert count.idle == 2 * 6 * 3 * 32 * DIM
    assert count.active == count.total - count.idle
    assert count_parameters(SPECS["soft"]).idle == 0


def test_encoders_and_their_decoders() -> None:
    layer = LayerSpec(AttentionSpec(4, 4, 16, rotary=None, causal=False), MLPSpec(32))
    encoder = EncoderSpec(
        "bert", 50, DIM, (layer,) * 2, num_token_types=2, masked_lm="gelu", embedding_norm=True
    )
    cross = LayerSpec(AttentionSpec(4, 4, 16), MLPSpec(32), cross=layer.mixer)
    decoder = ModelSpec("t5", 50, DIM, (cross,))
    both = EncoderDecoderSpec(encoder, decoder)
    assert count_parameters(encoder).total == size_of(Encoder(encoder, device="meta"))
    assert count_parameters(both).total == size_of(EncoderDecoder(both, device="meta"))


def size_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_small_decoder_of_a_course_is_a_specification() -> None:
    """Its hand counts (dim 512, 8 layers, 32,000 tokens, no final norm) are ours."""
    layer = LayerSpec(AttentionSpec(8, 8, 64), MLPSpec(2048, "gelu", gated=False))
    spec = ModelSpec("gpt2", 32_000, 512, (layer,) * 8, norm=LAYER_NORM, final_norm=False)
    count = count_parameters(spec)
    assert count.total == SmallDecoder().num_parameters == 57_950_208
    assert (count.embedding, count.mixers, count.ffns) == (16_384_000, 8_388_608, 16_777_216)
    assert (count.norms, count.head) == (16_384, 16_384_000)
    flops = forward_flops(spec, [1024], causal=False).total
    assert flops == SmallDecoder().forward_flops(1, 1024)
    assert flops == pytest.approx(102.27e9, rel=1e-4)


def test_deepseek_v3_by_part() -> None:
    spec = zoo.spec("deepseek-v3")
    assert isinstance(spec, ModelSpec)
    norm = NormSpec()
    dense, sparse = (layer_parameters(spec.layers[index], spec.dim, norm) for index in (0, 60))
    assert dense.mixers == 187_107_328
    assert sparse.ffns + sparse.buffers == 11_320_164_608
    count = count_parameters(spec)
    assert count.total == 671_026_404_352
    assert count.total + count.buffers == 671_026_419_200
    assert count.active == 37_552_282_624


def test_a_multi_token_module_is_a_block_a_projection_and_three_norms() -> None:
    spec = zoo.spec("deepseek-v3")
    assert isinstance(spec, ModelSpec)
    spec = dataclasses.replace(spec, num_mtp_layers=1)
    assert mtp_parameters(spec) == 11_610_067_968
    assert count_parameters(spec).total == 671_026_404_352 + 11_610_067_968
    assert count_parameters(spec).active == 37_552_282_624
    assert mtp_parameters(dataclasses.replace(spec, num_mtp_layers=2)) == 2 * 11_610_067_968


def test_a_small_mixture_by_hand() -> None:
    """Four experts 10 -> 64 -> 10 and a router, as a matrix product each."""
    layer = LayerSpec(MIXERS["linear"], MoESpec(4, 1, MLPSpec(64, "relu", gated=False)))
    ffn = [matrix for matrix in layer_matrices(layer, 10) if matrix.branch == "ffn"]
    assert sum(matrix.weights for matrix in ffn) == 4 * 2 * 10 * 64 + 4 * 10


def test_qwen_2_5_32b_with_and_without_its_head() -> None:
    qwen = count_parameters(zoo.spec("qwen2.5-32b"))
    assert qwen.total == 32_763_876_352
    assert qwen.total - qwen.head == 31_985_308_672
    biases = 64 * (5120 + 2 * 1024)
    norms = qwen.norms
    assert qwen.total - biases - norms == 32_762_757_120
    assert qwen.total - qwen.head - biases - norms == 31_984_189_440


# Limited capacity drops tokens; a soft mixture has a test of its own.
EXACT = [name for name in SPECS if name not in ("switch", "gshard", "soft")]
# The maps to the five shares, of rank 4, are one batched product.
BATCHED_MAPS = {"rwkv-6": 2 * (5 * 4 * DIM) * 2 * sum(LENGTHS)}


@pytest.mark.parametrize("name", EXACT)
def test_products_equal_the_counter(name: str) -> None:
    """In float64 no fused kernel and no padding hides a product from torch's counter."""
    spec = SPECS[name]
    module = Decoder(spec, dtype=torch.float64).eval()
    tokens = torch.zeros(sum(LENGTHS), dtype=torch.int64)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        heads.logits(module, module(tokens, StepContext.packed(LENGTHS)))
    counts = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    predicted = forward_flops(spec, LENGTHS, causal=False)
    batched = sum(n for op, n in counts.items() if "bmm" in op) - BATCHED_MAPS.get(name, 0)
    if name == "sparse latent":  # the indexer's products are of both kinds
        assert sum(counts.values()) == predicted.total
        return
    assert sum(counts.values()) - batched == predicted.linear + predicted.head
    # A sink is one more column; a window is cut out of all pairs; chunks of a recurrence do more.
    if predicted.recurrence == 0 and name not in ("biases and sinks", "window"):
        assert batched == predicted.attention


def products(*shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> int:
    """Let torch count batched products of these shapes."""
    with FlopCounterMode(display=False) as counter:
        for left, right in shapes:
            torch.empty(left, device="meta") @ torch.empty(right, device="meta")
    return counter.get_total_flops()


def test_a_recurrence_is_its_products_with_the_state() -> None:
    """Outer product k v^T into the state, q^T S out of it; the delta rule reads k^T S first."""
    n, k, v = 4, 16, 12
    write, read = ((n, k, 1), (n, 1, v)), ((n, 1, k), (n, k, v))
    plain = LinearAttentionSpec(n, k, v, normalise=False)
    assert recurrence_flops(plain) == products(write, read)
    delta = GatedDeltaNetSpec(2, n, k, v)
    conv = 2 * delta.conv_dim * delta.conv_kernel
    assert recurrence_flops(delta) == products(read, write, read) + conv
    kimi, square = KimiDeltaSpec(n, k), ((n, 1, k), (n, k, k))
    expected = products(square, ((n, k, 1), (n, 1, k)), square) + 2 * 3 * n * k * 4
    assert recurrence_flops(kimi) == expected
    mamba = Mamba2Spec(n, v, k)
    assert recurrence_flops(mamba) == products(write, read) + 2 * mamba.conv_dim * 4
    assert recurrence_flops(MIXERS["rwkv"]) == 0
    assert recurrence_flops(MatrixRWKVSpec(DIM, n, k)) == products(((n, k, 1), (n, 1, k)), square)
    mamba = MambaSpec(n, 3, k)
    assert recurrence_flops(mamba) == products(((n, k, 1), (n, 1, 1)), ((n, 1, k), (n, k, 1))) + (
        2 * n * 4
    )


def test_a_short_convolution_is_counted_as_torch_does() -> None:
    spec = MIXERS["short convolution"]
    with FlopCounterMode(display=False) as counter:
        x = torch.empty(1, DIM, 10 + 2, device="meta")
        torch.nn.functional.conv1d(x, torch.empty(DIM, 1, 3, device="meta"), groups=DIM)
    assert 10 * recurrence_flops(spec) == counter.get_total_flops()


def test_a_soft_mixture_is_its_slots() -> None:
    ffn = SPECS["soft"].layers[0].ffn
    assert isinstance(ffn, MoESpec)
    slots = 8 * 3
    expected = products(
        ((slots, 7), (7, DIM)), ((7, slots), (slots, DIM)),
        ((slots, DIM), (DIM, 64)), ((slots, 32), (32, DIM)),
    )  # fmt: skip
    assert soft_flops(ffn, DIM, 7) == expected


def test_an_indexer_scores_all_and_attention_keeps_few() -> None:
    spec = MIXERS["sparse latent"]
    assert isinstance(spec, MLASpec)
    length, kept = 9, 4
    pairs = sum(min(i + 1, kept) for i in range(length))
    scored = length * (length + 1) // 2
    expected = 2 * 4 * (24 + 12) * pairs + 2 * 2 * (16 + 1) * scored
    assert attention_flops(spec, length, causal=True) == expected


def test_a_decode_step_has_one_query_per_document() -> None:
    flops = forward_flops(model(MIXERS["grouped-query"]), [1, 1, 1], num_logits=3)
    assert flops.attention == 3 * 2 * 4 * 64


def test_training_is_three_forward_passes() -> None:
    spec = SPECS["gated delta net"]
    assert training_flops(spec, [8, 4]) == 3 * forward_flops(spec, [8, 4]).total


def test_training_computes_multi_token_modules() -> None:
    spec = SPECS["multi-token"]
    plain = dataclasses.replace(spec, num_mtp_layers=0)
    block = dataclasses.replace(plain, layers=plain.layers[:1])
    extra = forward_flops(block, [8]).total + 4 * DIM * DIM * 8
    assert forward_flops(spec, [8]) == forward_flops(plain, [8])
    assert training_flops(spec, [8]) == training_flops(plain, [8]) + 2 * 3 * extra


@pytest.mark.parametrize("window", [None, 1, 3, 7, 20])
def test_attended_pairs_equal_the_mask(window: int | None) -> None:
    length = 9
    i = torch.arange(length)
    mask = i[:, None] >= i[None]
    if window is not None:
        mask &= i[:, None] - i[None] < window
    spec = AttentionSpec(1, 1, 2, window=window)
    assert attended_pairs(spec, length, causal=True) == int(mask.sum())
    assert attended_pairs(AttentionSpec(1, 1, 2, causal=False), 4, causal=True) == 16
