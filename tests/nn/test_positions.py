"""Position vectors: worked values of the sinusoidal table, trained tables."""

from __future__ import annotations

import pytest
import torch

from weft.core.errors import ConfigError
from weft.nn.positions import build_positions, sinusoidal_positions
from weft.spec import LearnedPositions, SinusoidalPositions


def test_three_positions_of_four_numbers() -> None:
    expected = [
        [0.0, 1.0, 0.0, 1.0],
        [0.8415, 0.5403, 0.0100, 0.9999],
        [0.9093, -0.4161, 0.0200, 0.9998],
    ]
    actual = sinusoidal_positions(torch.arange(3), 4)
    assert [[round(value, 4) for value in row] for row in actual.tolist()] == expected


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="even width, not 5"):
        sinusoidal_positions(torch.arange(3), 5)


def test_products_of_sinusoidal_vectors_depend_on_the_distance() -> None:
    table_TD = sinusoidal_positions(torch.arange(200), 32)
    products = table_TD @ table_TD.T
    for distance in (0, 1, 17):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))


def test_the_sinusoidal_table_has_no_parameters_and_the_learned_one_a_row_each() -> None:
    fixed = build_positions(8, SinusoidalPositions(theta=100.0))
    assert fixed is not None
    assert list(fixed.parameters()) == []
    positions_T = torch.tensor([3, 0, 3])
    torch.testing.assert_close(
        fixed(positions_T), sinusoidal_positions(positions_T, 8, theta=100.0)
    )
    learned = build_positions(8, LearnedPositions(5))
    assert learned is not None
    with torch.no_grad():
        learned.init_parameters(torch.Generator().manual_seed(0))
    assert torch.equal(learned(positions_T), learned.weight[[3, 0, 3]])
    assert build_positions(8, None) is None
