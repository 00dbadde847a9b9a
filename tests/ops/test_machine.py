import subprocess
import sys

import pytest
import torch

from weft.ops import machine


def test_peaks_are_measured_and_say_with_how_many_threads():
    spec = machine.measure_peaks(budget_s=0.05)
    assert set(spec.matmul_flops) == {"float32", "bfloat16"}
    assert min(spec.matmul_flops.values()) > 1e8
    assert spec.memory_bandwidth > 1e8
    assert spec.memory_bytes > 0
    assert (spec.num_threads, spec.grade) == (torch.get_num_threads(), "measured")


@pytest.mark.parametrize(
    ("num_cpus", "load", "expected"), [(2, 0.0, 2), (2, 0.6, 1), (2, 9.0, 1), (16, 3.4, 13)]
)
def test_busy_processors_are_left_alone(num_cpus, load, expected):
    assert machine.idle_cpus(num_cpus, load) == expected


def test_configured_threads_are_set_and_respect_a_limit(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(machine, "available_cpus", lambda: 8)
    monkeypatch.setattr(machine, "busy_cpus", lambda: 0.0)
    try:
        assert machine.configure_threads(limit=1) == 1
        assert torch.get_num_threads() == 1
        assert machine.configure_threads() == 8
    finally:
        torch.set_num_threads(before)


def test_busy_processors_are_measured_now_and_not_over_the_last_minute(monkeypatch):
    ticks = iter([(1000, 2000), (1050, 2100)])
    monkeypatch.setattr(machine, "_processor_ticks", lambda: next(ticks))
    monkeypatch.setattr(machine, "available_cpus", lambda: 2)
    assert machine.busy_cpus(interval_s=0.0) == 1.0


def test_without_processor_ticks_the_load_average_counts(monkeypatch):
    monkeypatch.setattr(machine, "_processor_ticks", lambda: None)
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (1.5, 0.0, 0.0))
    assert machine.busy_cpus() == 1.5


def test_freed_memory_comes_back_with_few_page_faults():
    program = (
        "import resource, torch; from weft.ops.machine import keep_freed_memory\n"
        "kept = keep_freed_memory()\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "sizes = (40 << 20, 60 << 20)\n"
        "for _ in range(4): [torch.ones(n // 4) for n in sizes]\n"
        "before = faults()\n"
        "for _ in range(5): [torch.ones(n // 4) for n in sizes]\n"
        "print(int(kept), faults() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    kept, num_faults = map(int, done.stdout.split())
    assert kept == 0 or num_faults < 32_000  # 5 x 100 MB anew are 128 000 faults


def test_an_allocator_without_the_option_is_left_alone(monkeypatch):
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda _: object())
    assert machine.keep_freed_memory() is False
