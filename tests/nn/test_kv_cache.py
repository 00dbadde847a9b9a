"""Quantized caches: what they take, what they give back, and that chunks change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.nn.latent.support import sparse
from tests.nn.paged import chunked
from weft.models.decoder import Decoder
from weft.nn.context import PagedBatch, StepContext
from weft.nn.kv_cache import KVCache, bytes_per_block
from weft.nn.stored_rows import stored_parts
from weft.ops import PagedLayout, ScoreRule
from weft.ops.native.bindings import load_library
from weft.ops.scaled_rows import CODE_LIMITS, code_error
from weft.plan.memory import kv_bytes_per_token, quantized_kv_bytes_per_token
from weft.spec import AttentionSpec, LayerSpec, MLASpec, MLPSpec, ModelShape, ModelSpec

CODES = list(CODE_LIMITS)
HEADS = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16)
LATENT = MLASpec(3, 32, 16, 8, 16)
MIXERS = {
    "heads": HEADS,
    "window": replace(HEADS, window=5),
    "softcap": replace(HEADS, softcap=4.0),
    "latent": LATENT,
    "indexer": replace(sparse(4), num_heads=3),
}


def spec(name: str) -> ModelSpec:
    layers = tuple(LayerSpec(MIXERS[name], MLPSpec(48)) for _ in range(2))
    return ModelSpec("llama", 61, 32, layers, context_length=96)


@pytest.mark.parametrize("codes", CODES, ids=str)
@pytest.mark.parametrize("name", MIXERS)
def test_bytes_are_predicted_by_the_cache_and_by_the_planner(name, codes) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        cache = KVCache(spec(name), num_blocks=6, block_size=4, dtype=dtype, codes=codes)
        block_bytes = bytes_per_block(spec(name), 4, dtype, codes)
        planned = quantized_kv_bytes_per_token(
            spec(name), model_dtype=str(dtype).removeprefix("torch.")
        )
        assert cache.size_bytes == 6 * block_bytes == 24 * planned


def test_pool_bytes_of_one_byte_codes_are_half_of_bfloat16_and_the_factors() -> None:
    model = ModelShape(dim=256, num_heads=4, num_kv_heads=2, num_layers=3).build(100)
    half = bytes_per_block(model, 16, torch.bfloat16)
    num_factors = 16 * 3 * 2 * 2  # tokens, layers, keys and values, heads
    for codes in CODES:
        assert bytes_per_block(model, 16, torch.bfloat16, codes) == half // 2 + 4 * num_factors
    assert kv_bytes_per_token(model, dtype="int8") * 16 == half // 2


def test_a_latent_of_deepseek_takes_512_codes_a_factor_and_64_numbers() -> None:
    mixer = MLASpec(128, 512, 128, 64, 128)
    parts = stored_parts(LayerSpec(mixer, MLPSpec(48)), torch.bfloat16, torch.int8)
    assert sum(part.num_bytes for part in parts.values()) == 512 + 4 + 2 * 64 < 2 * 576


@pytest.mark.parametrize("codes", CODES, ids=str)
def test_what_is_read_is_what_was_written_within_the_bound(codes) -> None:
    cache = KVCache(spec("latent"), num_blocks=3, block_size=4, codes=codes)
    latent_TE = torch.randn(5, 40)
    slots_T = torch.tensor([7, 0, 11, 4, 2])
    cache.write(1, {"latent": latent_TE}, slots_T)
    back_TE = cache.read(1)["latent"][slots_T]
    assert torch.equal(back_TE[:, 32:], latent_TE[:, 32:]), "the rotated part is exact"
    latent_TC = latent_TE[:, :32]
    bound_TC = code_error(latent_TC, latent_TC.abs().amax(-1) / CODE_LIMITS[codes], codes)
    off_TC = (back_TE[:, :32] - latent_TC).abs()
    assert (off_TC <= bound_TC * (1 + 1e-5)).all()
    assert off_TC.max() > 0
    untouched = torch.tensor([1, 3])
    assert (cache.read(1)["latent"][untouched] == 0).all()


def test_slots_move_as_bytes_whatever_they_hold() -> None:
    """Copying blocks (forks, offload, accepted branches) needs to know nothing of types."""
    for codes in CODES:
        cache = KVCache(spec("heads"), num_blocks=3, block_size=4, codes=codes)
        kv = {"keys": torch.randn(4, 2, 16), "values": torch.randn(4, 2, 16)}
        old, new = torch.arange(4), torch.arange(8, 12)
        cache.write(0, kv, old)
        for stored in cache.tokens[0].values():
            stored.index_copy_(0, new, stored.index_select(0, old))
        for name in kv:
            assert torch.equal(cache.read(0)[name][new], cache.read(0)[name][old])


def documents() -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(61, (n,), generator=generator).tolist() for n in (19, 6, 11)]


@pytest.mark.parametrize("codes", CODES, ids=str)
@pytest.mark.parametrize("name", MIXERS)
def test_chunks_and_decoding_give_the_numbers_of_one_prefill(name, codes) -> None:
    """A token meets its own step's keys as they are stored, so where a prompt is cut is hidden.

    Sums may be in another order, and rounding may then move a code by one: hence a tolerance
    where the products of a step depend on its size.
    """
    model = Decoder(spec(name), seed=3).eval()
    whole_TD = torch.cat(chunked(model, documents(), 64, codes))
    plain_TD = torch.cat(chunked(model, documents(), 64))
    quantized_TD = (whole_TD - plain_TD).abs()
    assert 1e-3 < quantized_TD.median() < 0.1, "quantized, but the same model"
    for chunk in (1, 3, 7):
        off_TD = (torch.cat(chunked(model, documents(), chunk, codes)) - whole_TD).abs()
        assert off_TD.median() < 1e-5
        assert off_TD.max() < quantized_TD.max() / 2


@pytest.mark.skipif(load_library() is None, reason="no C compiler")
@pytest.mark.parametrize("codes", CODES, ids=str)
def test_attention_over_codes_has_the_same_bits_in_any_chunk(codes) -> None:
    q, k, v = (torch.randn(23, heads, 16) for heads in (4, 2, 2))
    slots_S = torch.randperm(40)[:23]

    def run(size: int) -> torch.Tensor:
        cache = KVCache(spec("heads"), num_blocks=10, block_size=4, codes=codes)
        outputs = []
        for start in range(0, 23, size):
            span = slice(start, min(start + size, 23))
            layout = PagedLayout(
                (span.stop - start,), (span.stop,), slots_S[None, : span.stop], decode=size == 1
            )
            batch = PagedBatch(torch.arange(start, span.stop), slots_S[span], layout)
            context = StepContext.paged(cache, batch)
            outputs.append(context.attend(0, q[span], k[span], v[span], ScoreRule(0.25)))
        return torch.cat(outputs)

    whole = run(23)
    for size in (1, 2, 5, 22):
        assert torch.equal(run(size), whole)
