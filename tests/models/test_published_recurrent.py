"""Published models with recurrent layers have the parameters their builders count."""

from __future__ import annotations

import pytest
import torch

from tests.spec.recurrent import NUM_PARAMETERS, PUBLISHED
from weft.models.decoder import Decoder
from weft.models.families import rules
from weft.models.hf_keys import parts
from weft.models.hf_layouts import GroupedRows, Inserted
from weft.spec.families import spec_from_hf


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count(name):
    model = Decoder(spec_from_hf(PUBLISHED[name]), device="meta")
    assert model.num_parameters == NUM_PARAMETERS[name]


@pytest.mark.parametrize("name", ["RWKV-4-169M", "LFM2-1.2B", "Mamba-Codestral-7B"])
def test_rules_fill_every_parameter_once(name):
    model = Decoder(spec_from_hf(PUBLISHED[name]), device="meta")
    assert {part.ours for part in parts(rules(model.spec))} == set(dict(model.named_parameters()))


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (Inserted((1,)), (6, 1, 4)),
        (Inserted((0, 1, 3)), (1, 1, 5, 1)),
        (GroupedRows(2, (3, 1, 4)), (16, 5)),
        (GroupedRows(3, (2, 2)), (12,)),
    ],
)
def test_layouts_only_move_numbers(layout, shape):
    theirs = torch.randn(shape)
    ours = layout.to_ours(theirs)
    assert torch.equal(layout.to_theirs(ours), theirs)
    assert torch.equal(ours.flatten().sort().values, theirs.flatten().sort().values)


def test_grouped_rows_collect_the_rows_of_each_part():
    # Two key heads, each with q, k and two rows of v.
    theirs = torch.tensor([10, 20, 30, 31, 11, 21, 32, 33])
    ours = GroupedRows(2, (1, 1, 2)).to_ours(theirs)
    assert ours.tolist() == [10, 11, 20, 21, 30, 31, 32, 33]
