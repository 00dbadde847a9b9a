"""``Drawer``: tokens from the hidden states of rows; where guesses hold, several per sequence.

A sequence draws from the row of its last token. If the token drawn is one of the guesses that
follow there, it goes on and draws from that guess's row, and so on: a walk from the root of its
draft down one branch. All sequences walk together, one round per depth, and each token is taken
into the table before the next round, so penalties, grammars and bans see what they would see
without guesses. What a round draws is up to ``Draw``; the default draws the very token that would
be drawn without speculation, so guesses change nothing but speed.

Failures are kept to the sequence that caused them: a row whose distribution is not finite, or whose
sampling raises, ends its walk. Tokens drawn before that count; only a walk without any is an error.

Shapes: B sequences, R rows with their guesses, A rows of one round, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from torch import Tensor

from weft.engine.batch import DrawRows
from weft.engine.grammar.state import GrammarError
from weft.engine.sampling import pipeline
from weft.engine.sampling.batch import SamplingBatch
from weft.engine.sampling.logprobs import alternatives
from weft.engine.table import SequenceTable
from weft.engine.trees import followers_of
from weft.sched.plan import Draft, Sampled

_NOT_FINITE = "the model's probabilities are not finite: NaN or infinite logits"
_NO_TOKEN = (
    "no token can be drawn: the grammar and the other restrictions exclude each other, or "
    + _NOT_FINITE
)


@dataclass(slots=True)
class Walk:
    """One sequence on its way down its draft.

    Attributes:
        id: The sequence.
        position: Of the token it draws next.
        row: Its first row; guess g has row ``row + 1 + g``.
        draft: What was guessed.
        guess: Where it is: the guess that held last, -1 before the first.
        held: The guesses that held, from the root.
        drawn: The tokens it has drawn.
        error: Why it has drawn none.
        followers: The guess at (the guess before it, its token); none without a draft.
    """

    id: int
    position: int
    row: int
    draft: Draft | None = None
    guess: int = -1
    held: list[int] = field(default_factory=list)
    drawn: list[Sampled] = field(default_factory=list)
    error: str | None = None
    followers: Mapping[tuple[int, int], int] | None = None

    @property
    def num_rows(self) -> int:
        """Rows it has: one, and one per guess."""
        return 1 + (0 if self.draft is None else len(self.draft.tokens))

    @property
    def current_row(self) -> int:
        """The row it draws from next."""
        return self.row + 1 + self.guess

    @property
    def candidates(self) -> list[int]:
        """The guesses that may follow where it is."""
        followers = self.followers or {}
        return [guess for (before, _), guess in followers.items() if before == self.guess]

    def advance(self) -> bool:
        """Go to the guess that was drawn last; False if it was not guessed."""
        if self.followers is None:
            return False
        following = self.followers.get((self.guess, self.drawn[-1].token))
        if following is None:
            return False
        self.guess = following
        self.held.append(following)
        self.position += 1
        return True


# Draws one token for each walk of a round; may overwrite the logits, [A, V] float32.
Draw = Callable[[Tensor, SamplingBatch, Sequence[Walk]], pipeline.Draws]


def draw_same(logits_AV: Tensor, batch: SamplingBatch, walks: Sequence[Walk]) -> pipeline.Draws:
    """Draw what would be drawn without guesses."""
    return pipeline.sample(logits_AV, batch)


class Drawer:
    """Draws the tokens of steps.

    Args:
        table: How each sequence wants its tokens drawn.
        logits: The output head, [R, D] -> [R, V] float32.
        rows_per_chunk: Rows whose logits exist at once; sampling is per row, so the cut changes
            nothing. A sequence with its guesses is not cut.
        draw: What a round draws.
    """

    def __init__(
        self,
        table: SequenceTable,
        logits: Callable[[Tensor], Tensor],
        *,
        rows_per_chunk: int,
        draw: Draw = draw_same,
    ) -> None:
        self.table = table
        self.rows_per_chunk = rows_per_chunk
        self._logits = logits
        self._draw = draw

    def draw(self, hidden_RD: Tensor, rows: DrawRows) -> list[Walk]:
        """Return the walk of every sequence that draws."""
        walks = make_walks(rows)
        for chunk in _chunks(walks, self.rows_per_chunk):
            self._walk(hidden_RD, chunk)
        return walks

    def _walk(self, hidden_RD: Tensor, walks: Sequence[Walk]) -> None:
        first, end = walks[0].row, walks[-1].row + walks[-1].num_rows
        logits_RV = self._logits(hidden_RD[first:end])
        if end - first == len(walks):
            self._round(logits_RV, hidden_RD, walks)
            return
        while walks:
            # Indexing copies, so a row outlives the round that overwrites it.
            logits_AV = logits_RV[[walk.current_row - first for walk in walks]]
            walks = self._round(logits_AV, hidden_RD, walks)

    def _round(self, logits_AV: Tensor, hidden_RD: Tensor, walks: Sequence[Walk]) -> Sequence[Walk]:
        """Draw once for each walk; return those that go on."""
        try:
            drawn = self._draw_rows(logits_AV, walks)
        except Exception:
            drawn = [self._draw_alone(hidden_RD, walk) for walk in walks]
        return [walk for walk, news in zip(walks, drawn, strict=True) if self._take_in(walk, news)]

    def _draw_alone(self, hidden_RD: Tensor, walk: Walk) -> Sampled | str:
        """Draw one row again: all but the one that failed get what they would have got."""
        row = slice(walk.current_row, walk.current_row + 1)
        try:
            return self._draw_rows(self._logits(hidden_RD[row]), [walk])[0]
        except Exception as error:
            return _reason(error)

    def _draw_rows(self, logits_AV: Tensor, walks: Sequence[Walk]) -> list[Sampled | str]:
        """Return for each walk its token, or what is wrong."""
        ids = [walk.id for walk in walks]
        params = self.table.sampling_batch(ids, np.array([walk.position for walk in walks]))
        draws = self._draw(logits_AV, params, walks)
        tops = alternatives(draws, params)
        tokens, logprobs = draws.tokens_R.tolist(), draws.logprobs_R.tolist()
        return [
            Sampled(token, logprob, top) if isfinite(logprob) else self._not_finite(id)
            for id, token, logprob, top in zip(ids, tokens, logprobs, tops, strict=True)
        ]

    def _take_in(self, walk: Walk, news: Sampled | str) -> bool:
        """Record what a walk has drawn; return whether it goes on."""
        if isinstance(news, Sampled):
            try:
                self.table.record(walk.id, news.token)
            except Exception as error:
                news = _reason(error)
        if isinstance(news, Sampled):
            walk.drawn.append(news)
            return walk.advance()
        if not walk.drawn:
            walk.error = news
        return False

    def _not_finite(self, id: int) -> str:
        return _NO_TOKEN if id in self.table.grammars else _NOT_FINITE


def make_walks(rows: DrawRows) -> list[Walk]:
    """Return the walks of a step, none of which has begun."""
    walks = []
    row = 0
    for id, position, draft in zip(rows.ids, rows.positions_B.tolist(), rows.drafts, strict=True):
        walk = Walk(id, position, row, draft)
        if draft is not None:
            walk.followers = followers_of(draft)
        walks.append(walk)
        row += walk.num_rows
    return walks


def _chunks(walks: Sequence[Walk], max_rows: int) -> Iterator[Sequence[Walk]]:
    """Cut walks into runs of at most ``max_rows`` rows, or of one walk."""
    start, num_rows = 0, 0
    for index, walk in enumerate(walks):
        if num_rows and num_rows + walk.num_rows > max_rows:
            yield walks[start:index]
            start, num_rows = index, 0
        num_rows += walk.num_rows
    if num_rows:
        yield walks[start:]


def _reason(error: Exception) -> str:
    if isinstance(error, GrammarError):
        return error.message
    return f"sampling failed: {type(error).__name__}: {error}"
