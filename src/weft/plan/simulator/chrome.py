"""A simulation as a Chrome trace, to look at in Perfetto or chrome://tracing.

Every replica is a process whose steps are slices and whose queues are counters; every request is a
row of a process of its own, from arrival over waiting and prefill to its last token. The form is
the JSON trace event format; times are microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weft.plan.simulator.result import SimulatedRequest, Simulation, StepRecord

Event = dict[str, Any]


def chrome_trace(simulation: Simulation) -> dict[str, Any]:
    """Return the trace as one JSON object."""
    requests_pid = len(simulation.replicas)
    events: list[Event] = [_name(pid, f"replica {pid}") for pid in range(len(simulation.replicas))]
    events.append(_name(requests_pid, "requests"))
    for step in simulation.steps:
        events.extend(_step_events(step))
    for index, request in enumerate(simulation.requests):
        events.extend(_request_events(index, request, requests_pid))
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def write_chrome_trace(path: Path, simulation: Simulation) -> None:
    """Write the trace to a file."""
    path.write_text(json.dumps(chrome_trace(simulation)))


def _name(pid: int, name: str) -> Event:
    return {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}


def _step_events(step: StepRecord) -> Iterator[Event]:
    args = {"tokens": step.num_tokens, "sequences": step.num_sequences}
    yield _slice("step", step.replica, 0, step.start_s, step.end_s, args)
    counters = {"running": step.num_sequences, "waiting": step.num_waiting}
    yield _counter("requests", step, counters)
    yield _counter("kv usage", step, {"share": step.kv_usage})


def _request_events(index: int, request: SimulatedRequest, pid: int) -> Iterator[Event]:
    if request.refused:
        return
    arrival = request.arrival
    args = {
        "prompt": arrival.num_prompt_tokens,
        "cached": request.num_cached_tokens,
        "output": request.num_output_tokens,
        "replicas": list(request.replicas),
    }
    yield _slice("first token", pid, index, arrival.time_s, request.first_token_s, args)
    yield _slice("output", pid, index, request.first_token_s, request.finish_s, args)


def _slice(name: str, pid: int, tid: int, start_s: float, end_s: float, args: Event) -> Event:
    return {
        "ph": "X",
        "name": name,
        "pid": pid,
        "tid": tid,
        "ts": start_s * 1e6,
        "dur": (end_s - start_s) * 1e6,
        "args": args,
    }


def _counter(name: str, step: StepRecord, values: Event) -> Event:
    return {"ph": "C", "name": name, "pid": step.replica, "ts": step.start_s * 1e6, "args": values}
