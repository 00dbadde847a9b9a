"""Every parameter of every kind of model has its place in the optimizer."""

from __future__ import annotations

import pytest

from tests.plan.specs import MIXERS, SPECS
from weft.models.block_draft import BlockHead
from weft.models.decoder import Decoder
from weft.models.eagle import EagleHead
from weft.models.encoder_decoder import EncoderDecoder
from weft.spec import AttentionSpec, EncoderDecoderSpec, EncoderSpec, LayerSpec, MLPSpec, ModelSpec
from weft.train.muon import Muon
from weft.train.parameters import merged_rows, sort_parameters


@pytest.mark.parametrize("name", SPECS)
def test_matrices_are_maps_and_their_parts_fill_them(name: str) -> None:
    model = Decoder(SPECS[name], device="meta")
    kinds = sort_parameters(model)
    rows = merged_rows(model)
    assert rows.keys() <= kinds.matrices.keys()
    # Refuses what is no matrix, and parts that do not add up to their tensor.
    assert Muon(kinds.matrices, lr=0.1, merged_rows=rows).param_groups
    sizes = len(kinds.matrices) + len(kinds.tables) + len(kinds.vectors)
    assert sizes == sum(1 for _ in model.parameters())


@pytest.mark.parametrize("name", SPECS)
def test_no_bias_filter_or_norm_is_orthogonalised(name: str) -> None:
    matrices = sort_parameters(Decoder(SPECS[name], device="meta")).matrices
    wrong = [n for n in matrices if any(part in n.split(".")[-1] for part in ("bias", "mix"))]
    assert not wrong
    assert not [n for n in matrices if ".conv." in n or "norm" in n or "shared_gate" in n]


def test_tables_are_looked_up() -> None:
    tables = sort_parameters(Decoder(SPECS["sandwich"], device="meta")).tables
    assert set(tables) == {"embed.weight", "head.weight", "positions.weight"}
    assert "relative_bias.weight" in sort_parameters(Decoder(SPECS["relative bias"])).tables


def test_the_parts_of_an_encoder_decoder_are_named_from_its_root() -> None:
    whole = AttentionSpec(4, 4, 16, rotary=None, causal=False)
    encoder = EncoderSpec("t5", 50, 64, (LayerSpec(whole, MLPSpec(32)),))
    layer = LayerSpec(MIXERS["grouped-query"], MLPSpec(32), cross=whole)
    model = EncoderDecoder(
        EncoderDecoderSpec(encoder, ModelSpec("t5", 50, 64, (layer,))), device="meta"
    )
    rows = merged_rows(model)
    assert rows["encoder.layers.0.mixer.qkv.weight"] == (64, 64, 64)
    assert rows["decoder.layers.0.cross.kv.weight"] == (64, 64)
    assert rows.keys() <= dict(model.named_parameters()).keys()


def test_drafting_heads_are_sorted_as_the_blocks_they_are_made_of() -> None:
    spec = ModelSpec("llama", 50, 64, (LayerSpec(MIXERS["grouped-query"], MLPSpec(32)),))
    layer_rows = {
        name.removeprefix("layers.0."): sizes
        for name, sizes in merged_rows(Decoder(spec, device="meta")).items()
    }
    eagle = EagleHead(spec, ffn_dim=32, device="meta")
    assert merged_rows(eagle) == {f"block.{name}": sizes for name, sizes in layer_rows.items()}
    block = BlockHead(spec, ffn_dim=32, num_layers=2, device="meta")
    assert merged_rows(block).keys() == {f"blocks.{i}.{n}" for i in (0, 1) for n in layer_rows}
    kinds = sort_parameters(block)
    assert set(kinds.tables) == {"bigram_in.weight", "bigram_out.weight"}
    assert "mask" in kinds.vectors
    for head in (eagle, block):
        matrices = sort_parameters(head).matrices
        assert Muon(matrices, lr=0.1, merged_rows=merged_rows(head)).param_groups
