"""What flows through reinforcement learning: token ids and what is known about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.errors import DataError
from weft.data.tasks.task import Problem
from weft.spec.request import FinishReason


@dataclass(frozen=True)
class Sample:
    """One trajectory as tokens; every sequence below has one entry per token.

    Attributes:
        tokens: The whole sequence, prompt included.
        loss_mask: Whether the policy drew the token, so that it is trained. False for prompts and
            for what an environment wrote. The first token is never an action.
        behaviour_log_probs: Log-probability of the token under the processed logits it was drawn
            from; 0 where ``loss_mask`` is false.
        weight_versions: Version of the weights that drew the token; -1 where nothing was drawn.
        finish_reason: Why the sampler stopped.
        reward: What the grader gave; none when it could not tell.
        routed_experts: Experts chosen per token and MoE layer, [T, layers, k]; none if dense.

    Raises:
        DataError: the lengths differ, or the first token is marked as drawn.
    """

    tokens: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    behaviour_log_probs: tuple[float, ...]
    weight_versions: tuple[int, ...]
    finish_reason: FinishReason
    reward: float | None = None
    routed_experts: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {
            "tokens": len(self.tokens),
            "loss_mask": len(self.loss_mask),
            "behaviour_log_probs": len(self.behaviour_log_probs),
            "weight_versions": len(self.weight_versions),
        }
        if len(set(lengths.values())) != 1 or not self.tokens:
            raise DataError(
                f"the parts of a sample differ in length or are empty: {lengths}",
                fix="give one entry per token",
            )
        if self.loss_mask[0]:
            raise DataError(
                "the first token of a sample is marked as drawn, but nothing precedes it",
                fix="put at least one prompt token before it",
            )

    @classmethod
    def from_completion(
        cls,
        prompt: Sequence[int],
        completion: Sequence[int],
        log_probs: Sequence[float],
        *,
        weight_versions: Sequence[int],
        finish_reason: FinishReason,
        reward: float | None = None,
    ) -> Sample:
        """Build a single-turn sample: a prompt, then only drawn tokens."""
        num_prompt = len(prompt)
        return cls(
            tokens=(*prompt, *completion),
            loss_mask=(False,) * num_prompt + (True,) * len(completion),
            behaviour_log_probs=(0.0,) * num_prompt + tuple(log_probs),
            weight_versions=(-1,) * num_prompt + tuple(weight_versions),
            finish_reason=finish_reason,
            reward=reward,
        )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def num_actions(self) -> int:
        """Tokens the policy drew."""
        return sum(self.loss_mask)


@dataclass(frozen=True)
class Group:
    """Samples of one prompt, whose rewards are compared with each other.

    Attributes:
        problem: What was asked.
        samples: One or more answers.
    """

    problem: Problem
    samples: tuple[Sample, ...]

    @property
    def rewards(self) -> list[float]:
        """Rewards of the samples that could be scored, in order."""
        return [sample.reward for sample in self.samples if sample.reward is not None]
