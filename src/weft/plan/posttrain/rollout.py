"""How long an engine needs for all samples of a step.

All requests are there at once, so a replica starts as many as its cache holds, fills each place
that becomes free, and at the end waits for its longest samples with an almost empty batch: the
long tail that makes rollouts slow. Time advances from one ending to the next; between them the
batch is constant and a step's time is that of the mean context, which is linear enough over a
stretch of ``_STRETCH`` tokens.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from weft.core.errors import ResourceError
from weft.plan.inference.step import StepModel
from weft.plan.work import Segment, Work

_STRETCH = 512
_MAX_RUNNING = 1024
_MAX_PROMPT_TOKENS = 8192


@dataclass(frozen=True)
class Rollout:
    """One replica's part of a step.

    Attributes:
        seconds: From the first prompt to the last token.
        prompt_s: Of them, computing prompts.
        tail_s: Of them, with less than half of the largest batch running.
        num_tokens: Output tokens.
        max_running: Largest batch.
    """

    seconds: float
    prompt_s: float
    tail_s: float
    num_tokens: int
    max_running: int

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second."""
        return self.num_tokens / self.seconds


def rollout(
    model: StepModel, num_prompt_tokens: int, outputs: Sequence[int], *, group_size: int = 1
) -> Rollout:
    """Predict the rollout of one replica.

    Args:
        model: Step times of the replica.
        num_prompt_tokens: Of every prompt.
        outputs: Output tokens of every sample, in order of service.
        group_size: Samples that share a prompt, which is computed once and kept once.

    Raises:
        ResourceError: the cache does not hold the longest sample.
    """
    capacity = model.deployment.kv_capacity_tokens()
    longest = num_prompt_tokens + max(outputs)
    if longest > capacity:
        raise ResourceError(
            f"the longest sample has {longest} tokens, the cache of a replica holds {capacity}",
            fix="use more devices per replica, or shorter outputs",
        )
    return _Rollout(model.under_load(), num_prompt_tokens, group_size, capacity).run(outputs)


class _Rollout:
    """The state of the walk: samples that run, by the token count at which they end."""

    def __init__(
        self, model: StepModel, num_prompt_tokens: int, group_size: int, capacity: int
    ) -> None:
        self.model, self.prompt = model, num_prompt_tokens
        self.group_size, self.capacity = group_size, capacity
        self.ends: list[tuple[int, int]] = []  # (clock in tokens, length)
        self.clock = 0
        self.held = 0  # tokens the running samples will have held when they end
        self.spans: list[tuple[int, float]] = []  # running, seconds

    def run(self, outputs: Sequence[int]) -> Rollout:
        prompt_s, started = 0.0, 0
        while started < len(outputs) or self.ends:
            first = started
            while started < len(outputs) and self._fits(outputs[started]):
                self._start(outputs[started])
                started += 1
            num_prompts = len(range(first + -first % self.group_size, started, self.group_size))
            prompt_s += self._prompts_s(num_prompts)
            self._advance()
        most = max(running for running, _ in self.spans)
        return Rollout(
            seconds=prompt_s + sum(seconds for _, seconds in self.spans),
            prompt_s=prompt_s,
            tail_s=sum(seconds for running, seconds in self.spans if 2 * running < most),
            num_tokens=int(sum(outputs)),
            max_running=most,
        )

    def _fits(self, length: int) -> bool:
        """Whether a sample can start: on average the others have half of their output to go."""
        kept = self.prompt / self.group_size
        needed = (len(self.ends) + 1) * kept + 0.5 * (self.held + length)
        return len(self.ends) < _MAX_RUNNING and (not self.ends or needed <= self.capacity)

    def _start(self, length: int) -> None:
        heapq.heappush(self.ends, (self.clock + length, length))
        self.held += length

    def _advance(self) -> None:
        """Decode to the next ending, or a stretch of tokens if that is far."""
        running = len(self.ends)
        num_steps = min(self.ends[0][0] - self.clock, _STRETCH)
        drawn = sum(self.clock - (end - length) for end, length in self.ends)
        context = self.prompt + drawn // running + num_steps // 2
        groups = self.model.deployment.data
        work = Work((Segment(1, context, -(-running // groups)),), num_logits=-(-running // groups))
        self.spans.append((running, num_steps * self.model.seconds(work)))
        self.clock += num_steps
        while self.ends and self.ends[0][0] <= self.clock:
            self.held -= heapq.heappop(self.ends)[1]

    def _prompts_s(self, num_prompts: int) -> float:
        if num_prompts == 0:
            return 0.0
        together = max(1, _MAX_PROMPT_TOKENS // self.prompt)
        work = Work((Segment(self.prompt, 0, min(together, num_prompts)),))
        groups = self.model.deployment.data
        return self.model.seconds(work) * num_prompts / (min(together, num_prompts) * groups)
