import pytest
import torch

from weft.ops import apply_rotary
from weft.ops.rotary.reference import apply_rotary_complex

WIDTH = 16


def tables(positions):
    frequencies = 10_000.0 ** (-torch.arange(0, WIDTH, 2) / WIDTH)
    angles = torch.outer(torch.tensor(positions, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def turned(x, position, layout):
    return apply_rotary(x.view(1, 1, WIDTH), *tables([position]), layout).flatten()


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_scores_depend_on_the_distance_only(layout):
    torch.manual_seed(0)
    q, k = torch.randn(2, WIDTH)
    for distance in (0, 1, 7, 100):
        scores = [
            turned(q, start + distance, layout) @ turned(k, start, layout) for start in (0, 5, 900)
        ]
        torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(scores[0], scores[2], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("distance", "cosine"),
    [(1, 0.540302), (2, -0.416147), (10, -0.839072), (100, 0.862319), (1000, 0.562379)],
)
def test_score_of_the_first_pair_is_the_cosine_of_the_distance(distance, cosine):
    unit = torch.zeros(WIDTH)
    unit[0] = 1.0
    assert float(turned(unit, distance, "half") @ unit) == pytest.approx(cosine, abs=1e-5)


def test_the_two_layouts_are_one_permutation_apart():
    torch.manual_seed(1)
    x = torch.randn(5, 3, WIDTH)
    to_half = torch.cat((torch.arange(0, WIDTH, 2), torch.arange(1, WIDTH, 2)))
    interleaved = apply_rotary(x, *tables([0, 3, 1, 9, 50]), "interleaved")
    half = apply_rotary(x[..., to_half].contiguous(), *tables([0, 3, 1, 9, 50]), "half")
    torch.testing.assert_close(interleaved[..., to_half], half)


def test_dimensions_beyond_the_rotated_ones_stay():
    x = torch.randn(4, 2, WIDTH + 8)
    out = apply_rotary(x, *tables([1, 2, 3, 4]), "half")
    assert torch.equal(out[..., WIDTH:], x[..., WIDTH:])
    assert not torch.equal(out[..., :WIDTH], x[..., :WIDTH])


def test_gradient_turns_back():
    x = torch.randn(3, 2, WIDTH, requires_grad=True)
    out = apply_rotary(x, *tables([4, 5, 6]), "half")
    out.backward(out.detach())
    torch.testing.assert_close(x.grad, x.detach())


@pytest.mark.parametrize("width", [2, 8, 64])
def test_interleaved_pairs_turn_as_complex_numbers(width):
    torch.manual_seed(0)
    x, angles = torch.randn(5, 3, width), torch.randn(5, width // 2) * 10
    torch.testing.assert_close(
        apply_rotary(x, angles.cos(), angles.sin(), "interleaved"),
        apply_rotary_complex(x, angles.cos(), angles.sin()),
    )


@pytest.mark.parametrize("pairs", [4, 8])
def test_the_two_layouts_map_by_a_permutation(pairs):
    torch.manual_seed(0)
    x, angles = torch.randn(5, 3, WIDTH), torch.randn(5, pairs) * 10
    order = [*range(0, 2 * pairs, 2), *range(1, 2 * pairs, 2), *range(2 * pairs, WIDTH)]
    half = apply_rotary(x[..., order], angles.cos(), angles.sin(), "half")
    interleaved = apply_rotary(x, angles.cos(), angles.sin(), "interleaved")
    torch.testing.assert_close(half, interleaved[..., order])
