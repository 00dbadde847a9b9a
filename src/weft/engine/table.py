"""What the runner remembers of each live sequence between steps: how it wants its tokens drawn.

Parameters are rows of one structured array, so that a step gathers those of several hundred
sequences with one index. Token counts are kept only for sequences with a penalty.

A sequence stays here from its first step to the step that says it finished, preempted or not;
the key-value cache is none of this module's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from weft.engine.grammar.rows import GrammarRows
from weft.engine.sampling import rng
from weft.engine.sampling.batch import Penalties, SamplingBatch
from weft.sched.plan import PENDING, NewSequence

_ROW = np.dtype(
    [
        ("temperature", np.float64),
        ("top_k", np.int64),
        ("top_p", np.float64),
        ("min_p", np.float64),
        ("typical_p", np.float64),
        ("seed", np.uint64),
        ("sequence", np.uint64),
        ("num_top", np.int64),
        ("num_prompt", np.int64),
        ("last_token", np.int64),
        ("min_tokens", np.int64),
        ("penalised", np.bool_),
        ("repetition", np.float32),
        ("frequency", np.float32),
        ("presence", np.float32),
    ]
)


class TokenCounts:
    """Which tokens a sequence contains and how often it has generated each; O(1) per token."""

    def __init__(self, prompt: Sequence[int]) -> None:
        unique = np.unique(np.asarray(prompt, dtype=np.int64))
        self._slots = {int(token): slot for slot, token in enumerate(unique)}
        self._tokens = np.resize(unique, max(16, 2 * len(unique)))
        self._counts = np.zeros(len(self._tokens), dtype=np.int64)

    def add(self, token: int) -> None:
        """Count one generated token."""
        slot = self._slots.setdefault(token, len(self._slots))
        if slot == len(self._tokens):
            self._tokens = np.resize(self._tokens, 2 * slot)
            self._counts = np.concatenate([self._counts, np.zeros(slot, dtype=np.int64)])
        self._tokens[slot] = token
        self._counts[slot] += 1

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Each token of the prompt or output once."""
        return self._tokens[: len(self._slots)]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each of ``tokens`` was generated."""
        return self._counts[: len(self._slots)]


class BadWords:
    """Which tokens would complete a forbidden sequence now."""

    def __init__(self, words: Sequence[tuple[int, ...]], prompt: Sequence[int]) -> None:
        self._words = words
        self._longest = max(len(sequence) for sequence in words) - 1
        self._history = tuple(prompt[len(prompt) - self._longest :]) if self._longest else ()

    def add(self, token: int) -> None:
        """Take in a generated token."""
        if self._longest:
            self._history = (*self._history, token)[-self._longest :]

    def banned(self) -> list[int]:
        """Return the last tokens of the sequences whose other tokens have just been generated."""
        found = []
        for *before, last in self._words:
            start = len(self._history) - len(before)
            if start >= 0 and list(self._history[start:]) == before:
                found.append(last)
        return found


class SequenceTable:
    """Sampling state of every live sequence."""

    def __init__(self) -> None:
        self._rows = np.zeros(64, dtype=_ROW)
        self._row_of: dict[int, int] = {}
        self._free_rows = list(range(len(self._rows)))
        self._counts: dict[int, TokenCounts] = {}
        self._end_tokens: dict[int, tuple[int, ...]] = {}
        self._bad_words: dict[int, BadWords] = {}
        self._allowed: dict[int, NDArray[np.int64]] = {}
        self._biases: dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}
        self.grammars = GrammarRows()

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, id: int) -> bool:
        return id in self._row_of

    def add(self, new: NewSequence) -> None:
        """Take in a sequence."""
        if not self._free_rows:
            size = len(self._rows)
            self._rows = np.concatenate([self._rows, np.zeros(size, dtype=_ROW)])
            self._free_rows = list(range(size, 2 * size))
        row = self._free_rows.pop()
        self._row_of[new.id] = row
        params = new.sampling
        penalised = (
            params.repetition_penalty != 1.0
            or params.frequency_penalty != 0.0
            or params.presence_penalty != 0.0
        )
        self._rows[row] = (
            params.temperature,
            params.top_k or 0,
            params.top_p,
            params.min_p,
            params.typical_p,
            *rng.as_uint64([new.seed, new.sequence]),
            params.logprobs or 0,
            len(new.prompt),
            PENDING,
            params.min_tokens,
            penalised,
            params.repetition_penalty,
            params.frequency_penalty,
            params.presence_penalty,
        )
        if penalised:
            self._counts[new.id] = TokenCounts(new.prompt)
        if params.min_tokens > 0:
            self._end_tokens[new.id] = new.stop_token_ids
        if params.bad_words:
            self._bad_words[new.id] = BadWords(params.bad_words, new.prompt)
        if params.allowed_token_ids:
            self._allowed[new.id] = np.array(sorted(set(params.allowed_token_ids)), dtype=np.int64)
        if params.logit_bias:
            tokens, values = zip(*params.logit_bias, strict=True)
            biases = np.array(tokens, dtype=np.int64), np.array(values, dtype=np.float32)
            self._biases[new.id] = biases
        if params.structured is not None:
            self.grammars.add(new.id, new.request_id, new.stop_token_ids)

    def remove(self, id: int) -> None:
        """Forget a sequence; forgetting one that is not here is no error."""
        row = self._row_of.pop(id, None)
        if row is not None:
            self._free_rows.append(row)
            lists = (self._counts, self._end_tokens, self._bad_words, self._allowed, self._biases)
            for of_sequence in lists:
                of_sequence.pop(id, None)
            self.grammars.remove(id)

    def record(self, id: int, token: int) -> None:
        """Take in a token that was drawn.

        Raises:
            GrammarError: the sequence's grammar cannot go on behind it.
        """
        self.grammars.record(id, token)
        self._rows["last_token"][self._row_of[id]] = token
        counts = self._counts.get(id)
        if counts is not None:
            counts.add(token)
        bad_words = self._bad_words.get(id)
        if bad_words is not None:
            bad_words.add(token)

    def last_token(self, id: int) -> int:
        """Return the token a sequence has drawn last; ``PENDING`` before the first."""
        return int(self._rows["last_token"][self._row_of[id]])

    def sampling_batch(self, ids: Sequence[int], positions_R: NDArray[np.int64]) -> SamplingBatch:
        """Return the parameters of sequences that draw the token at ``positions_R``.

        Raises:
            GrammarError: one of them has a grammar that cannot go on.
        """
        picked = self._rows[[self._row_of[id] for id in ids]]
        temperature_R = picked["temperature"]
        if temperature_R.any():
            uniform_R = rng.uniform(
                picked["seed"], picked["sequence"], positions_R.astype(np.uint64)
            )
        else:
            uniform_R = np.zeros(len(ids))
        num_generated_R = positions_R - picked["num_prompt"]
        masks = self.grammars.masks(ids)  # before the bans, which depend on it
        return SamplingBatch(
            temperature_R=temperature_R,
            top_k_R=picked["top_k"],
            top_p_R=picked["top_p"],
            min_p_R=picked["min_p"],
            typical_p_R=picked["typical_p"],
            uniform_R=uniform_R,
            num_top_R=picked["num_top"],
            penalties=self._penalties(ids, picked),
            banned=self._bans(ids, np.flatnonzero(num_generated_R < picked["min_tokens"])),
            allowed=_entries([self._allowed.get(id, _NO_TOKENS) for id in ids]),
            biases=self._bias_entries(ids),
            masks=masks,
        )

    def _penalties(self, ids: Sequence[int], picked: np.ndarray) -> Penalties | None:
        rows = np.flatnonzero(picked["penalised"])
        if len(rows) == 0:
            return None
        counts = [self._counts[ids[row]] for row in rows.tolist()]
        return Penalties(
            rows_E=np.repeat(rows, [len(entry.tokens) for entry in counts]),
            tokens_E=np.concatenate([entry.tokens for entry in counts]),
            counts_E=np.concatenate([entry.counts for entry in counts]),
            repetition_R=picked["repetition"],
            frequency_R=picked["frequency"],
            presence_R=picked["presence"],
        )

    def _bans(
        self, ids: Sequence[int], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        early = [row for row in rows.tolist() if not self.grammars.must_end(ids[row])]
        pairs = [(row, token) for row in early for token in self._end_tokens[ids[row]]]
        if self._bad_words:
            for row, id in enumerate(ids):
                if id in self._bad_words:
                    pairs += ((row, token) for token in self._bad_words[id].banned())
        if not pairs:
            return None
        rows_E, tokens_E = np.array(pairs, dtype=np.int64).T
        return rows_E, tokens_E

    def _bias_entries(
        self, ids: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]] | None:
        entries = _entries(
            [self._biases[id][0] if id in self._biases else _NO_TOKENS for id in ids]
        )
        if entries is None:
            return None
        values_E = np.concatenate([self._biases[id][1] for id in ids if id in self._biases])
        return *entries, values_E


_NO_TOKENS = np.zeros(0, dtype=np.int64)


def _entries(
    tokens: Sequence[NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return (row, token) pairs of each row's tokens; none if no row has any."""
    sizes = [len(row) for row in tokens]
    if not any(sizes):
        return None
    return np.repeat(np.arange(len(tokens)), sizes), np.concatenate(tokens)
