"""``GrammarRows``: the grammars of all live sequences, and the masks of one step.

What a sequence may draw is known before its step is computed, so ``begin`` has the masks filled in
a thread of their own while the forward pass runs; ``masks`` waits for what is not there yet.

Shapes: G sequences of a step that have a grammar, W bytes of a mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weft.core.optional import require
from weft.engine.grammar.state import GrammarState

# A mask takes tens of microseconds to milliseconds; fewer are not worth waking threads for.
MIN_PARALLEL_ROWS = 4


class _Row(NamedTuple):
    state: GrammarState
    end_tokens: tuple[int, ...]


class GrammarRows:
    """Grammars by request until the sequence is known, then by sequence."""

    def __init__(self) -> None:
        self._prepared: dict[str, GrammarState] = {}
        self._rows: dict[int, _Row] = {}
        self._executor: Any = None
        self._thread: ThreadPoolExecutor | None = None
        self._begun: dict[int, int] = {}
        self._filling: Future[NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self._prepared) + len(self._rows)

    def __contains__(self, id: int) -> bool:
        return id in self._rows

    def prepare(self, request_id: str, state: GrammarState) -> None:
        """Keep the grammar of a request until ``add`` or ``drop``."""
        self._prepared[request_id] = state

    def drop(self, request_id: str) -> None:
        """Forget a request that ended; its sequence may never have come."""
        self._prepared.pop(request_id, None)

    def add(self, id: int, request_id: str, end_tokens: tuple[int, ...]) -> None:
        """Give a sequence the grammar prepared for its request."""
        self._rows[id] = _Row(self._prepared.pop(request_id), end_tokens)

    def remove(self, id: int) -> None:
        """Forget a sequence."""
        self._rows.pop(id, None)

    def record(self, id: int, token: int) -> None:
        """Take in a token that was drawn.

        Raises:
            GrammarError: the grammar cannot go on behind it.
        """
        row = self._rows.get(id)
        if row is not None and token not in row.end_tokens:
            row.state.accept(token)

    def must_end(self, id: int) -> bool:
        """Return whether a sequence can draw nothing but an end token; as of its last mask."""
        row = self._rows.get(id)
        return row is not None and row.state.must_end

    def count_valid(self, id: int, tokens: Sequence[int]) -> int:
        """Return how many of these tokens could follow; all where there is no grammar."""
        row = self._rows.get(id)
        if row is None:
            return len(tokens)
        if self._filling is not None:
            self._filling.exception()  # the matchers are not ours before it ends
        return row.state.count_valid(tokens)

    def begin(self, ids: Iterable[int]) -> None:
        """Start filling the masks of sequences that draw in the step that is about to run."""
        self.stop()
        wanted = [id for id in ids if id in self._rows] if self._rows else []
        if not wanted:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="weft-masks")
        self._begun = {id: place for place, id in enumerate(wanted)}
        states = [self._rows[id].state for id in wanted]
        self._filling = self._thread.submit(self._compute, states)

    def stop(self) -> None:
        """Forget masks that were begun and not asked for, as after a step that failed."""
        if self._filling is not None:
            self._filling.exception()  # the matchers are not ours before it ends
        self._begun, self._filling = {}, None

    def close(self) -> None:
        """End the thread."""
        self.stop()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def masks(self, ids: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.uint8]] | None:
        """Return which of ``ids`` have a grammar and their masks [G, W]; none if no one has.

        Raises:
            GrammarError: one of them cannot go on.
        """
        places = [place for place, id in enumerate(ids) if id in self._rows] if self._rows else []
        if not places:
            return None
        rows = [self._rows[ids[place]] for place in places]
        bits_GW = self._filled([ids[place] for place in places])
        for bits_W, row in zip(bits_GW, rows, strict=True):
            row.state.close_mask(bits_W, row.end_tokens)
        return np.array(places, dtype=np.int64), bits_GW

    def _filled(self, ids: Sequence[int]) -> NDArray[np.uint8]:
        """Return what the matchers say, from the begun masks where they are of this very state."""
        filling, begun = self._filling, self._begun
        whole = filling is not None and all(id in begun for id in ids)
        # One grammar that failed must not take the others' masks with it.
        if filling is not None and whole and filling.exception() is None:
            return filling.result()[[begun.pop(id) for id in ids]]
        self.stop()
        return self._compute([self._rows[id].state for id in ids])

    def _compute(self, states: Sequence[GrammarState]) -> NDArray[np.uint8]:
        fill = require("llguidance.numpy", extra="grammar")
        words = np.zeros((len(states), states[0].num_mask_bytes // 4), dtype=np.int32)
        if len(states) < MIN_PARALLEL_ROWS:
            for index, state in enumerate(states):
                fill.fill_next_token_bitmask(state.matcher, words, index)
        else:
            if self._executor is None:
                self._executor = require("llguidance", extra="grammar").LLExecutor()
            matchers = [(state.matcher, index) for index, state in enumerate(states)]
            fill.fill_next_token_bitmask_par(self._executor, matchers, words)
        return words.view(np.uint8)
