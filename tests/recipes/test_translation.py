from __future__ import annotations

import pytest

from weft.models.decoder import Decoder
from weft.recipes.translation import course_transformer, translation


@pytest.fixture(scope="module")
def model() -> Decoder:
    return Decoder(course_transformer(), device="meta")


def test_the_course_transformer_has_57950208_parameters(model: Decoder):
    assert model.num_parameters == 57_950_208


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ("embed.", 16_384_000),
        (".mixer.", 8_388_608),
        (".ffn.", 16_777_216),
        ("_norm.", 16_384),
        ("head.", 16_384_000),
    ],
)
def test_each_part_of_the_course_transformer_counts_what_the_course_says(
    model: Decoder, part: str, count: int
):
    found = sum(p.numel() for name, p in model.named_parameters() if part in f"{name}.")
    assert found == count


def test_every_parameter_belongs_to_one_part(model: Decoder):
    parts = ("embed.", ".mixer.", ".ffn.", "_norm.", "head.")
    for name, _ in model.named_parameters():
        assert sum(part in f"{name}." for part in parts) == 1, name


def test_the_recipe_has_an_end():
    assert translation().budget.seconds == 27 * 60
