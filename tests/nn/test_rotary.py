"""Rotary tables: worked values and the relative property."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from weft.core.errors import ConfigError
from weft.nn.context import StepContext
from weft.nn.rotary import inverse_frequencies, rotary_tables
from weft.ops import apply_rotary
from weft.spec import RotaryScaling, RotarySpec


@pytest.mark.parametrize(
    ("distance", "cosine"),
    [(1, 0.540302), (2, -0.416147), (10, -0.839072), (100, 0.862319), (1000, 0.562379)],
)
def test_first_pair_turns_by_one_radian_a_position(distance: int, cosine: float) -> None:
    cos_TR, _ = rotary_tables(RotarySpec(), 4, torch.tensor([distance]))
    assert cos_TR[0, 0].item() == pytest.approx(cosine, abs=1e-6)


def test_second_pair_of_four_turns_a_hundred_times_slower() -> None:
    cos_TR, _ = rotary_tables(RotarySpec(), 4, torch.tensor([100]))
    assert cos_TR[0, 1].item() == pytest.approx(0.540302, abs=1e-6)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_scores_depend_only_on_the_distance(layout: str) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 16, generator=generator)
    spec = RotarySpec(layout=layout)

    def score(i: int, j: int) -> float:
        turned = [
            apply_rotary(x, *rotary_tables(spec, 16, torch.tensor([p])), layout)
            for x, p in ((q, i), (k, j))
        ]
        return (turned[0] * turned[1]).sum().item()

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert score(7, 3) != pytest.approx(score(8, 3), abs=1e-3)


@pytest.mark.parametrize("interleaved", [False, True])
def test_equal_positions_on_all_axes_are_one_position(interleaved: bool) -> None:
    plain = RotarySpec(theta=5e6)
    spec = replace(plain, sections=(24, 20, 20), interleaved_sections=interleaved)
    positions_T = torch.arange(50) * 7
    one = rotary_tables(plain, 128, positions_T)
    three = rotary_tables(spec, 128, positions_T.expand(3, -1))
    for left, right in zip(one, three, strict=True):
        torch.testing.assert_close(left, right, atol=0, rtol=0)


def test_each_pair_follows_the_axis_of_its_section() -> None:
    positions_AT = torch.tensor([[3], [50], [700]])
    blocks, mixed = (
        rotary_tables(
            RotarySpec(sections=(3, 2, 1), interleaved_sections=interleaved), 12, positions_AT
        )[0]
        for interleaved in (False, True)
    )
    alone = [rotary_tables(RotarySpec(), 12, positions_T)[0] for positions_T in positions_AT]

    def axes(cos_TR: torch.Tensor) -> list[int]:
        return [
            next(axis for axis in range(3) if cos_TR[0, pair] == alone[axis][0, pair])
            for pair in range(6)
        ]

    assert axes(blocks) == [0, 0, 0, 1, 1, 2]
    assert axes(mixed) == [0, 1, 2, 0, 1, 0]


def test_sections_that_do_not_fit_the_head_are_refused() -> None:
    with pytest.raises(ConfigError, match="share out 6 pairs, the head has 8"):
        rotary_tables(RotarySpec(sections=(3, 2, 1)), 16, torch.zeros(3, 1))


def test_axis_positions_reach_the_attention_through_the_context() -> None:
    spec = RotarySpec(sections=(2, 1, 1))
    context = StepContext.packed([5])
    torch.testing.assert_close(
        context.rotary(spec, 8)[0], rotary_tables(RotarySpec(), 8, torch.arange(5))[0]
    )
    context = StepContext.packed([5])
    context.axis_positions_AT = torch.arange(15).view(3, 5)
    expected = rotary_tables(spec, 8, context.axis_positions_AT)[0]
    assert torch.equal(context.rotary(spec, 8)[0], expected)
    # Text-only layers of the same model keep counting tokens.
    assert torch.equal(
        context.rotary(RotarySpec(), 8)[0], rotary_tables(RotarySpec(), 8, torch.arange(5))[0]
    )


def test_ntk_divides_the_slowest_pair_alone() -> None:
    plain = inverse_frequencies(RotarySpec(), 64)
    scaled = inverse_frequencies(RotarySpec(scaling=RotaryScaling("ntk", 4.0)), 64)
    torch.testing.assert_close(scaled[0], plain[0])
    torch.testing.assert_close(scaled[-1] * 4.0, plain[-1])


def test_dynamic_scaling_begins_where_the_trained_length_ends() -> None:
    def frequencies(context: int) -> torch.Tensor:
        scaling = RotaryScaling("dynamic", 2.0, original_context=100, context=context)
        return inverse_frequencies(RotarySpec(scaling=scaling), 32)

    torch.testing.assert_close(frequencies(100), inverse_frequencies(RotarySpec(), 32))
    torch.testing.assert_close(frequencies(101), frequencies(100), rtol=0.03, atol=0)
    stretched = inverse_frequencies(RotarySpec(scaling=RotaryScaling("ntk", 3.0)), 32)
    torch.testing.assert_close(frequencies(200), stretched)


def test_longrope_chooses_its_factors_by_the_length_the_model_is_meant_for() -> None:
    scaling = RotaryScaling(
        "longrope", 4.0, original_context=64, short_factors=(1.0, 2.0), long_factors=(4.0, 8.0)
    )
    plain = inverse_frequencies(RotarySpec(), 4)
    for context, factors in ((None, (1.0, 2.0)), (64, (1.0, 2.0)), (65, (4.0, 8.0))):
        spec = RotarySpec(scaling=replace(scaling, context=context))
        torch.testing.assert_close(inverse_frequencies(spec, 4) * torch.tensor(factors), plain)
    with pytest.raises(ConfigError, match="2 factors; a head that rotates 8"):
        inverse_frequencies(RotarySpec(scaling=scaling), 8)


def test_yarn_temperature_multiplies_cosines_and_sines() -> None:
    scaling = RotaryScaling("yarn", 40.0, original_context=4096)
    cos_TR, sin_TR = rotary_tables(RotarySpec(scaling=scaling), 64, torch.tensor([0, 9]))
    factor = 0.1 * math.log(40.0) + 1.0
    torch.testing.assert_close(cos_TR.square() + sin_TR.square(), torch.full((2, 32), factor**2))
    deepseek = replace(scaling, mscale=1.0, mscale_all_dim=1.0)
    assert deepseek.table_factor == 1.0
    assert replace(scaling, attention_factor=1.5).table_factor == 1.5


def test_linear_scaling_divides_every_frequency() -> None:
    plain = inverse_frequencies(RotarySpec(), 8)
    scaled = inverse_frequencies(RotarySpec(scaling=RotaryScaling("linear", 4.0)), 8)
    torch.testing.assert_close(scaled * 4, plain)


def test_llama3_scaling_keeps_short_and_divides_long_wavelengths() -> None:
    scaling = RotaryScaling("llama3", 8.0, 1.0, 4.0, 8192)
    plain = inverse_frequencies(RotarySpec(theta=5e5), 128)
    scaled = inverse_frequencies(RotarySpec(theta=5e5, scaling=scaling), 128)
    torch.testing.assert_close(scaled[0], plain[0])
    torch.testing.assert_close(scaled[-1] * 8, plain[-1])
    assert (scaled <= plain).all()
