"""The training loop: accumulation, schedule, metrics, hooks, checkpoints, interruption."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from weft.core.console import LiveLine, format_duration
from weft.core.errors import Interrupted
from weft.core.events import Events
from weft.models.decoder import Decoder
from weft.spec import HardwareSpec
from weft.train.checkpoint import CheckpointStore
from weft.train.compile import compile_blocks
from weft.train.determinism import arithmetic
from weft.train.loop_config import LoopConfig
from weft.train.metrics import Meter, status_line
from weft.train.objective import Objective
from weft.train.precision import check_precision
from weft.train.rng import preserved_random_state, seed_random_state
from weft.train.session import Session, TrainState
from weft.train.signals import StopRequest
from weft.train.step import train_step


class BatchSource(Protocol):
    """Batches as a pure function of their index (``weft.data.loader.Loader``)."""

    def batch(self, index: int) -> Any: ...


@dataclass(frozen=True)
class Hook:
    """Something to do every few seconds while training.

    Attributes:
        kind: Kind of the event its result becomes ("sample", "eval").
        interval_s: Seconds between two calls.
        call: Takes the model in evaluation mode, returns the event's values; a "text" among them
            is shown, a true "stop" ends the run as if its budget were used. What it draws from
            random generators is undone.
    """

    kind: str
    interval_s: float
    call: Callable[[Decoder], Mapping[str, Any]]


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        model: The trained model (its averaged weights, if an average was configured).
        steps: Steps done, over all sessions.
        elapsed_s: Seconds of training, over all sessions.
        num_tokens: Tokens seen.
        num_skipped: Steps left out because gradients were not finite.
        loss: Mean training loss of the last report, nats per token.
        precision: What matmuls ran in.
        metrics: Held-out metrics at the end; empty where nothing was held out.
    """

    model: Decoder
    steps: int
    elapsed_s: float
    num_tokens: int
    num_skipped: int
    loss: float | None
    precision: str
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Trainer:
    """Trains a model until its budget is used, continuing what the folder holds.

    Args:
        model: Changed in place.
        objective: What to minimise.
        source: Micro-batches by index; step s uses indices s A to s A + A - 1 for A micro-batches.
        config: Budget, optimizer, schedule and the rest.
        folder: Training checkpoints live here.
        title: Name on the live line.
        hardware: Measured peaks, for MFU.
        bytes_per_token: Bytes of text per token, for bits per byte.
        hooks: Called while training.
    """

    def __init__(
        self,
        model: Decoder,
        objective: Objective,
        source: BatchSource,
        config: LoopConfig,
        *,
        folder: Path,
        title: str = "train",
        hardware: HardwareSpec | None = None,
        bytes_per_token: float | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.model, self.objective, self.source, self.config = model, objective, source, config
        self.folder, self.title, self.hooks = Path(folder), title, list(hooks)
        self._hardware, self._bytes_per_token = hardware, bytes_per_token

    def run(self, events: Events) -> TrainResult:
        """Train, or continue to train, to the end of the budget.

        Raises:
            ConfigError: the configuration has no budget.
            Interrupted: Ctrl-C or SIGTERM; a checkpoint was written first.
            ResourceError: a checkpoint could not be written; the previous one is valid.
            CheckpointError: the folder's checkpoints are damaged or of another configuration.
        """
        config = self.config
        settings = arithmetic(deterministic=config.deterministic, num_threads=config.num_threads)
        with (
            settings,
            preserved_random_state(),
            CheckpointStore(self.folder, keep=config.keep_checkpoints) as store,
        ):
            session = self._begin(store, events)
            with StopRequest() as stop, LiveLine(self.title, total=1.0) as line:
                reached = self._loop(session, store, stop, events, line)
                if session.state.step > max(store.steps(), default=-1):
                    session.save(store)
                store.wait()
            if session.progress() < 1.0 and not reached:
                raise Interrupted(
                    f"stopped after step {session.state.step} "
                    f"({format_duration(session.state.elapsed_s)} of training); all is saved",
                    fix="run the same command again to continue",
                )
        if session.average is not None:
            session.average.write_to_model()
            events.emit("note", text=f"averaged weights (decay {config.ema_decay}) are used")
        return _result(self.model, session.state)

    def _begin(self, store: CheckpointStore, events: Events) -> Session:
        """Continue from the newest checkpoint, or settle the precision and start."""
        problem = compile_blocks(self.model) if self.config.compile else None
        if problem:
            events.emit("note", text=problem)
        checkpoint = store.load_latest()
        if checkpoint is None:
            seed_random_state(self.config.seed)
            state = TrainState(precision=self._choose_precision(events))
            return Session(self.model, self.config, state)
        events.emit("note", text=f"continued from step {checkpoint.step}")
        return Session.resume(self.model, self.config, checkpoint)

    def _choose_precision(self, events: Events) -> str:
        if self.config.precision != "auto":
            return self.config.precision
        batch = self.source.batch(0)

        def loss() -> Tensor:
            result = self.objective(self.model, batch)
            return result.loss_sum / result.count

        check = check_precision(loss, self.model, self.model.device.type)
        events.emit("note", text=f"precision {check.precision}: {check.reason}")
        return check.precision

    def _loop(
        self,
        session: Session,
        store: CheckpointStore,
        stop: StopRequest,
        events: Events,
        line: LiveLine,
    ) -> bool:
        """Step to the end of the budget; return whether a hook ended the run before."""
        state, config = session.state, self.config
        meter = Meter(
            self.model.spec,
            state.precision,
            hardware=self._hardware,
            bytes_per_token=self._bytes_per_token,
        )
        hooks = [(hook, _Timer(hook.interval_s)) for hook in self.hooks]
        checkpoint_timer = _Timer(config.checkpoint_interval_s)
        self.model.train()
        while (progress := session.progress()) < 1.0 and not stop.requested:
            store.check()
            self._step(session, meter, progress)
            progress = session.progress()
            if meter.age_s >= config.log_interval_s or progress >= 1.0:
                self._report(session, meter, events, line, progress)
            for hook, timer in hooks:
                if not timer.due():
                    continue
                ends = self._call(hook, state.step, events, line)
                # From its end: a hook longer than its interval must not run after every step.
                timer.restart()
                if ends:
                    return True
            by_steps = config.checkpoint_interval_steps
            if checkpoint_timer.due() or (by_steps and state.step % by_steps == 0):
                session.save(store)
        return False

    def _step(self, session: Session, meter: Meter, progress: float) -> None:
        state, num_batches = session.state, self.config.num_micro_batches
        session.optimizers.set_lr_factor(self.config.schedule.factor_at(state.step, progress))
        first = state.step * num_batches
        batches = [self.source.batch(index) for index in range(first, first + num_batches)]
        result = train_step(
            self.model,
            session.optimizers,
            batches,
            self.objective,
            max_grad_norm=self.config.max_grad_norm,
            precision=state.precision,
            scaler=session.scaler,
        )
        if session.average is not None:
            session.average.update()
        lengths = [length for batch in batches for length in batch.lengths]
        meter.add(result, lengths)
        state.step += 1
        state.num_tokens += sum(lengths)

    def _report(
        self, session: Session, meter: Meter, events: Events, line: LiveLine, progress: float
    ) -> None:
        metrics, state = meter.report(self.model.device), session.state
        routing = metrics.pop("routing", None)
        state.loss = metrics["loss"]
        state.num_skipped += metrics.pop("num_skipped")
        metrics |= {
            "lr": session.optimizers.lr,
            "num_skipped": state.num_skipped,
            "num_tokens": state.num_tokens,
        }
        events.emit("step", step=state.step, **metrics)
        if routing is not None:
            events.emit("routing", step=state.step, **routing)
        line.update(min(progress, 1.0), f"step {state.step} · {status_line(metrics)}")

    def _call(self, hook: Hook, step: int, events: Events, line: LiveLine) -> bool:
        self.model.eval()
        with preserved_random_state(), torch.no_grad():
            values = hook.call(self.model)
        self.model.train()
        events.emit(hook.kind, step=step, **values)
        if "text" in values:
            line.message(f"[step {step}] {values['text']}")
        return bool(values.get("stop"))


class _Timer:
    """Is due every ``interval_s`` seconds; never when that is none."""

    def __init__(self, interval_s: float | None) -> None:
        self._interval_s = interval_s
        self._last = time.monotonic()

    def due(self) -> bool:
        if self._interval_s is None or time.monotonic() - self._last < self._interval_s:
            return False
        self.restart()
        return True

    def restart(self) -> None:
        """Begin the interval now."""
        self._last = time.monotonic()


def _result(model: Decoder, state: TrainState) -> TrainResult:
    return TrainResult(
        model,
        state.step,
        state.elapsed_s,
        state.num_tokens,
        state.num_skipped,
        state.loss,
        state.precision,
    )
