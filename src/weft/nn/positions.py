"""Position vectors that are added to the embedding, and ALiBi's slopes.

T tokens, D model width, N heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.core.errors import ConfigError
from weft.spec import LearnedPositions, PositionSpec, SinusoidalPositions


class LearnedTable(nn.Module):
    """One trained vector per position (GPT-2, BERT)."""

    def __init__(
        self,
        dim: int,
        num_positions: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_positions, dim, device=device, dtype=dtype))

    def forward(self, positions_T: Tensor) -> Tensor:
        """Return the vector of each position, [T, D]."""
        return nn.functional.embedding(positions_T, self.weight)

    def init_parameters(self, generator: torch.Generator) -> None:
        """Start small, as the token embedding does."""
        values = torch.empty(self.weight.shape, dtype=torch.float32)
        self.weight.copy_(values.normal_(0.0, 0.02, generator=generator))


class SinusoidalTable(nn.Module):
    """Sines and cosines, computed when asked for; has no parameters."""

    def __init__(self, dim: int, theta: float) -> None:
        super().__init__()
        self.dim = dim
        self.theta = theta

    def forward(self, positions_T: Tensor) -> Tensor:
        """Return the vector of each position, [T, D], float32."""
        return sinusoidal_positions(positions_T, self.dim, theta=self.theta)


def sinusoidal_positions(positions_T: Tensor, dim: int, *, theta: float = 10_000.0) -> Tensor:
    """Return sin and cos of position / theta^(2i/dim) in alternating columns, [T, dim].

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.5.

    Raises:
        ConfigError: ``dim`` is odd.

    >>> sinusoidal_positions(torch.tensor([0]), 4).tolist()
    [[0.0, 1.0, 0.0, 1.0]]
    """
    if dim % 2:
        raise ConfigError(
            f"sinusoidal positions need an even width, not {dim}", fix="choose an even dim"
        )
    exponents_R = torch.arange(0, dim, 2, dtype=torch.float32, device=positions_T.device) / dim
    angles_TR = positions_T.to(torch.float32).unsqueeze(-1) / theta**exponents_R
    return torch.stack([angles_TR.sin(), angles_TR.cos()], dim=-1).flatten(-2)


def alibi_slopes(
    num_heads: int, device: torch.device | str | None = None, *, stretch: float = 1.0
) -> Tensor:
    """Return the penalty per position of distance of every head, [N], float32.

    A geometric series from 2^(-8 / N) to 2^-8; between powers of two, every other member of the
    next power's series fills up (Press et al. 2022, arXiv:2108.12409, and its published code).

    ``stretch`` prepares a model for sequences that many times longer without training, as the
    NTK-aware rule does for rotary positions: the head that looks nearest keeps its slope, the one
    that looks farthest has it divided by the stretch (position interpolation divides all of them,
    arXiv:2310.13017), and the heads between follow geometrically.

    >>> alibi_slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    power = 1 << (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * head / power) for head in range(1, power + 1)]
    slopes += [2.0 ** (-4.0 * head / power) for head in range(1, 2 * (num_heads - power), 2)]
    slopes_N = torch.tensor(slopes, device=device)
    if stretch == 1.0:
        return slopes_N
    reach_N = slopes_N.log2()
    span = reach_N.max() - reach_N.min()
    share_N = (reach_N.max() - reach_N) / span if num_heads > 1 else torch.ones_like(reach_N)
    return slopes_N * stretch**-share_N


def build_positions(
    dim: int,
    spec: PositionSpec | None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LearnedTable | SinusoidalTable | None:
    """Return the table a specification describes; none where there is none."""
    if isinstance(spec, LearnedPositions):
        return LearnedTable(dim, spec.num_positions, device=device, dtype=dtype)
    if isinstance(spec, SinusoidalPositions):
        return SinusoidalTable(dim, spec.theta)
    return None
