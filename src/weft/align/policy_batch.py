"""Samples and their advantages as packed batches without padding.

T tokens of a batch, M tokens of it that the policy drew (actions), S samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from weft.align.advantage import AdvantageKind, advantages, is_constant
from weft.align.types import Group, Sample
from weft.data.batch import IGNORE, Batch


@dataclass(frozen=True)
class ScoredSample:
    """A sample with the advantage that each of its actions gets."""

    sample: Sample
    advantage: float


@dataclass(frozen=True, eq=False)
class PolicyBatch:
    """One micro-batch of reinforcement learning.

    Attributes:
        packed: Tokens and document lengths; its labels are the actions.
        behaviour_M: Log-probability each action was drawn with, float32.
        advantages_M: Advantage of each action, float32.
        sample_M: Index of each action's sample.
        num_samples: S.
        old_M: Log-probabilities by the trainer before the first update of this rollout; none
            takes the behaviour's.
        reference_M: Log-probabilities by the reference policy; none without a KL term.
    """

    packed: Batch
    behaviour_M: np.ndarray
    advantages_M: np.ndarray
    sample_M: np.ndarray
    num_samples: int
    old_M: np.ndarray | None = None
    reference_M: np.ndarray | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sample."""
        return self.packed.lengths

    def with_log_probs(
        self, *, old_M: np.ndarray | None = None, reference_M: np.ndarray | None = None
    ) -> PolicyBatch:
        """Return a copy with what other policies say of the actions."""
        return replace(self, old_M=old_M, reference_M=reference_M)


@dataclass(frozen=True)
class Selection:
    """What of a rollout is trained on.

    Attributes:
        samples: Scorable samples of the groups that carry a signal.
        num_dropped_groups: Groups left out because all their rewards are equal (or none is left).
    """

    samples: tuple[ScoredSample, ...]
    num_dropped_groups: int


def select(groups: Sequence[Group], kind: AdvantageKind) -> Selection:
    """Compute advantages and drop the groups in which no sample is better than another.

    With the batch baseline an all-equal group still carries a signal, so only empty groups go.
    """
    rewards = [group.rewards for group in groups]
    chosen: list[ScoredSample] = []
    num_dropped = 0
    for group, values_G in zip(groups, advantages(rewards, kind), strict=True):
        scorable = [sample for sample in group.samples if sample.reward is not None]
        if not scorable or (kind != "batch" and is_constant(np.asarray(group.rewards))):
            num_dropped += 1
            continue
        pairs = zip(scorable, values_G.tolist(), strict=True)
        chosen += [ScoredSample(sample, advantage) for sample, advantage in pairs]
    return Selection(tuple(chosen), num_dropped)


def pack(samples: Sequence[ScoredSample], max_tokens: int) -> list[PolicyBatch]:
    """Return micro-batches of at most ``max_tokens`` tokens (one longer sample makes its own).

    Samples of equal length lie next to each other, because attention computes such a run at once.
    """
    ordered = sorted(samples, key=lambda scored: len(scored.sample))
    return [_pack_one(part) for part in _parts(ordered, max_tokens)]


def _parts(samples: Sequence[ScoredSample], max_tokens: int) -> Iterator[list[ScoredSample]]:
    part: list[ScoredSample] = []
    num_tokens = 0
    for scored in samples:
        if part and num_tokens + len(scored.sample) > max_tokens:
            yield part
            part, num_tokens = [], 0
        part.append(scored)
        num_tokens += len(scored.sample)
    if part:
        yield part


def _pack_one(samples: Sequence[ScoredSample]) -> PolicyBatch:
    tokens_T = np.concatenate([np.asarray(s.sample.tokens, dtype=np.int64) for s in samples])
    mask_T = np.concatenate([np.asarray(s.sample.loss_mask) for s in samples])
    behaviour_T = np.concatenate(
        [np.asarray(s.sample.behaviour_log_probs, dtype=np.float32) for s in samples]
    )
    lengths = tuple(len(s.sample) for s in samples)
    counts = [s.sample.num_actions for s in samples]
    # The label of a position is the next token where that was drawn. The first token of a sample
    # never is, so no label reaches into the next sample.
    labels_T = np.full_like(tokens_T, IGNORE)
    labels_T[:-1] = np.where(mask_T[1:], tokens_T[1:], IGNORE)
    values = np.asarray([s.advantage for s in samples], dtype=np.float32)
    return PolicyBatch(
        packed=Batch(tokens_T, labels_T, lengths),
        behaviour_M=behaviour_T[mask_T],
        advantages_M=np.repeat(values, counts),
        sample_M=np.repeat(np.arange(len(samples)), counts),
        num_samples=len(samples),
    )
