"""The loop: roll out, grade, advantages, pack, train, bump the weight version.

Sampler and trainer hold the same tensors in one process. What each step asks and draws is a
function of (seed, step), so a run continued from a checkpoint draws what an uninterrupted one
would have drawn.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weft.align.grade import Grader, TaskGrader
from weft.align.grpo_config import GRPOConfig, GRPOResult
from weft.align.grpo_metrics import StepRecord, step_values
from weft.align.health import HealthMonitor
from weft.align.mismatch import Mismatch, measure_mismatch
from weft.align.policy_batch import PolicyBatch, ScoredSample, pack, select
from weft.align.policy_step import PolicyObjective, frozen_log_probs
from weft.align.rollout import Rollout, roll_out
from weft.checkpoint.hf import save_model
from weft.core.console import LiveLine, format_duration
from weft.core.errors import CheckpointError, Interrupted
from weft.core.events import Events
from weft.data.permutation import derive_seed
from weft.data.tasks.catalog import open_task
from weft.data.tasks.task import Problem, Task, cycle
from weft.engine.llm import LLM
from weft.engine.sleep import KV_CACHE
from weft.models.decoder import Decoder
from weft.text.render import Renderer
from weft.text.tokenizer import Tokenizer
from weft.train.checkpoint import CheckpointStore, TrainingCheckpoint
from weft.train.determinism import arithmetic
from weft.train.optim import build_optimizer
from weft.train.signals import StopRequest
from weft.train.step import StepResult, train_step

OnStep = Callable[[int, Mapping[str, Any]], None]


def run_grpo(
    config: GRPOConfig,
    model: Decoder,
    tokenizer: Tokenizer,
    *,
    folder: Path,
    events: Events,
    task: Task | None = None,
    grader: Grader | None = None,
    on_step: OnStep | None = None,
) -> GRPOResult:
    """Train ``model`` in place and write ``folder/model``; continues what the folder holds.

    Args:
        config: The algorithm and its sizes.
        model: The policy, as fine-tuning left it. It is the reference of the KL term too, so a
            continued run must be given the same start.
        tokenizer: With a chat template.
        folder: Checkpoints and the model are written below it.
        events: Takes a "step" event per rollout.
        task: Where problems come from; none opens ``config.task``.
        grader: Judges answers; none uses the task's own check.
        on_step: Called after every step with its number and the values of its event.

    Raises:
        Interrupted: Ctrl-C; a checkpoint was written and the same call continues.
        ResourceError: a checkpoint could not be written; the previous one is valid.
        CheckpointError: the folder's checkpoints are damaged or of another model.
    """
    task = open_task(config.task, difficulty=config.difficulty) if task is None else task
    run = _Run(config, model, tokenizer, task, grader or TaskGrader(task), on_step)
    settings = arithmetic(deterministic=config.deterministic, num_threads=config.num_threads)
    store = CheckpointStore(Path(folder) / "checkpoints", keep=config.keep_checkpoints)
    with settings, store, StopRequest() as stop:
        run.restore(store.load_latest(), events)
        run.loop(store, stop, events)
    save_model(model, Path(folder) / "model", tokenizer=tokenizer)
    return run.result()


@dataclass
class _State:
    """Counters of a run, over all its sessions."""

    step: int = 0
    num_updates: int = 0
    elapsed_s: float = 0.0
    num_tokens: int = 0
    reward: float = 0.0
    max_mismatch: float | None = None
    collapsed: str | None = None


class _Run:
    """One session of a run."""

    def __init__(
        self,
        config: GRPOConfig,
        model: Decoder,
        tokenizer: Tokenizer,
        task: Task,
        grader: Grader,
        on_step: OnStep | None,
    ) -> None:
        self.config, self.model, self.task, self.grader = config, model, task, grader
        self.on_step = on_step
        self.budget = config.budget
        self.state = _State()
        self.choices = config.resolve_objective()
        self.objective = PolicyObjective(
            self.choices,
            temperature=config.sampling.temperature,
            max_new_tokens=config.max_new_tokens,
        )
        self.reference = _frozen_copy(model) if self.choices.kl_coefficient > 0.0 else None
        self.optimizers = build_optimizer(model, config.optimizer)
        # No copy: the engine reads the parameters that the optimizer writes.
        self.llm = LLM(model, tokenizer, config.engine)
        self.renderer = Renderer(tokenizer)
        self.monitor = HealthMonitor(config.health)

    def restore(self, checkpoint: TrainingCheckpoint | None, events: Events) -> None:
        """Continue from a checkpoint, if there is one."""
        if checkpoint is None:
            return
        self.state = _State(step=checkpoint.step, **checkpoint.state["grpo"])
        _copy_parameters(self.model, checkpoint.tensors["model"])
        self.optimizers.load_state_dict(checkpoint.tensors["optimizer"])
        self.llm.bump_weight_version()
        events.emit("note", text=f"continued from step {self.state.step}")

    def loop(self, store: CheckpointStore, stop: StopRequest, events: Events) -> None:
        """Step until the budget is used, the policy collapses or someone interrupts."""
        problems = self._problems()
        start_s = time.monotonic() - self.state.elapsed_s
        saved_s, saved_step = time.monotonic(), self.state.step
        printed_s = time.monotonic()
        with LiveLine("grpo", total=1.0) as line:
            while not self._done and not stop.requested:
                store.check()
                batch = list(itertools.islice(problems, self.config.prompts_per_step))
                record = self.step(batch)
                self.state.elapsed_s = time.monotonic() - start_s
                values = step_values(record)
                events.emit("step", step=self.state.step, **values)
                line.update(min(self._progress, 1.0), f"step {self.state.step} · {record.status}")
                if self.on_step is not None:
                    self.on_step(self.state.step, values)
                if self._due(self.config.sample_interval_s, printed_s):
                    self._show(record.rollout, events, line)
                    printed_s = time.monotonic()
                if self._due(self.config.checkpoint_interval_s, saved_s):
                    self._save(store)
                    saved_s, saved_step = time.monotonic(), self.state.step
            if self.state.step > saved_step or not store.steps():
                self._save(store)
            store.wait()
        if self.state.collapsed:
            events.emit("note", text=f"stopped: {self.state.collapsed}")
        elif stop.requested and not self._done:
            raise Interrupted(
                f"stopped after step {self.state.step} "
                f"({format_duration(self.state.elapsed_s)} of training); everything is saved",
                fix="run the same command again to continue",
            )

    def step(self, problems: Sequence[Problem]) -> StepRecord:
        """Draw one rollout, learn from it, and make the engine forget the old weights' prefixes."""
        config, state = self.config, self.state
        start_s = time.perf_counter()
        self.llm.wake()
        rollout = roll_out(
            self.llm,
            self.renderer,
            problems,
            self.grader,
            config.sampling,
            group_size=config.group_size,
            seed=derive_seed(config.seed, "rollout", state.step),
        )
        if config.free_cache_while_training:
            # Not the weights: they are the very tensors that are trained.
            self.llm.sleep([KV_CACHE])
        rollout_s = time.perf_counter() - start_s
        selection = select(rollout.groups, self.choices.advantage)
        self.optimizers.set_lr_factor(config.schedule.factor_at(state.step, self._progress))
        results, mismatch = self._train(selection.samples)
        state.step += 1
        record = StepRecord(
            rollout=rollout,
            num_dropped_groups=selection.num_dropped_groups,
            updates=tuple(results),
            mismatch=mismatch,
            lr=self.optimizers.lr,
            weight_version=state.num_updates,
            rollout_s=rollout_s,
            train_s=time.perf_counter() - start_s - rollout_s,
        )
        state.num_tokens += record.num_new_tokens
        state.reward = record.reward
        if mismatch is not None:
            state.max_mismatch = max(state.max_mismatch or 0.0, mismatch.max_abs)
        state.collapsed = self.monitor.update(reward=record.reward, entropy=record.entropy)
        return record

    def result(self) -> GRPOResult:
        """Return how the run ended."""
        state = self.state
        return GRPOResult(
            model=self.model,
            steps=state.step,
            num_updates=state.num_updates,
            elapsed_s=state.elapsed_s,
            num_tokens=state.num_tokens,
            reward=state.reward,
            max_mismatch=state.max_mismatch,
            collapsed=state.collapsed,
        )

    def _train(self, samples: Sequence[ScoredSample]) -> tuple[list[StepResult], Mismatch | None]:
        """Update the weights on the samples; compare both sides' log-probabilities on the way."""
        results: list[StepResult] = []
        mismatch = None
        self.model.train()
        for batches in self._updates(samples):
            self.objective.seen.clear()
            results.append(
                train_step(
                    self.model,
                    self.optimizers,
                    batches,
                    self.objective,
                    max_grad_norm=self.config.max_grad_norm,
                )
            )
            if mismatch is None:  # only the first update sees the weights that drew the tokens
                behaviour_M = np.concatenate([batch.behaviour_M for batch in batches])
                seen_M = torch.cat(self.objective.seen)
                mismatch = measure_mismatch(seen_M.cpu(), torch.from_numpy(behaviour_M))
        self.model.eval()
        if results:
            self.state.num_updates += len(results)
            self.llm.bump_weight_version()
        return results, mismatch

    def _updates(self, samples: Sequence[ScoredSample]) -> list[list[PolicyBatch]]:
        """Return the micro-batches of each update, with what frozen policies say of them."""
        order = np.random.default_rng((self.config.seed, self.state.step)).permutation(len(samples))
        parts = np.array_split(order, self.config.updates_per_rollout)
        return [
            self._with_frozen(pack([samples[i] for i in part], self.config.micro_batch_tokens))
            for part in parts
            if len(part)
        ]

    def _with_frozen(self, batches: list[PolicyBatch]) -> list[PolicyBatch]:
        """Add the log-probabilities by the reference, and by the policy before its updates."""
        old: Sequence[np.ndarray | None] = [None] * len(batches)
        reference: Sequence[np.ndarray | None] = [None] * len(batches)
        temperature = self.config.sampling.temperature
        if self.choices.correction != "none":
            old = frozen_log_probs(self.model, batches, temperature=temperature)
        if self.reference is not None:
            reference = frozen_log_probs(self.reference, batches, temperature=temperature)
        return [
            batch.with_log_probs(old_M=old_M, reference_M=reference_M)
            for batch, old_M, reference_M in zip(batches, old, reference, strict=True)
        ]

    @property
    def _progress(self) -> float:
        return self.budget.progress(self.state.step, self.state.elapsed_s)

    @property
    def _done(self) -> bool:
        return self._progress >= 1.0 or self.state.collapsed is not None

    def _problems(self) -> Iterator[Problem]:
        """Yield the problems that come after those of the steps already done.

        In an order of its own: with the run's seed it would begin with the very demonstrations
        that fine-tuning took with the same seed, which the policy knows by heart.
        """
        used = self.state.step * self.config.prompts_per_step
        order = derive_seed(self.config.seed, "questions")
        return itertools.islice(cycle(self.task, "train", order), used, None)

    def _due(self, interval_s: float | None, last_s: float) -> bool:
        return interval_s is not None and time.monotonic() - last_s >= interval_s

    def _show(self, rollout: Rollout, events: Events, line: LiveLine) -> None:
        question, answer = rollout.example
        events.emit("sample", step=self.state.step, prompt=question, text=answer)
        line.message(f"[step {self.state.step}] {question} -> {answer!r}")

    def _save(self, store: CheckpointStore) -> None:
        tensors = {
            "model": dict(self.model.named_parameters()),
            "optimizer": self.optimizers.state_dict(),
        }
        counters = {key: value for key, value in asdict(self.state).items() if key != "step"}
        store.save(self.state.step, tensors, {"grpo": counters})


def _frozen_copy(model: Decoder) -> Decoder:
    reference = copy.deepcopy(model).requires_grad_(False)
    return reference.eval()


@torch.no_grad()
def _copy_parameters(model: Decoder, tensors: Mapping[str, torch.Tensor]) -> None:
    """Overwrite the parameters in place, so that the engine sees them too."""
    ours = dict(model.named_parameters())
    shapes = {name: parameter.shape for name, parameter in ours.items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise CheckpointError(
            "the checkpoint is of another model: names or shapes of its parameters differ",
            fix="continue with the model the run was started with, or use another folder",
        )
    for name, parameter in ours.items():
        parameter.copy_(tensors[name])
