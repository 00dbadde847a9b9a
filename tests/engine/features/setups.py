"""Every feature as a setup: what it changes, and how to tell that it was at work.

``serve`` serves the same requests with any set of features; ``alone`` gives the answers to compare
with, each from an engine of its own that has only the features that change answers.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tests.engine.adapters.support import ROOM, adapter
from tests.engine.features.support import (
    GREEDY,
    PENALISED,
    SEEDED,
    WINDOW,
    completions,
    config,
    requests,
    step,
    tiny,
)
from tests.engine.parallel.support import threaded_core
from tests.engine.support import assert_nothing_left, tokenizer
from weft.adapt.lora import LoRAConfig
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.outputs import Completion
from weft.engine.parallel.config import ParallelConfig
from weft.engine.pause import PauseMode, pause, resume
from weft.engine.speculation.config import SpeculationConfig
from weft.sched.loop import VirtualClock
from weft.sched.plan import StepItem, StepPlan, StepResult
from weft.sched.snapshots import SnapshotConfig
from weft.sched.tier_policy import TierConfig
from weft.spec.request import FinishReason, Request, forked
from weft.spec.structured import Regex

ADAPTERS = ("", "a", "b", "a", "b", "")
ADAPTED_STATES = ("*.mixer.out", "*.ffn.gate_up", "*.ffn.down")
CHUNK = 8
LETTERS = frozenset("abcdef")
ROOMY = {"enable_prefix_cache": False, "num_blocks": 128}
CACHED = {
    "enable_prefix_cache": True,
    "snapshots": SnapshotConfig(interval_tokens=8, num_slots=24),
}
# More than all requests need together; reading always beats computing.
HOST = TierConfig(host_bytes=2**20, prefill_tokens_per_s=1.0)
PAUSES: Mapping[int, PauseMode] = {1: "in_place", 2: "retract", 6: "in_place", 7: "retract"}


@dataclass
class Run:
    """What was served with a set of features, and what was seen meanwhile.

    Attributes:
        core: The engine.
        asked: The requests of each round.
        rounds: Their answers; a second round finds what the first has left.
        plans: Every plan that was computed.
        pauses: For each pause the number of requests that ran.
        most_in_flight: Most steps under way between two steps.
    """

    core: EngineCore
    asked: Sequence[Request]
    rounds: list[list[Completion]] = field(default_factory=list)
    plans: list[StepPlan] = field(default_factory=list)
    pauses: list[int] = field(default_factory=list)
    most_in_flight: int = 0

    @property
    def items(self) -> list[StepItem]:
        """Everything that was computed."""
        return [item for plan in self.plans for item in plan.items]

    @property
    def num_preemptions(self) -> int:
        """Times a sequence had to give way, other than by a pause."""
        retracted = sum(self.pauses[1::2])
        return self.core.stats().scheduler.counters.num_preemptions - retracted


@dataclass(frozen=True)
class Setup:
    """One feature.

    Attributes:
        at_work: Whether a run has used it.
        settings: Of the engine.
        change: What becomes of the requests.
        in_answers: Answers differ from those without, or there are more of them.
    """

    at_work: Callable[[Run], object]
    settings: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[list[Request]], list[Request]] = list
    in_answers: bool = False


def _adapted(asked: list[Request]) -> list[Request]:
    return [replace(one, adapter=name) for one, name in zip(asked, ADAPTERS, strict=True)]


def _structured(asked: list[Request]) -> list[Request]:
    """Ask for letters in every second answer."""
    letters = {"structured": Regex("[a-f]{3,9}"), "ignore_eos": False, "max_tokens": 20}
    return [
        replace(one, sampling=replace(one.sampling, **letters)) if index % 2 else one
        for index, one in enumerate(asked)
    ]


def _follows_grammar(run: Run) -> bool:
    structured = [
        answer
        for one, answer in zip(run.asked, run.rounds[-1], strict=True)
        if one.sampling.structured is not None
    ]
    return len(structured) >= 3 and all(
        set(answer.text) <= LETTERS and answer.finish_reason is FinishReason.STOP
        for answer in structured
    )


def _forked(asked: list[Request]) -> list[Request]:
    return [sample for one in asked for sample in forked(one, 2)]


def _tiers(run: Run) -> int:
    tiers = run.core.stats().scheduler.tiers
    return 0 if tiers is None else tiers.counters.num_loaded_blocks


def _accepted(run: Run) -> int:
    stats = run.core.stats().speculation
    return 0 if stats is None else stats.num_accepted_tokens


SETUPS: Mapping[str, Setup] = {
    "batching": Setup(lambda run: len({len(plan.items) for plan in run.plans}) > 3),
    "chunking": Setup(
        lambda run: (
            max(plan.num_tokens for plan in run.plans) <= CHUNK
            and any(not item.sample for item in run.items)
        ),
        {"max_tokens_per_step": CHUNK},
    ),
    "cache": Setup(
        lambda run: any(answer.num_cached_tokens for answer in run.rounds[1]),
        CACHED,
    ),
    "preemption": Setup(lambda run: run.num_preemptions > 0, {"num_blocks": 11}),
    "offload": Setup(
        _tiers,
        {**CACHED, "tiers": HOST, "num_blocks": 12},
    ),
    "speculation": Setup(_accepted, {"speculation": SpeculationConfig("draft", 4, switch=None)}),
    "adapters": Setup(
        lambda run: len({new.adapter for plan in run.plans for new in plan.new}) == 3,
        {"adapters": ROOM},
        _adapted,
        in_answers=True,
    ),
    "grammar": Setup(_follows_grammar, change=_structured, in_answers=True),
    "quantized_kv": Setup(
        lambda run: run.core.runner.cache.codes is torch.int8,
        {"kv_dtype": "int8"},
        in_answers=True,
    ),
    "tensor_parallel": Setup(
        lambda run: run.core.ranks is not None, {"parallel": ParallelConfig(tensor=2)}
    ),
    "overlap": Setup(lambda run: run.most_in_flight == 1, {"overlap_depth": 1}),
    "deterministic": Setup(
        lambda run: run.core.runner.deterministic, {"deterministic": True}, in_answers=True
    ),
    "states": Setup(lambda run: run.core.runner.states is not None, in_answers=True),
    "windows": Setup(lambda run: max(item.start for item in run.items) > WINDOW, in_answers=True),
    "fork": Setup(
        lambda run: any(plan.blocks.copies for plan in run.plans), change=_forked, in_answers=True
    ),
    "pause": Setup(lambda run: len(run.pauses) >= 2 and min(run.pauses[:2]) > 0),
}
"""By name, in the order of ``FEATURES``."""


def settings_of(features: Iterable[str]) -> EngineConfig:
    """Return the config of an engine with these features; the smallest pool is for all of them."""
    chosen = [SETUPS[feature].settings for feature in features]
    merged = {name: value for settings in (ROOMY, *chosen) for name, value in settings.items()}
    smallest = min(settings.get("num_blocks", ROOMY["num_blocks"]) for settings in (ROOMY, *chosen))
    return config(**merged | {"num_blocks": smallest})


def kind_of(features: frozenset[str]) -> str:
    """Return the kind of model that has the layers these features need."""
    has_windows = "windows" in features
    if "states" in features:
        return "windowed-gated-delta" if has_windows else "gated-delta"
    return "windows" if has_windows else "dense"


def asked_of(features: Iterable[str]) -> list[Request]:
    """Return the requests of a run: greedy, drawn and penalised ones."""
    params = [replace(one, ignore_eos=True) for one in (GREEDY, SEEDED, PENALISED)]
    asked = requests(params * 2)
    for feature in sorted(features, key=list(SETUPS).index):
        asked = SETUPS[feature].change(asked)
    return asked


@contextlib.contextmanager
def engine(features: frozenset[str]) -> Iterator[EngineCore]:
    """Yield an engine with these features; it drafts with the very model it serves."""
    model, settings = tiny(kind_of(features)), settings_of(features)
    if settings.parallel.num_ranks > 1:
        threads = replace(settings, parallel=ParallelConfig())  # they are no processes
        with threaded_core(model, threads, settings.parallel.num_ranks) as core:
            yield core
        return
    drafter = model if settings.speculation else None
    core = EngineCore(model, tokenizer(), settings, clock=VirtualClock(), drafter=drafter)
    if settings.adapters is not None:
        targets = ADAPTED_STATES if "states" in features else LoRAConfig.targets
        for seed, name in enumerate("ab"):
            core.adapters.load(name, adapter(seed, kind_of(features), targets=targets))
    with contextlib.closing(core):
        yield core


@functools.cache
def alone(features: frozenset[str]) -> list[Completion]:
    """Return what every request gets in an engine with room, of its own and without forks."""
    plain = frozenset(name for name in features if SETUPS[name].in_answers)
    if plain != features:
        return alone(plain)
    answers = []
    for request in asked_of(features):
        with engine(features) as core:
            answers += completions(core, [replace(request, fork_of=None)])
    return answers


def serve(
    core: EngineCore, features: frozenset[str], asked: Sequence[Request] | None = None
) -> Run:
    """Serve requests, by default all, with an engine; twice where prefixes may be found."""
    run = Run(core, asked_of(features) if asked is None else asked)
    execute = core.runner.execute

    def recorded(plan: StepPlan) -> StepResult:
        run.plans.append(plan)
        return execute(plan)

    core.runner.execute = recorded
    for _ in range(2 if core.config.enable_prefix_cache else 1):
        run.rounds.append(_round(run, features))
        assert_nothing_left(core)
    return run


def _round(run: Run, features: frozenset[str]) -> list[Completion]:
    core, streams, waiting = run.core, [], list(run.asked)
    num_together = 1 if "batching" in features else len(waiting)
    num_steps = 0
    while waiting or core.has_work:
        for request in waiting[:num_together]:
            streams.append(core.submit(request))
        del waiting[:num_together]
        if "pause" in features and num_steps in PAUSES:
            _pause(run, PAUSES[num_steps])
        step(core)
        num_steps += 1
        run.most_in_flight = max(run.most_in_flight, core.loop.num_in_flight)
    return [stream.completion() for stream in streams]


def _pause(run: Run, mode: PauseMode) -> None:
    run.core.drain()
    num_running = run.core.stats().scheduler.num_running
    pause(run.core, mode)
    num_plans = len(run.plans)
    step(run.core)
    assert len(run.plans) == num_plans, "a paused engine computes nothing"
    resume(run.core)
    run.pauses.append(num_running)
