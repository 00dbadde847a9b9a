"""What one step of reinforcement learning reports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from weft.align.mismatch import Mismatch
from weft.align.rollout import Rollout
from weft.core.console import format_count
from weft.spec.request import FinishReason
from weft.train.step import StepResult


@dataclass(frozen=True)
class StepRecord:
    """Everything a step knows about itself.

    Attributes:
        rollout: What was drawn.
        num_dropped_groups: Groups without a signal.
        updates: Results of the optimizer steps; empty when no group had a signal.
        mismatch: Trainer against sampler; none without an update.
        lr: Learning rate of the first parameter group.
        weight_version: Updates of the policy so far, this step's included.
        rollout_s: Seconds of drawing and grading.
        train_s: Seconds of everything after that.
    """

    rollout: Rollout
    num_dropped_groups: int
    updates: tuple[StepResult, ...]
    mismatch: Mismatch | None
    lr: float
    weight_version: int
    rollout_s: float
    train_s: float

    @cached_property
    def num_new_tokens(self) -> int:
        """Tokens drawn."""
        return sum(sample.num_actions for sample in self.rollout.samples)

    @cached_property
    def reward(self) -> float:
        """Mean reward of the samples that could be scored; 0 if there is none."""
        rewards = [reward for group in self.rollout.groups for reward in group.rewards]
        return float(np.mean(rewards)) if rewards else 0.0

    @cached_property
    def entropy(self) -> float:
        """Estimate of the policy's entropy in nats per token: mean of -log p of what it drew."""
        total = sum(sum(sample.behaviour_log_probs) for sample in self.rollout.samples)
        return -total / max(self.num_new_tokens, 1)

    @property
    def status(self) -> str:
        """The live line."""
        rate = format_count(self.num_new_tokens / max(self.rollout_s, 1e-9))
        return f"reward {self.reward:.3f} · entropy {self.entropy:.2f} · {rate} tok/s drawn"


def step_values(record: StepRecord) -> dict[str, Any]:
    """Return the values of the step's event; means are over action tokens."""
    samples = record.rollout.samples
    lengths = [sample.num_actions for sample in samples]
    cut = sum(sample.finish_reason is FinishReason.LENGTH for sample in samples)
    values: dict[str, Any] = {
        "reward": record.reward,
        "entropy": record.entropy,
        "completion_tokens": float(np.mean(lengths)),
        "share_cut": cut / len(samples),
        "num_unscorable": record.rollout.num_unscorable,
        "num_groups": len(record.rollout.groups),
        "num_dropped_groups": record.num_dropped_groups,
        "num_updates": len(record.updates),
        "weight_version": record.weight_version,
        "lr": record.lr,
        "rollout_tokens_per_s": record.num_new_tokens / max(record.rollout_s, 1e-9),
        "cached_prompt_tokens": record.rollout.num_cached_tokens,
        "rollout_s": record.rollout_s,
        "train_s": record.train_s,
    }
    if record.updates:
        values |= _update_values(record.updates)
    if record.mismatch is not None:
        values |= record.mismatch.as_metrics()
    return values


def _update_values(updates: tuple[StepResult, ...]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for update in updates:
        for name, value in update.stats.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    num_actions = sums.pop("num_actions")
    loss_sum = sum(float(update.loss_sum) for update in updates)
    count = sum(float(update.count) for update in updates)
    values = {
        "loss": loss_sum / count,
        "grad_norm": float(updates[-1].grad_norm),
        "num_skipped": sum(int(update.skipped) for update in updates),
        "clip_fraction": sums["num_clipped"] / num_actions,
        "old_kl": sums["old_kl_sum"] / num_actions,
        "num_actions": num_actions,
    }
    if "reference_kl_sum" in sums:
        values["reference_kl"] = sums["reference_kl_sum"] / num_actions
    return values
