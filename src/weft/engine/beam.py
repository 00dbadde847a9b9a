"""Beam search over the engine: hypotheses are forks of live requests.

A row of the search is a request that has drawn one token. Its likeliest alternatives are what the
search chooses from; each hypothesis that goes on becomes a fork of the row it extends, which shares
all full blocks and copies the last one, and the old rows are aborted. So a step computes one token
per hypothesis, whatever else the engine serves beside it.

Ranking follows Hugging Face's ``generate``: of the ``(1 + number of end tokens) * width`` likeliest
continuations of all hypotheses, those among the first ``width`` that end are results, and the first
``width`` that do not end go on. ``weft.models.search`` has a simpler rule, in which a result keeps
its place in the beam; without end tokens both find the same.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from weft.core.errors import ConfigError, ContextLengthError, ResourceError, WeftError
from weft.spec.request import Request
from weft.spec.sampling import MAX_LOGPROBS, SamplingParams

if TYPE_CHECKING:
    from weft.engine.core import EngineCore
    from weft.engine.outputs import Delta

TopTokens = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class BeamParams:
    """How beams are searched.

    Attributes:
        width: Hypotheses that go on at each step; 1 is greedy search.
        max_tokens: Most tokens of a hypothesis.
        length_penalty: A result's score is its log-probability over its length (end token
            included) to this power; more prefers longer ones.
        early_stopping: True: done when there are ``width`` results. False: done when the best
            hypothesis could not outrank the worst of them if it ended now. "never": if it could
            not by growing to ``max_tokens`` either.
        ignore_eos: Continue past the model's end tokens.
    """

    width: int = 4
    max_tokens: int = 16
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix="use at least 1")
        if self.early_stopping not in (True, False, "never"):
            raise ConfigError(
                f"early_stopping is {self.early_stopping!r}", fix="use True, False or 'never'"
            )


@dataclass(frozen=True)
class BeamResult:
    """One hypothesis that has ended.

    Attributes:
        tokens: Without the end token.
        log_prob: Sum over its tokens, the end token included, in nats.
        score: What results are ranked by.
        finished: Whether it ended by itself, not by ``max_tokens``.
    """

    tokens: tuple[int, ...]
    log_prob: float
    score: float
    finished: bool


class Row(NamedTuple):
    """A hypothesis that goes on."""

    tokens: tuple[int, ...]
    log_prob: float
    parent: int


class Beam:
    """The hypotheses of one prompt; knows numbers only.

    Attributes:
        rows: Those that go on, best first; none when the search is over.
    """

    def __init__(self, params: BeamParams, eos_ids: Collection[int]) -> None:
        self.params = params
        self.rows = [Row((), 0.0, 0)]
        self._eos_ids = frozenset() if params.ignore_eos else frozenset(eos_ids)
        self._results: list[BeamResult] = []

    @property
    def num_candidates(self) -> int:
        """How many continuations are looked at: enough that ``width`` of them do not end."""
        return max(2, 1 + len(self._eos_ids)) * self.params.width

    @property
    def results(self) -> list[BeamResult]:
        """What has ended, best first."""
        return self._results

    def extend(self, tops: Sequence[TopTokens]) -> None:
        """Go on by one token, given the likeliest next tokens of each row (token, log-prob)."""
        width = self.params.width
        candidates = [
            Row((*row.tokens, token), row.log_prob + log_prob, index)
            for index, (row, top) in enumerate(zip(self.rows, tops, strict=True))
            for token, log_prob in top
        ]
        candidates.sort(key=lambda candidate: -candidate.log_prob)
        candidates = candidates[: self.num_candidates]
        num_tokens = len(candidates[0].tokens)
        full = num_tokens == self.params.max_tokens
        ended = [it for it in candidates[:width] if full or it.tokens[-1] in self._eos_ids]
        self._results += map(self._result, ended)
        self._results = sorted(self._results, key=lambda result: -result.score)[:width]
        going = [it for it in candidates if not full and it.tokens[-1] not in self._eos_ids]
        self.rows = [] if self._is_over(going[:width], num_tokens) else going[:width]

    def _result(self, row: Row) -> BeamResult:
        finished = row.tokens[-1] in self._eos_ids
        score = row.log_prob / len(row.tokens) ** self.params.length_penalty
        tokens = row.tokens[:-1] if finished else row.tokens
        return BeamResult(tokens, row.log_prob, score, finished)

    def _is_over(self, going: Sequence[Row], num_tokens: int) -> bool:
        params = self.params
        if not going:
            return True
        if len(self._results) < params.width:
            return False
        # Greedy search ends where its one hypothesis does.
        if params.early_stopping is True or params.width == 1:
            return True
        longest = params.early_stopping == "never" and params.length_penalty > 0.0
        length = params.max_tokens if longest else num_tokens
        best = going[0].log_prob / length**params.length_penalty
        return best <= self._results[-1].score


Done = Callable[[list[BeamResult] | WeftError], None]


class BeamSearches:
    """All beam searches of one engine. Not thread-safe: call it from the engine's thread.

    Args:
        core: Computes the rows, among other requests.
    """

    def __init__(self, core: EngineCore) -> None:
        self._core = core
        self._numbers = itertools.count()
        self._owners: dict[str, _Search] = {}

    def __len__(self) -> int:
        """Return how many searches are under way."""
        return len({search.name for search in self._owners.values()})

    def fail_all(self, error: WeftError) -> None:
        """End all searches: the engine does."""
        for search in {search.name: search for search in self._owners.values()}.values():
            self._finish(search, error)

    def check(self, prompt: Sequence[int], params: BeamParams) -> None:
        """Refuse what cannot be searched.

        Raises:
            ConfigError: the beam is wider than the engine reports alternatives.
            ContextLengthError: prompt and hypotheses do not fit the context.
        """
        beam = Beam(params, self._core.eos_ids)
        if beam.num_candidates > MAX_LOGPROBS:
            raise ConfigError(
                f"a beam of width {params.width} needs {beam.num_candidates} alternatives of each "
                f"token, the engine has {MAX_LOGPROBS}",
                fix=f"use a width of at most {MAX_LOGPROBS * params.width // beam.num_candidates}",
            )
        num_tokens, limit = len(prompt) + params.max_tokens, self._core.context_limit
        if num_tokens > limit:
            raise ContextLengthError(
                f"{len(prompt)} prompt tokens and hypotheses of {params.max_tokens} make "
                f"{num_tokens}; the context is {limit}",
                fix=f"set max_tokens to at most {limit - len(prompt)}",
            )

    def start(self, prompt: Sequence[int], params: BeamParams, done: Done) -> Callable[[], None]:
        """Begin a search; return what cancels it. ``done`` gets the results, or why there are none.

        Raises:
            ConfigError, ContextLengthError, RequestError, ResourceError: it is refused.
        """
        self.check(prompt, params)
        search = _Search(f"beam-{next(self._numbers)}", tuple(prompt), params, self._core, done)
        search.submit([None])
        self._own(search)
        return lambda: self._end(search)

    def take(self, deltas: Iterable[Delta]) -> list[Delta]:
        """Keep the news of own rows, let searches that have all of it go on; return the rest."""
        others: list[Delta] = []
        moved: dict[str, _Search] = {}
        for delta in deltas:
            search = self._owners.get(delta.request_id)
            if search is None:
                others.append(delta)
            else:
                search.take(delta)
                moved[search.name] = search
        for search in moved.values():
            if search.error is not None:
                self._finish(search, search.error)
            elif search.is_ready:
                self._advance(search)
        return others

    def _advance(self, search: _Search) -> None:
        old = search.request_ids
        try:
            search.advance()
        except WeftError as error:
            self._finish(search, error)
            return
        # Only now: the new rows have taken what they share.
        for request_id in old:
            self._owners.pop(request_id, None)
            self._core.abort(request_id)
        if search.beam.rows:
            self._own(search)
        else:
            search.done(search.beam.results)

    def _own(self, search: _Search) -> None:
        self._owners |= dict.fromkeys(search.request_ids, search)

    def _finish(self, search: _Search, error: WeftError) -> None:
        self._end(search)
        search.done(error)

    def _end(self, search: _Search) -> None:
        for request_id in search.request_ids:
            self._owners.pop(request_id, None)
            self._core.abort(request_id)


class _Search:
    """One prompt's search and the requests that are its rows."""

    def __init__(
        self, name: str, prompt: tuple[int, ...], params: BeamParams, core: EngineCore, done: Done
    ) -> None:
        self.name, self.done = name, done
        self.beam = Beam(params, core.eos_ids)
        self.request_ids: list[str] = []
        self.error: WeftError | None = None
        self._core, self._prompt = core, prompt
        self._tops: dict[str, TopTokens] = {}
        # A row lives until its children have been made, so it must not end by itself.
        self._sampling = SamplingParams(
            temperature=0.0, logprobs=self.beam.num_candidates, ignore_eos=True
        )

    @property
    def is_ready(self) -> bool:
        """Whether all rows have drawn."""
        return len(self._tops) == len(self.request_ids)

    def take(self, delta: Delta) -> None:
        """Take in what a row has drawn; what it draws behind that is of no use."""
        if delta.token is not None:
            self._tops.setdefault(delta.request_id, delta.top_logprobs)
        elif delta.finish_reason is not None and delta.request_id not in self._tops:
            reason = delta.error or f"a hypothesis ended with {delta.finish_reason.value!r}"
            self.error = ResourceError(f"the beam search broke off: {reason}")

    def advance(self) -> None:
        """Extend all rows and submit those that go on; the old ones are still there."""
        old = self.request_ids
        self.beam.extend([self._tops[request_id] for request_id in old])
        self._tops = {}
        self.request_ids = []
        self.submit([old[row.parent] for row in self.beam.rows])

    def submit(self, parents: Sequence[str | None]) -> None:
        """Make a request of each row."""
        arrival_s = self._core.clock.now()
        for index, (row, parent) in enumerate(zip(self.beam.rows, parents, strict=True)):
            request = Request(
                id=f"{self.name}-{len(row.tokens)}-{index}",
                tokens=self._prompt + row.tokens,
                sampling=self._sampling,
                arrival_s=arrival_s,
                fork_of=parent,
            )
            self._core.submit(request)
            self.request_ids.append(request.id)


