"""Notices a policy that has collapsed, so that a run ends with a reason instead of with noise."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# A group can no longer disagree: below this the policy draws nearly the same answer every time.
MIN_ENTROPY = 1e-3


@dataclass(frozen=True)
class HealthConfig:
    """When a run counts as collapsed.

    Attributes:
        patience_steps: How long a sign must last without a break.
        min_entropy: Nats per token; below it while the reward is under max_reward is a sign.
        max_reward: A policy this good may be as certain as it likes.
    """

    patience_steps: int = 20
    min_entropy: float = MIN_ENTROPY
    max_reward: float = 0.9


class HealthMonitor:
    """Watches mean reward and entropy step by step.

    >>> monitor = HealthMonitor(HealthConfig(patience_steps=2))
    >>> monitor.update(reward=0.0, entropy=1.0), monitor.update(reward=0.0, entropy=1.0)
    (None, 'the reward was 0 for 2 steps')
    """

    def __init__(self, config: HealthConfig | None = None) -> None:
        self.config = config or HealthConfig()
        self._recent: deque[tuple[float, float]] = deque(maxlen=self.config.patience_steps)

    def update(self, *, reward: float, entropy: float) -> str | None:
        """Record a step; return the reason in words once the policy has collapsed."""
        config = self.config
        self._recent.append((reward, entropy))
        if len(self._recent) < config.patience_steps:
            return None
        if all(reward == 0.0 for reward, _ in self._recent):
            return f"the reward was 0 for {config.patience_steps} steps"
        if all(e < config.min_entropy and r < config.max_reward for r, e in self._recent):
            return (
                f"the entropy was below {config.min_entropy} nats per token for "
                f"{config.patience_steps} steps while the reward was below {config.max_reward}"
            )
        return None
