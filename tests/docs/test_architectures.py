"""The page of architectures names every family and every kind of layer."""

from __future__ import annotations

import typing

from tests.docs.markdown import ROOT
from weft.models.families import KEY_MAPS
from weft.spec.families import FAMILIES
from weft.spec.families.encoders import ENCODER_DECODERS, ENCODERS
from weft.spec.model import FFNSpec, MixerSpec

PAGE = (ROOT / "docs/concepts/architectures.md").read_text(encoding="utf-8")


def test_every_family_is_listed_and_no_other():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    first_cells = [row.split("|")[1] for row in rows]
    listed = {name.strip(" `") for cell in first_cells for name in cell.split(",")}
    listed.discard("model_type")
    families = {*FAMILIES, *ENCODERS, *ENCODER_DECODERS}
    kinds = {kind.__name__ for kind in (*typing.get_args(MixerSpec), *typing.get_args(FFNSpec))}
    assert families <= listed
    assert listed <= families | kinds


def test_every_kind_of_layer_is_described():
    for kind in (*typing.get_args(MixerSpec), *typing.get_args(FFNSpec)):
        assert f"`{kind.__name__}`" in PAGE


def test_key_maps_belong_to_families():
    # Configurations with a vision part are read as the family of their text part.
    assert set(FAMILIES) - set(KEY_MAPS) == {"qwen3_5", "qwen3_5_moe"}
    assert set(KEY_MAPS) <= set(FAMILIES)
