"""How a drafting network draws its guesses: as the sequence itself draws its tokens.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from weft.engine.sampling import pipeline, rng
from weft.engine.speculation.config import Acceptance
from weft.engine.speculation.verify import (
    GUESS_STREAM,
    distributions,
    inverse_transform,
    process,
)
from weft.engine.step_view import StepView
from weft.engine.table import SequenceTable
from weft.sched.plan import NewSequence


class GuessDrawer:
    """Draws guesses and remembers what they were drawn from.

    Penalties and bans are those of the tokens drawn so far, guesses do not add to them: it is only
    a guess. Grammars are left out.

    Args:
        acceptance: How guesses will be judged. If by equality, a guess takes the random number that
            its token will be drawn with; else one that is independent of it.
    """

    def __init__(self, acceptance: Acceptance) -> None:
        self._acceptance = acceptance
        self._table = SequenceTable()
        self._probabilities: dict[int, list[Tensor]] = {}
        self._confidences: dict[int, list[float]] = {}

    def __contains__(self, id: int) -> bool:
        return id in self._table

    def take_in(self, view: StepView) -> None:
        """Learn what a step has drawn."""
        for new in view.new:
            self._table.add(_without_reports(new))
        for id in view.walks:
            if id in self._table:
                for token in view.drawn(id):
                    self._table.record(id, token)

    def begin(self, ids: Sequence[int]) -> None:
        """Forget the guesses of the last draft."""
        for id in ids:
            self._probabilities.pop(id, None)
            self._confidences.pop(id, None)

    def draw(self, ids: Sequence[int], positions_R: np.ndarray, logits_RV: Tensor) -> list[int]:
        """Return one guess for each sequence; ``logits_RV`` is overwritten."""
        batch = self._table.sampling_batch(ids, positions_R)
        if self._acceptance == "same_draw":
            draws = pipeline.sample(logits_RV, batch)
            tokens_R, confidences_R = draws.tokens_R, draws.logprobs_R.exp()
        else:
            process(logits_RV, batch)
            # Not the probability of the guess itself: to drop guesses by what was drawn would
            # change the distribution of what is left.
            confidences_R = logits_RV.softmax(dim=-1).amax(dim=-1)
            probs_RV = distributions(logits_RV, batch)
            tokens_R = inverse_transform(probs_RV, rng.derive(batch.uniform_R, GUESS_STREAM))
            for id, probs_V in zip(ids, probs_RV, strict=True):
                self._probabilities.setdefault(id, []).append(probs_V)
        for id, confidence in zip(ids, confidences_R.tolist(), strict=True):
            self._confidences.setdefault(id, []).append(confidence)
        return tokens_R.tolist()

    def probabilities(self, id: int) -> Tensor | None:
        """Return what the latest guesses of a sequence were drawn from, [guesses, V]."""
        found = self._probabilities.get(id)
        return torch.stack(found) if found else None

    def confidences(self, id: int) -> Sequence[float]:
        """Return how likely each of the latest guesses is right, given those before."""
        return self._confidences.get(id, ())

    def forget(self, ids: Sequence[int]) -> None:
        """Drop sequences that ended."""
        self.begin(ids)
        for id in ids:
            self._table.remove(id)


def _without_reports(new: NewSequence) -> NewSequence:
    sampling = replace(new.sampling, structured=None, logprobs=None, prompt_logprobs=None)
    return replace(new, sampling=sampling)
