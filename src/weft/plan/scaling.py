"""Scaling laws: fit them, and spend a budget by them.

``L(N, D) = E + A/N^α + B/D^β`` (Hoffmann et al. 2022, arXiv:2203.15556, equation 2), fitted as
there: Huber loss on the difference of logarithms, from a grid of starts. Training takes 6·N·D
FLOPs (Kaplan et al. 2020, arXiv:2001.08361).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from weft.core.errors import ConfigError

_HUBER = 1e-3
_NUM_STEPS = 400


@dataclass(frozen=True)
class LossLaw:
    """Loss by parameters and tokens.

    Attributes:
        irreducible: E, the entropy of text.
        size_scale: A.
        data_scale: B.
        size_exponent: α.
        data_exponent: β.
    """

    irreducible: float
    size_scale: float
    data_scale: float
    size_exponent: float
    data_exponent: float

    def loss(self, num_parameters: float, num_tokens: float) -> float:
        """Return nats per token."""
        return (
            self.irreducible
            + self.size_scale / num_parameters**self.size_exponent
            + self.data_scale / num_tokens**self.data_exponent
        )

    def optimal(self, flops: float) -> tuple[float, float]:
        """Return (parameters, tokens) that minimise loss at 6ND = ``flops`` (equation 4).

        >>> round(CHINCHILLA.optimal(1e21)[0] / 1e9, 3)
        1.824
        """
        a, b = self.size_exponent, self.data_exponent
        ratio = (a * self.size_scale / (b * self.data_scale)) ** (1 / (a + b))
        num_parameters = ratio * (flops / 6) ** (b / (a + b))
        return num_parameters, flops / (6 * num_parameters)

    def tokens_for(self, num_parameters: float, loss: float) -> float:
        """Return tokens at which a model of this size reaches a loss; infinite if it never does."""
        left = loss - self.irreducible - self.size_scale / num_parameters**self.size_exponent
        return math.inf if left <= 0 else (self.data_scale / left) ** (1 / self.data_exponent)

    def optimal_with_inference(
        self, loss: float, num_served_tokens: float, *, num_sizes: int = 4001
    ) -> tuple[float, float]:
        """Return (parameters, tokens) that reach a loss with least training and serving FLOPs.

        Minimises 6ND + 2N·served (Sardana et al. 2024, arXiv:2401.00448); with nothing served it
        is the compute-optimal point.

        Raises:
            ConfigError: no model reaches the loss.
        """
        if loss <= self.irreducible:
            raise ConfigError(f"no model reaches a loss of {loss}", fix=f"> {self.irreducible}")
        least = (self.size_scale / (loss - self.irreducible)) ** (1 / self.size_exponent)
        sizes = least * np.geomspace(1.0001, 1e4, num_sizes)
        left = loss - self.irreducible - self.size_scale / sizes**self.size_exponent
        tokens = (self.data_scale / left) ** (1 / self.data_exponent)
        best = int(np.argmin(6 * sizes * tokens + 2 * sizes * num_served_tokens))
        return float(sizes[best]), float(tokens[best])


CHINCHILLA = LossLaw(1.69, 406.4, 410.7, 0.34, 0.28)
"""Hoffmann et al. 2022, approach 3, as printed."""
CHINCHILLA_REFIT = LossLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
"""Besiroglu et al. 2024, arXiv:2404.10102: the same data fitted again."""


@dataclass(frozen=True)
class KaplanLaw:
    """Power laws in one variable each (arXiv:2001.08361, table 5).

    Attributes:
        size_exponent: α_N of L(N) = (N_c/N)^α.
        size_scale: N_c, non-embedding parameters.
        data_exponent: α_D.
        data_scale: D_c, tokens.
        compute_exponent: α_C of the best use of compute.
        compute_scale: C_c in PF-days.
    """

    size_exponent: float = 0.076
    size_scale: float = 8.8e13
    data_exponent: float = 0.095
    data_scale: float = 5.4e13
    compute_exponent: float = 0.050
    compute_scale: float = 3.1e8

    def loss_of_size(self, num_parameters: float) -> float:
        """Return the loss with unlimited data."""
        return (self.size_scale / num_parameters) ** self.size_exponent

    def loss_of_data(self, num_tokens: float) -> float:
        """Return the loss of a model as large as helps."""
        return (self.data_scale / num_tokens) ** self.data_exponent

    def loss_of_compute(self, pf_days: float) -> float:
        """Return the loss of the best use of compute."""
        return (self.compute_scale / pf_days) ** self.compute_exponent


def training_compute(num_parameters: float, num_tokens: float) -> float:
    """Return 6ND.

    >>> f"{training_compute(405e9, 15.6e12):.4g}"
    '3.791e+25'
    """
    return 6.0 * num_parameters * num_tokens


def llama3_tokens(flops: float, *, scale: float = 0.29, exponent: float = 0.53) -> float:
    """Return the compute-optimal tokens of Llama 3's own law (arXiv:2407.21783, equation 1).

    The printed constants are rounded: they give 1.05e13 at 3.8e25, the paper says 1.655e13.
    """
    return scale * flops**exponent


def fit_loss(
    num_parameters: Sequence[float], num_tokens: Sequence[float], losses: Sequence[float]
) -> LossLaw:
    """Fit the five constants by Huber loss on log-loss, best of a grid of starts.

    Raises:
        ConfigError: fewer than six runs, or a value that is not positive.
    """
    runs = np.array([num_parameters, num_tokens, losses], float)
    if runs.shape[1] < 6 or bool(np.any(runs <= 0.0)):
        raise ConfigError(
            f"{runs.shape[1]} runs cannot fix five constants", fix="give six or more, all above 0"
        )
    log_n, log_d, log_l = np.log(runs)
    lowest = float(log_l.min())
    best_value, best = math.inf, np.zeros(5)
    for a, b, e, alpha, beta in product(
        (3.0, 7.0), (3.0, 7.0), (-0.7, -0.2), (0.3, 0.5), (0.3, 0.5)
    ):
        start = np.array([a, b, lowest + e, alpha, beta])
        found, value = _levenberg(start, log_n, log_d, log_l)
        if value < best_value:
            best_value, best = value, found
    a, b, e, alpha, beta = (float(x) for x in best)
    return LossLaw(math.exp(e), math.exp(a), math.exp(b), alpha, beta)


def _levenberg(
    x: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, log_l: np.ndarray
) -> tuple[np.ndarray, float]:
    """Levenberg-Marquardt with Huber weights; x = log A, log B, log E, α, β."""
    damping = 1e-2
    residual, jacobian = _residual(x, log_n, log_d, log_l)
    value = _huber(residual)
    for _ in range(_NUM_STEPS):
        weight = np.minimum(1.0, _HUBER / np.maximum(np.abs(residual), 1e-30))
        normal = jacobian.T @ (weight[:, None] * jacobian)
        gradient = jacobian.T @ (weight * residual)
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), -gradient)
        tried = x + step
        new_residual, new_jacobian = _residual(tried, log_n, log_d, log_l)
        new_value = _huber(new_residual)
        if new_value < value:
            small = value - new_value < 1e-14 * (1e-12 + value)
            x, residual, jacobian, value = tried, new_residual, new_jacobian, new_value
            damping = max(damping / 5, 1e-12)
            if small:
                break
        else:
            damping *= 4
            if damping > 1e10:
                break
    return x, value


def _residual(
    x: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, log_l: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    a, b, e, alpha, beta = np.clip(x, [-20, -20, -20, 0.0, 0.0], [60, 60, 20, 3.0, 3.0])
    terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
    top = terms.max(axis=0)
    powers = np.exp(terms - top)
    total = powers.sum(axis=0)
    size, data, rest = powers / total
    jacobian = np.stack([size, data, rest, -size * log_n, -data * log_d], axis=1)
    return top + np.log(total) - log_l, jacobian


def _huber(residual: np.ndarray) -> float:
    size = np.abs(residual)
    inner = 0.5 * residual**2
    return float(np.where(size <= _HUBER, inner, _HUBER * (size - 0.5 * _HUBER)).sum())


def isoflop_optimum(num_parameters: Sequence[float], losses: Sequence[float]) -> float:
    """Return the size at the bottom of a parabola in log N (arXiv:2203.15556, approach 2).

    Raises:
        ConfigError: fewer than three sizes, or no bottom.
    """
    if len(num_parameters) < 3:
        raise ConfigError("a parabola needs three sizes", fix="train more sizes at this compute")
    curve, slope, _ = np.polyfit(np.log(num_parameters), losses, 2)
    if curve <= 0.0:
        raise ConfigError("the losses have no minimum over size", fix="widen the range of sizes")
    return float(np.exp(-slope / (2 * curve)))


def fit_power(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return (scale, exponent) of y = scale · x^exponent by least squares on logarithms."""
    exponent, log_scale = np.polyfit(np.log(x), np.log(y), 1)
    return float(np.exp(log_scale)), float(exponent)
