from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.train.helpers import VOCAB_SIZE, CountingSource, Recorder, make_batch, tiny_model
from weft.core.errors import CheckpointError, ConfigError, Interrupted, ResourceError
from weft.core.events import Events
from weft.spec import HardwareSpec
from weft.train import checkpoint as checkpoints
from weft.train import session as sessions
from weft.train import trainer
from weft.train.checkpoint import CheckpointStore
from weft.train.compile import compile_blocks
from weft.train.evaluate import bits_per_byte, heldout_metrics, perplexity
from weft.train.loop_config import LoopConfig
from weft.train.objective import NextTokenObjective
from weft.train.optim import OptimizerConfig
from weft.train.precision import LossScaler, check_precision
from weft.train.schedule import ScheduleConfig
from weft.train.throughput import (
    hardware_flops_utilization,
    matmul_peak,
    model_bandwidth_utilization,
    model_flops_utilization,
)
from weft.train.trainer import Hook, Trainer


def _config(**changes) -> LoopConfig:
    settings = {
        "steps": 6,
        "sequence_length": 8,
        "tokens_per_step": 16,
        "precision": "fp32",
        "log_interval_s": 0.0,
        "checkpoint_interval_s": None,
    }
    return LoopConfig(**{**settings, **changes})


def _run(folder: Path, *, model=None, source=None, hooks=(), hardware=None, **changes):
    recorder = Recorder()
    loop = Trainer(
        model or tiny_model(),
        NextTokenObjective(),
        source or CountingSource(),
        _config(**changes),
        folder=folder,
        hooks=hooks,
        hardware=hardware,
        bytes_per_token=2.0,
    )
    return loop.run(Events(recorder)), recorder


def test_loss_falls_into_the_recorded_band(tmp_path: Path) -> None:
    """Row T01: counting upwards is learnt to near certainty in 120 steps."""
    optimizer = OptimizerConfig(lr=0.02)
    result, recorder = _run(tmp_path, steps=120, optimizer=optimizer, log_interval_s=0.05)
    assert recorder.of("step")[0]["loss"] == pytest.approx(math.log(VOCAB_SIZE), abs=0.6)
    assert result.loss is not None
    assert 0.0 < result.loss < 0.25


