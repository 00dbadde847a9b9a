"""How well does the simulator predict weft's own engine on this CPU?

Learns step times from a recorded run, then serves 200 other requests with the engine and in the
simulator, and prints mean TTFT and TPOT of both. The recorded schedule is also replayed and must
come out the same, step for step. Processor time of one thread is the clock unless ``--clock wall``.

    python benchmarks/plan_engine.py --requests 200 --load 0.6
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from weft.cli.plan.measure_serving import BusyClock, RecordedRun, run_engine
from weft.engine.config import EngineConfig
from weft.models.decoder import Decoder
from weft.plan.simulate import simulate
from weft.plan.simulator.replay import Stepped, fit_step_time, replay, schedule_trace
from weft.plan.simulator.result import Simulation
from weft.plan.workload.arrival import Arrival
from weft.plan.workload.arrivals import Content, gamma_arrivals, poisson_arrivals
from weft.plan.workload.lengths import UniformLength
from weft.sched.loop import MonotonicClock
from weft.sched.scheduler import Scheduler
from weft.spec import ModelShape

CLOCKS = {"cpu": BusyClock, "wall": MonotonicClock}
CONTENT = Content(UniformLength(32, 256), UniformLength(16, 64))


def build_model() -> Decoder:
    torch.manual_seed(0)
    shape = ModelShape(dim=256, num_layers=4, num_heads=4, num_kv_heads=2, context_length=512)
    return Decoder(shape.build(4096)).eval()


def report(runs: list[RecordedRun], predicted: Simulation) -> dict[str, float]:
    row: dict[str, float] = {}
    for name in ("ttft_s", "tpot_s"):
        means = [statistics.mean(getattr(one, name) for one in run.requests) for run in runs]
        real, simulated = statistics.median(means), predicted.mean(name)  # type: ignore[arg-type]
        row |= {f"{name}_engine": real, f"{name}_simulated": simulated}
        row[f"{name}_error"] = simulated / real - 1.0
        listed = ", ".join(f"{1e3 * mean:.2f}" for mean in means)
        print(
            f"mean {name[:4]}: simulated {1e3 * simulated:.2f} ms, engine {1e3 * real:.2f} ms "
            f"({listed}), {row[f'{name}_error']:+.1%}"
        )
    return row


def learning_arrivals(num_requests: int, seed: int) -> tuple[Arrival, ...]:
    """Bursts: steps of many sequences and of few are both learnt from."""
    return gamma_arrivals(
        CONTENT, num_requests=num_requests, rate_per_s=20.0, variation=2.0, seed=seed
    )


def _arrivals(learnt: RecordedRun, arguments: argparse.Namespace) -> tuple[Arrival, ...]:
    """Return requests at a share of the rate that keeps the engine busy without a pause."""
    busy_s = sum(e.end_s - e.start_s for e in learnt.journal if isinstance(e, Stepped))
    rate = arguments.load * len(learnt.requests) / busy_s
    return poisson_arrivals(CONTENT, num_requests=arguments.requests, rate_per_s=rate, seed=1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--calibration-requests", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--load", type=float, default=0.6, help="of what the engine bears")
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, clock = build_model(), CLOCKS[arguments.clock]
    config = EngineConfig(kv_tokens=32_768, max_num_sequences=32, max_tokens_per_step=512)
    warm = poisson_arrivals(CONTENT, num_requests=8, rate_per_s=100.0, seed=9)
    run_engine(model, config, warm, clock())
    learnt: list[RecordedRun] = []
    served: list[RecordedRun] = []
    arrivals: tuple[Arrival, ...] = ()
    # In turns, so that whatever else the machine does hits learning and serving alike.
    for number in range(arguments.repeats):
        learning = learning_arrivals(arguments.calibration_requests, number)
        learnt.append(run_engine(model, config, learning, clock()))
        if not arrivals:
            arrivals = _arrivals(learnt[0], arguments)
        served.append(run_engine(model, config, arrivals, clock()))
    step_time = fit_step_time([entry for run in learnt for entry in run.journal])
    print(f"learnt from {sum(len(run.journal) for run in learnt)} entries: {step_time}")
    measured = served[0]
    predicted = simulate(arrivals, scheduler=measured.scheduler, step_time=step_time)
    row = report(served, predicted)
    same = replay(measured.journal, Scheduler(measured.scheduler)) == schedule_trace(
        measured.journal
    )
    print(f"replayed schedule is {'the same' if same else 'DIFFERENT'}, step for step")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({**row, "same_schedule": same}, indent=2) + "\n")


if __name__ == "__main__":
    main()
