"""Row R12: attention to a window and to compressed entries, against its definition."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from weft.nn.context import StepContext
from weft.nn.experimental.compressed_attention import (
    CompressedAttention,
    CompressedAttentionSpec,
    Compressor,
    rotate_end,
)
from weft.spec import IndexerSpec

DIM = 24
HCA = CompressedAttentionSpec(
    num_heads=4, head_dim=16, rope_head_dim=8, query_latent_dim=12, window=5, rate=3,
    num_output_groups=2, output_latent_dim=10,
)  # fmt: skip
CSA = dataclasses.replace(HCA, overlap=True, indexer=IndexerSpec(8, 12, top_k=2))
SPECS = {"hca": HCA, "csa": CSA, "csa reading all": dataclasses.replace(CSA, indexer=None)}


def random_layer(spec: CompressedAttentionSpec) -> CompressedAttention:
    torch.manual_seed(1)
    layer = CompressedAttention(DIM, spec)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def naive_entries(compressor: Compressor, x_TD: Tensor) -> Tensor:
    """Average the tokens of each window, dimension by dimension."""
    spec, width = compressor.spec, compressor.width
    entries = []
    for window in range(len(x_TD) // spec.rate):
        kv, gates = [], []
        for place in range(spec.rate):
            token = x_TD[window * spec.rate + place]
            kv.append(compressor.kv(token)[-width:])
            gates.append((compressor.gate(token) + compressor.position_bias[place])[-width:])
            if spec.overlap and window:
                before = x_TD[(window - 1) * spec.rate + place]
                kv.append(compressor.kv(before)[:width])
                gates.append((compressor.gate(before) + compressor.position_bias[place])[:width])
        entry = (torch.stack(gates).softmax(0) * torch.stack(kv)).sum(0)
        entry = compressor.norm(entry)[None, None]
        entries.append(rotate_end(entry, torch.tensor([window * spec.rate]), spec)[0, 0])
    return torch.stack(entries) if entries else x_TD.new_empty(0, width)


def naive(layer: CompressedAttention, x_TD: Tensor) -> Tensor:
    """One document, query by query and head by head."""
    spec = layer.spec
    entries_WH = naive_entries(layer.compressor, x_TD)
    index_WJ = None if layer.indexer is None else naive_entries(layer.indexer.keys, x_TD)
    outputs = []
    for t in range(len(x_TD)):
        latent_Q = layer.query_norm(layer.query_down(x_TD[t]))
        tokens = range(max(0, t - spec.window + 1), t + 1)
        keys = [
            rotate_end(layer.kv_norm(layer.kv(x_TD[s]))[None, None], torch.tensor([s]), spec)[0, 0]
            for s in tokens
        ]
        closed = [w for w in range(len(entries_WH)) if (w + 1) * spec.rate <= t + 1]
        if index_WJ is not None:
            score = index_score(layer, x_TD[t], latent_Q, t, index_WJ)
            closed = sorted(closed, key=lambda w: -score[w])[: spec.indexer.top_k]
        kv_SH = torch.stack(keys + [entries_WH[w] for w in closed])
        heads = []
        for head, q_H in enumerate(layer.query(latent_Q).view(spec.num_heads, -1)):
            q_H = q_H * (q_H.square().mean() + spec.eps).rsqrt()
            q_H = rotate_end(q_H[None, None], torch.tensor([t]), spec)[0, 0]
            scores = torch.cat((kv_SH @ q_H * spec.head_dim**-0.5, layer.sinks[head : head + 1]))
            heads.append(scores.softmax(0)[:-1] @ kv_SH)
        mixed_NH = rotate_end(torch.stack(heads)[None], torch.tensor([-t]), spec)[0]
        groups = mixed_NH.flatten().view(spec.num_output_groups, -1)
        parts = [matrix @ group for matrix, group in zip(layer.group, groups, strict=True)]
        outputs.append(layer.out(torch.cat(parts)))
    return torch.stack(outputs)


def index_score(
    layer: CompressedAttention, x_D: Tensor, latent_Q: Tensor, place: int, keys_WJ: Tensor
) -> list[float]:
    assert layer.indexer is not None
    heads = layer.indexer.query(latent_Q).view(1, layer.indexer.indexer.num_heads, -1)
    heads = rotate_end(heads, torch.tensor([place]), layer.spec)[0]
    weights = layer.indexer.head_weights(x_D)
    return [(weights * (heads @ key).relu()).sum().item() for key in keys_WJ]


@pytest.mark.parametrize("name", SPECS)
def test_output_is_that_of_the_definition(name: str) -> None:
    layer = random_layer(SPECS[name])
    x_TD = torch.randn(31, DIM)
    lengths = (17, 2, 12)
    with torch.no_grad():
        actual = layer(x_TD, StepContext.packed(lengths))
        expected = torch.cat([naive(layer, document) for document in x_TD.split(lengths)])
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_a_token_does_not_see_the_future(name: str) -> None:
    layer = random_layer(SPECS[name])
    x_TD = torch.randn(20, DIM)
    whole = layer(x_TD, StepContext.packed([20]))
    for length in (1, 7, 13):
        part = layer(x_TD[:length], StepContext.packed([length]))
        torch.testing.assert_close(part, whole[:length], atol=1e-5, rtol=1e-5)


def test_far_tokens_are_seen_through_entries_only() -> None:
    layer = random_layer(HCA)
    x_TD = torch.randn(20, DIM, requires_grad=True)
    layer(x_TD, StepContext.packed([20]))[13].sum().backward()
    assert x_TD.grad is not None
    seen = x_TD.grad.abs().sum(1) > 0
    # Entries close at 12 tokens; the window holds 9 to 13.
    assert seen.tolist() == [True] * 14 + [False] * 6
    narrow = random_layer(dataclasses.replace(HCA, rate=100))
    x_TD.grad = None
    narrow(x_TD, StepContext.packed([20]))[13].sum().backward()
    assert (x_TD.grad.abs().sum(1) > 0).tolist() == [False] * 9 + [True] * 5 + [False] * 6


@pytest.mark.parity
@pytest.mark.parametrize(
    ("kind", "spec"), [("heavily_compressed_attention", HCA), ("compressed_sparse_attention", CSA)]
)
def test_output_equals_that_of_transformers(kind: str, spec: CompressedAttentionSpec) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.deepseek_v4 import modeling_deepseek_v4 as v4

    config = transformers.DeepseekV4Config(
        hidden_size=DIM, num_attention_heads=4, num_key_value_heads=1, head_dim=16,
        q_lora_rank=12, qk_rope_head_dim=8, sliding_window=spec.window, o_groups=2,
        o_lora_rank=10, index_n_heads=8, index_head_dim=12, index_topk=2, num_hidden_layers=1,
        layer_types=[kind], mlp_layer_types=["moe"], compress_rates={kind: spec.rate},
        rope_theta=10_000.0, compress_rope_theta=10_000.0,
    )  # fmt: skip
    config._attn_implementation = "eager"
    ours, theirs = random_layer(spec), v4.DeepseekV4Attention(config, 0).eval()
    theirs.load_state_dict(_their_names(ours))
    x_TD = torch.randn(20, DIM)
    positions = torch.arange(20)[None]
    tables = v4.DeepseekV4RotaryEmbedding(config)(x_TD, positions, layer_type="compress")
    place = torch.arange(20)
    distance = place - place[:, None]
    hidden = (distance > 0) | (distance <= -spec.window)
    mask = torch.zeros(1, 1, 20, 20).masked_fill(hidden, float("-inf"))
    with torch.no_grad():
        expected, _ = theirs(x_TD[None], {"compress": tables}, positions, mask)
        actual = ours(x_TD, StepContext.packed([20]))
    torch.testing.assert_close(actual, expected[0], atol=1e-5, rtol=1e-5)


def _their_names(layer: CompressedAttention) -> dict[str, Tensor]:
    """Name our tensors as theirs."""
    names = {
        "q_a_proj": layer.query_down, "q_a_norm": layer.query_norm, "q_b_proj": layer.query,
        "kv_proj": layer.kv, "kv_norm": layer.kv_norm, "o_b_proj": layer.out,
    }  # fmt: skip
    compressors = {"compressor.": layer.compressor}
    if layer.indexer is not None:
        compressors["compressor.indexer."] = layer.indexer.keys
        names["compressor.indexer.q_b_proj"] = layer.indexer.query
        names["compressor.indexer.scorer.weights_proj"] = layer.indexer.head_weights
    tensors = {"sinks": layer.sinks, "o_a_proj.weight": layer.group.flatten(0, 1)}
    for prefix, compressor in compressors.items():
        names[f"{prefix}kv_proj"] = compressor.kv
        names[f"{prefix}gate_proj"] = compressor.gate
        names[f"{prefix}kv_norm"] = compressor.norm
        tensors[f"{prefix}position_bias"] = compressor.position_bias
    return tensors | {f"{name}.weight": module.weight for name, module in names.items()}