def test_metrics_of_a_step(tmp_path: Path) -> None:
    hardware = HardwareSpec("test", {"float32": 1e12})
    schedule = ScheduleConfig(kind="linear", warmup_steps=2)
    _, recorder = _run(tmp_path, hardware=hardware, schedule=schedule)
    events = recorder.of("step")
    assert [event["step"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event["num_tokens"] for event in events] == [16, 32, 48, 64, 80, 96]
    wanted = [3e-3 * f for f in (0.5, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)]
    assert [event["lr"] for event in events] == pytest.approx(wanted)
    for event in events:
        assert event["bits_per_byte"] == pytest.approx(event["loss"] / math.log(2) / 2)
        assert 0 < event["mfu"] < 1
        assert min(event["tokens_per_s"], event["grad_norm"], event["memory_bytes"]) > 0


def test_step_uses_its_own_micro_batches(tmp_path: Path) -> None:
    source = CountingSource(num_documents=1)
    _run(tmp_path, source=source, steps=3, micro_batch_tokens=8)
    assert source.asked == [0, 1, 2, 3, 4, 5]


def test_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, _ = _run(tmp_path)
    source = CountingSource()
    again, _ = _run(tmp_path, source=source)
    assert source.asked == []
    assert (again.steps, again.loss) == (first.steps, first.loss)
    for ours, theirs in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class _FakeTime:
    """A clock that only moves when told; stands in for the ``time`` module."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class _SlowSource(CountingSource):
    def __init__(self, clock: _FakeTime, interrupt_at: int | None = None) -> None:
        super().__init__()
        self.clock, self.interrupt_at = clock, interrupt_at

    def batch(self, index: int):
        self.clock.now_s += 10.0
        if index == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().batch(index)


def test_minutes_count_earlier_sessions_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _FakeTime()
    monkeypatch.setattr(sessions, "time", clock)
    budget = {"steps": None, "minutes": 1.0}
    with pytest.raises(Interrupted):
        _run(tmp_path, source=_SlowSource(clock, interrupt_at=3), **budget)
    clock.now_s += 1000.0  # the pause between two sessions costs nothing
    result, recorder = _run(tmp_path, source=_SlowSource(clock), **budget)
    assert result.steps == 6
    assert result.elapsed_s == 60.0
    assert recorder.of("note")[0]["text"] == "continued from step 4"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_saves_first_and_the_same_call_continues(
    tmp_path: Path, number: signal.Signals
) -> None:
    class Interrupting(CountingSource):
        def batch(self, index: int):
            if index == 2:
                os.kill(os.getpid(), number)
            return super().batch(index)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="after step 3") as caught:
        _run(tmp_path, source=Interrupting())
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert CheckpointStore(tmp_path).steps() == [3]
    resumed, _ = _run(tmp_path)
    straight, _ = _run(tmp_path / "straight")
    for ours, theirs in zip(resumed.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_full_disk_ends_the_run_with_the_old_checkpoint_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoints.write_tensors

    def full_after_two(path: Path, tensors) -> None:
        if "step-00000002" not in str(path):
            raise OSError(28, "No space left on device")
        write(path, tensors)

    monkeypatch.setattr(checkpoints, "write_tensors", full_after_two)
    with pytest.raises(ResourceError, match="disk is full"):
        _run(tmp_path, checkpoint_interval_steps=2)
    assert CheckpointStore(tmp_path).steps() == [2]


def test_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    _run(tmp_path)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        _run(tmp_path, model=tiny_model(ffn_dim=64))


def test_checkpoint_without_averages_is_refused_when_they_are_wanted(tmp_path: Path) -> None:
    _run(tmp_path)
    with pytest.raises(CheckpointError, match=r"average\.safetensors"):
        _run(tmp_path, ema_decay=0.9)


def test_hooks_do_not_change_training(tmp_path: Path) -> None:
    def draw(model) -> dict[str, str]:
        assert not model.training
        return {"text": f"drew {torch.rand(3).sum() > 0}"}

    plain, _ = _run(tmp_path / "plain")
    hooked, recorder = _run(tmp_path / "hooked", hooks=[Hook("sample", 0.0, draw)])
    assert [event["step"] for event in recorder.of("sample")] == [1, 2, 3, 4, 5, 6]
    assert hooked.model.training
    for ours, theirs in zip(plain.model.parameters(), hooked.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_hook_can_end_the_run_early(tmp_path: Path) -> None:
    calls = iter(range(10))
    enough = Hook("probe", 0.0, lambda model: {"stop": next(calls) == 1})
    result, recorder = _run(tmp_path, hooks=[enough])
    assert result.steps == 2
    assert [event["stop"] for event in recorder.of("probe")] == [False, True]
    assert CheckpointStore(tmp_path).steps()[-1] == 2


def test_a_hook_longer_than_its_interval_does_not_run_after_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _FakeTime()
    monkeypatch.setattr(trainer, "time", clock)
    began_s: list[float] = []

    def slow(model) -> dict:
        began_s.append(clock.now_s)
        clock.now_s += 1000.0
        return {}

    _run(tmp_path, source=_SlowSource(clock), hooks=[Hook("eval", 25.0, slow)])
    assert len(began_s) == 2
    assert began_s[1] - began_s[0] >= 1000.0 + 25.0


def test_averaged_weights_are_returned_only_when_asked_for(tmp_path: Path) -> None:
    plain, recorder = _run(tmp_path / "plain")
    assert not any("averaged" in event["text"] for event in recorder.of("note"))
    averaged, recorder = _run(tmp_path / "averaged", ema_decay=0.5)
    assert any("averaged" in event["text"] for event in recorder.of("note"))
    last = CheckpointStore(tmp_path / "averaged").load_latest()
    assert last is not None
    assert torch.equal(last.tensors["model"]["norm.weight"], plain.model.norm.weight)
    assert torch.equal(last.tensors["average"]["norm.weight"], averaged.model.norm.weight)
    assert not torch.equal(averaged.model.norm.weight, plain.model.norm.weight)


def test_average_follows_its_closed_form() -> None:
    from weft.train.ema import WeightAverage

    model = tiny_model()
    with torch.no_grad():
        model.norm.weight.fill_(1.0)
        average = WeightAverage(model, decay=0.75)
        model.norm.weight.fill_(3.0)
    for _ in range(2):
        average.update()
    wanted = 3.0 - 2.0 * 0.75**2
    torch.testing.assert_close(average.averages["norm.weight"], torch.full((16,), wanted))


def test_a_run_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no end"):
        _run(tmp_path, steps=None)


def test_precision_is_settled_once(tmp_path: Path) -> None:
    result, recorder = _run(tmp_path, precision="auto")
    assert result.precision in ("bf16", "fp32")
    assert any(event["text"].startswith("precision") for event in recorder.of("note"))
    again, recorder = _run(tmp_path, precision="auto", steps=7)
    assert again.precision == result.precision
    assert not any(event["text"].startswith("precision") for event in recorder.of("note"))


@pytest.mark.parametrize(
    ("slow", "wrong", "chosen"), [(0, 0, "bf16"), (1, 0, "fp32"), (0, 1, "fp32")]
)
def test_bf16_is_chosen_only_if_faster_and_in_agreement(
    slow: int, wrong: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weft.train import precision

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(precision, "time", clock)
    model = torch.nn.Linear(2, 1)

    def loss() -> torch.Tensor:
        in_bf16 = torch.is_autocast_enabled("cpu")
        clock.now += 1.0 if in_bf16 and not slow else 2.0
        return model.weight.sum() * 0 + (2.0 if in_bf16 and wrong else 1.0)

    check = check_precision(loss, model, "cpu")
    assert check.precision == chosen
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("seed", range(3))
def test_loss_scaler_moves_like_that_of_torch(seed: int) -> None:
    """Row T05: scale 128, doubled after 3 quiet steps, halved on overflow."""
    theirs = torch.amp.GradScaler("cpu", init_scale=128.0, growth_interval=3)
    ours = LossScaler(scale=128.0, growth_interval=3)
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    overflows = torch.rand(20, generator=torch.Generator().manual_seed(seed)) < 0.2
    for overflowed in overflows.tolist():
        theirs.scale(parameter.sum())
        parameter.grad = torch.tensor([float("inf") if overflowed else 1.0])
        theirs.step(optimizer)
        theirs.update()
        ours.update(overflowed)
        assert ours.scale == theirs.get_scale()


def test_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    """Row T02."""
    model = tiny_model()
    with torch.no_grad():
        model.embed.weight.zero_()
    metrics = heldout_metrics(model, [CountingSource().batch(0)], bytes_per_token=5.0)
    assert metrics["perplexity"] == pytest.approx(VOCAB_SIZE, rel=1e-5)
    assert metrics["bits_per_byte"] == pytest.approx(5 / 5.0)
    assert metrics["num_tokens"] == 14


def test_perplexity_of_one_red_ball_in_81() -> None:
    """Row T02: 1 red and 80 black balls; drawing the red one has perplexity 81."""
    assert perplexity(-math.log(1 / 81)) == pytest.approx(81)
    assert perplexity(1e4) == math.inf
    assert bits_per_byte(math.log(256), 1.0) == pytest.approx(8)


def test_utilization_definitions() -> None:
    """Row V07."""
    assert model_flops_utilization(6e12, 2.0, 10e12) == pytest.approx(0.3)
    assert hardware_flops_utilization(6e12, 2e12, 2.0, 10e12) == pytest.approx(0.4)
    assert model_bandwidth_utilization(15e9, 1.0, 30e9) == pytest.approx(0.5)
    hardware = HardwareSpec("test", {"bfloat16": 5.0})
    assert (matmul_peak(hardware, "bf16"), matmul_peak(hardware, "fp32")) == (5.0, None)
    assert matmul_peak(None, "bf16") is None


def test_without_a_compiler_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(function, *, backend):
        raise RuntimeError("no C++ compiler found\nlong trace")

    monkeypatch.setattr(torch, "compile", broken)
    problem = compile_blocks(tiny_model())
    assert problem is not None
    assert "no C++ compiler found" in problem
    assert "long trace" not in problem
    result, recorder = _run(tmp_path, compile=True)
    assert result.steps == 6
    assert any("runs without it" in event["text"] for event in recorder.of("note"))


@pytest.mark.slow
# Tracing reads .grad of inner tensors, about which torch warns itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_compiled_blocks_give_the_same_loss_without_graph_breaks() -> None:
    """Row T15: layers share code, and tracing never falls back to Python."""
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    batch = make_batch([8, 8])
    losses, gradients = [], []
    for compiled in (False, True):
        model = tiny_model(num_layers=4)
        if compiled:
            assert compile_blocks(model, backend="aot_eager") is None
        loss_sum = NextTokenObjective()(model, batch).loss_sum
        loss_sum.backward()
        losses.append(loss_sum.detach())
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(losses[0], losses[1])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 3  # the probe, one block, one for any index
