"""Whether drafting pays, measured on the engine's own clock.

Guesses cost time to make and to verify, and how much depends on the model, the batch and the text,
so both ways of stepping are timed: moving estimates of tokens per second with and without drafting,
for each size of batch (in powers of two). The faster way runs; now and then the other one is tried
for a few steps. Only steps count in which every sequence went on decoding, so neither prompts nor
idle times are taken for the cost of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.engine.speculation.config import SwitchConfig
from weft.engine.step_view import StepView
from weft.sched.loop import Clock

# Steps before the first try without drafting.
_WARM_UP_STEPS = 32


@dataclass
class Rates:
    """Tokens per second and sequence, with and without drafting; none before the first measurement.

    Attributes:
        drafted: With drafting.
        plain: Without.
        num_steps: Decoding steps so far.
    """

    drafted: float | None = None
    plain: float | None = None
    num_steps: int = 0

    @property
    def speedup(self) -> float | None:
        """What drafting gains; none while one of the two is unknown."""
        if self.drafted is None or self.plain is None:
            return None
        return self.drafted / self.plain

    def observe(self, rate: float, *, drafting: bool, decay: float) -> None:
        """Take in one step."""
        name = "drafted" if drafting else "plain"
        before = getattr(self, name)
        setattr(self, name, rate if before is None else decay * before + (1 - decay) * rate)


class Switch:
    """Decides step by step whether to draft.

    Args:
        config: Limits; none always drafts and measures nothing.
        clock: The engine's.

    Attributes:
        drafting: Whether the latest step was followed by guesses.
    """

    def __init__(self, config: SwitchConfig | None, clock: Clock) -> None:
        self.drafting = True
        self._config = config
        self._clock = clock
        self._rates: dict[int, Rates] = {}
        self._last: Rates | None = None
        self._last_ids: frozenset[int] = frozenset()
        self._last_s = 0.0

    @property
    def speedup(self) -> float | None:
        """The estimate for the size of batch that ran last."""
        return None if self._last is None else self._last.speedup

    def step(self, view: StepView) -> bool:
        """Time the step that has just drawn its tokens; return whether to draft behind it."""
        if self._config is None:
            return True
        now_s = self._clock.now()
        interval_s, self._last_s = now_s - self._last_s, now_s
        ids = frozenset(item.id for item in view.items)
        went_on = ids <= self._last_ids and all(
            item.sample and len(item.tokens) == 1 for item in view.items
        )
        self._last_ids = ids
        rates = self._last = self._rates.setdefault(len(ids).bit_length(), Rates())
        before = self.drafting
        self.drafting = self._prefers_drafting(rates) != self._tries_the_other(rates)
        if not went_on:
            return self.drafting
        rates.num_steps += 1
        if before == self.drafting and interval_s > 0 and view.walks:
            num_tokens = sum(len(walk.drawn) for walk in view.walks.values())
            rate = num_tokens / len(view.walks) / interval_s
            rates.observe(rate, drafting=before, decay=self._config.decay)
        return self.drafting

    def _prefers_drafting(self, rates: Rates) -> bool:
        assert self._config is not None
        return rates.speedup is None or rates.speedup >= self._config.min_speedup

    def _tries_the_other(self, rates: Rates) -> bool:
        assert self._config is not None
        config = self._config
        since_warm_up = rates.num_steps - min(_WARM_UP_STEPS, config.cycle_steps // 2)
        return since_warm_up >= 0 and since_warm_up % config.cycle_steps < config.probe_steps