def run_searches(
    core: EngineCore,
    prompts: Sequence[Sequence[int]],
    params: BeamParams,
    step: Callable[[], Iterable[Delta]],
) -> list[list[BeamResult]]:
    """Search each prompt to its end, several at a time; whatever happens, no search stays.

    Args:
        core: The engine.
        prompts: Their tokens.
        params: How beams are searched.
        step: Computes one step of the engine and returns its news.

    Raises:
        ConfigError, ContextLengthError: a prompt that cannot be searched; nothing is computed then.
        WeftError: a hypothesis could not be computed.
    """
    searches = BeamSearches(core)
    for prompt in prompts:
        searches.check(prompt, params)
    # Rows and their children are there at once when the children take over.
    num_together = max(1, core.scheduler.config.max_num_sequences // (2 * params.width))
    waiting = deque(enumerate(prompts))
    found: dict[int, list[BeamResult] | WeftError] = {}
    cancels: list[Callable[[], None]] = []
    try:
        while waiting or len(found) < len(prompts):
            while waiting and len(cancels) - len(found) < num_together:
                index, prompt = waiting.popleft()
                done = functools.partial(found.__setitem__, index)
                cancels.append(searches.start(prompt, params, done))
            searches.take(step())
    finally:
        for cancel in cancels:
            cancel()
    return [_results(found[index]) for index in range(len(prompts))]


def _results(found: list[BeamResult] | WeftError) -> list[BeamResult]:
    if isinstance(found, WeftError):
        raise found
    return found
