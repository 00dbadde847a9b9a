"""Rewards to advantages. Each kind is a baseline and a scale; all of them are pure.

Baselines never see the sample's own tokens, only rewards of one group (the samples of one prompt)
or of the whole batch. A group whose rewards are all equal carries no signal: every group kind
gives it exactly 0, not a rounding error divided by a tiny deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

AdvantageKind = Literal["group_std", "group_mean", "leave_one_out", "batch"]

# Added to deviations; far below that of a single success in any usable group.
EPS = 1e-6


def advantages(groups: Sequence[Sequence[float]], kind: AdvantageKind) -> list[np.ndarray]:
    """Return the advantage of every reward, float64, in the shape of ``groups``.

    - ``group_std``: (r - mean) / std within the group, the sample deviation with n - 1 (GRPO,
      Shao et al. 2024, arXiv:2402.03300, eq. 3).
    - ``group_mean``: r - mean within the group (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783).
    - ``leave_one_out``: r - mean of the others in the group (RLOO, Ahmadian et al. 2024,
      arXiv:2402.14740).
    - ``batch``: (r - mean) / std over all groups together (REINFORCE++, Hu 2025,
      arXiv:2501.03262).

    Args:
        groups: Rewards of each prompt's samples.
        kind: The baseline and scale.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    if kind == "batch":
        return _whiten_batch(arrays)
    per_group = {
        "group_std": group_standardized,
        "group_mean": group_centered,
        "leave_one_out": leave_one_out,
    }[kind]
    return [per_group(rewards_G) for rewards_G in arrays]


def group_standardized(rewards_G: np.ndarray) -> np.ndarray:
    """Return (r - mean) / std of one group, all 0 where the rewards are equal.

    >>> group_standardized(np.array([1.0, 0.0, 0.0, 1.0])).round(4).tolist()
    [0.866, -0.866, -0.866, 0.866]
    """
    centered_G = group_centered(rewards_G)
    if not centered_G.any():
        return centered_G
    return centered_G / (rewards_G.std(ddof=1) + EPS)


def group_centered(rewards_G: np.ndarray) -> np.ndarray:
    """Return r - mean of one group, exactly 0 where the rewards are equal.

    >>> group_centered(np.array([1.0, 0.0, 0.0, 0.0])).tolist()
    [0.75, -0.25, -0.25, -0.25]
    """
    if is_constant(rewards_G):
        return np.zeros_like(rewards_G)
    return rewards_G - rewards_G.mean()


def leave_one_out(rewards_G: np.ndarray) -> np.ndarray:
    """Return r minus the mean of the other rewards: G / (G - 1) times the centred reward.

    >>> leave_one_out(np.array([1.0, 0.0, 0.0, 0.0])).round(4).tolist()
    [1.0, -0.3333, -0.3333, -0.3333]
    """
    size = len(rewards_G)
    return group_centered(rewards_G) * (size / (size - 1) if size > 1 else 0.0)


def is_constant(rewards_G: np.ndarray) -> bool:
    """Return whether a group has no signal: no reward, or all equal."""
    return len(rewards_G) == 0 or bool((rewards_G == rewards_G[0]).all())


def _whiten_batch(groups: list[np.ndarray]) -> list[np.ndarray]:
    everything = np.concatenate(groups) if groups else np.zeros(0)
    if is_constant(everything):
        return [np.zeros_like(group) for group in groups]
    mean, std = everything.mean(), everything.std(ddof=1)
    return [(group - mean) / (std + EPS) for group in groups]
