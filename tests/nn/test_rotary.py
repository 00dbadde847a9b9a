"""Rotary tables: worked values and the relative property."""

from __future__ import annotations

import pytest
import torch

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
