"""Settings of a reinforcement-learning run and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from weft.align.health import HealthConfig
from weft.align.mismatch import Correction
from weft.align.objective import PRESETS, Objective, ObjectiveName
from weft.align.rollout import check_sampling
from weft.core.errors import ConfigError
from weft.engine.config import EngineConfig
from weft.models.decoder import Decoder
from weft.spec.sampling import SamplingParams
from weft.train.loop_config import Budget, require_positive
from weft.train.optim import OptimizerConfig
from weft.train.schedule import ScheduleConfig


@dataclass(frozen=True)
class GRPOConfig:
    """Improve a policy on a task whose answers can be checked.

    The defaults are those of a small model (1 to 5 million parameters) on two-digit additions.

    Attributes:
        task: Name of a built-in task: addition, brackets, sorting.
        difficulty: Largest operand, length or number of items; none is the task's own.
        steps: Stop after this many rollouts.
        minutes: Stop after this much wall-clock time, earlier sessions of the run included. With
            steps too, whichever comes first.
        prompts_per_step: Different questions of a rollout.
        group_size: Answers drawn to each question and compared with each other.
        updates_per_rollout: Optimizer steps on one rollout, each on its share of the samples.
        micro_batch_tokens: Tokens computed at once in training; gradients are added up.
        algorithm: Preset of choices: grpo, dr_grpo, dapo, gspo, rloo, reinforce; custom reads the
            section objective.
        kl_coefficient: Weight of KL(policy || start of the run); none keeps the algorithm's, 0
            keeps no reference model.
        correction: What is done when sampler and trainer disagree: none, tis (truncated
            importance sampling), mis (masked); none given keeps the algorithm's.
        max_grad_norm: Gradients are scaled down to this global norm; none never clips.
        seed: Decides the questions and every drawn token.
        deterministic: Refuse operations whose result varies from run to run.
        num_threads: CPU threads of torch; none leaves them as they are.
        free_cache_while_training: Let the engine's KV cache sleep while the weights are trained, so
            that both need not fit into memory together.
        checkpoint_interval_s: Seconds between checkpoints; one is always written at the end.
        keep_checkpoints: How many checkpoints to keep.
        sample_interval_s: Seconds between two printed answers; none prints none.
        objective: The choices of algorithm = "custom"; otherwise not read.
        sampling: How answers are drawn. Only temperature, length and stops: the trainer must be
            able to reproduce the log-probabilities.
        engine: Sizes of the engine that draws them.
        optimizer: The update rule.
        schedule: The learning rate over the run.
        health: When the run counts as collapsed and ends.
    """

    task: str = "addition"
    difficulty: int | None = None
    steps: int | None = 40
    minutes: float | None = None
    prompts_per_step: int = 64
    group_size: int = 8
    updates_per_rollout: int = 1
    micro_batch_tokens: int = 8192
    algorithm: ObjectiveName | Literal["custom"] = "grpo"
    kl_coefficient: float | None = None
    correction: Correction | None = None
    max_grad_norm: float | None = 1.0
    seed: int = 0
    deterministic: bool = False
    num_threads: int | None = None
    free_cache_while_training: bool = False
    checkpoint_interval_s: float | None = 60.0
    keep_checkpoints: int = 2
    sample_interval_s: float | None = 30.0
    objective: Objective = field(default_factory=Objective)
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(max_tokens=8))
    engine: EngineConfig = field(
        default_factory=lambda: EngineConfig(
            kv_tokens=32_768, max_num_sequences=512, max_tokens_per_step=4096, deterministic=True
        )
    )
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=3e-4, matrix_lr=8e-4, weight_decay=0.0)
    )
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(kind="linear", warmup_steps=3)
    )
    health: HealthConfig = field(default_factory=HealthConfig)

    def __post_init__(self) -> None:
        positive = (
            "steps", "minutes", "prompts_per_step", "updates_per_rollout", "micro_batch_tokens",
            "max_grad_norm", "num_threads", "checkpoint_interval_s", "keep_checkpoints",
        )  # fmt: skip
        require_positive(self, positive)
        if self.group_size < 2:
            raise ConfigError(
                f"group_size is {self.group_size}; one answer has nothing to be compared with",
                fix="set group_size to at least 2, such as 8",
            )
        if self.sampling.max_tokens is None:
            raise ConfigError(
                "sampling.max_tokens is not set; an answer could fill the whole context",
                fix="set sampling.max_tokens, such as 8 for additions",
            )
        check_sampling(self.sampling)

    @property
    def max_new_tokens(self) -> int:
        """Longest answer."""
        return self.sampling.max_tokens or 0

    @property
    def budget(self) -> Budget:
        """The end of the run.

        Raises:
            ConfigError: neither steps nor minutes are given.
        """
        return Budget.of(self.steps, self.minutes)

    def resolve_objective(self) -> Objective:
        """Return the algorithm's choices with the overrides applied."""
        chosen = self.objective if self.algorithm == "custom" else PRESETS[self.algorithm]
        if self.kl_coefficient is not None:
            chosen = replace(chosen, kl_coefficient=self.kl_coefficient)
        if self.correction is not None:
            chosen = replace(chosen, correction=self.correction)
        return chosen


@dataclass(frozen=True)
class GRPOResult:
    """How a run ended.

    Attributes:
        model: The trained policy: the module that was passed in.
        steps: Rollouts done, over all sessions.
        num_updates: Optimizer steps done.
        elapsed_s: Seconds, over all sessions.
        num_tokens: Tokens drawn by the sampler.
        reward: Mean reward of the last rollout.
        max_mismatch: Largest difference of trainer and sampler log-probabilities ever seen; none
            if no update was made, so that nothing was compared.
        collapsed: Why the run was stopped early, in words; none if it was not.
    """

    model: Decoder
    steps: int
    num_updates: int
    elapsed_s: float
    num_tokens: int
    reward: float
    max_mismatch: float | None
    collapsed: str | None

    @property
    def mismatch_text(self) -> str:
        """What to tell a person about trainer and sampler."""
        if self.max_mismatch is None:
            return "no update was made, so trainer and engine were not compared"
        return f"log-probs of trainer and engine differ by at most {self.max_mismatch:.1e}"
