"""Run one function in several local processes over gloo: for tests and small experiments."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT_S = 60


def run_distributed(function: Callable[..., Any], size: int, *args: Any) -> None:
    """Call ``function(*args)`` in ``size`` new processes that form one gloo group.

    The function must be importable (defined at the top level of a module). Processes meet
    through a file, so no port is needed and parallel test runs cannot collide. Each uses one
    thread. An exception in any process stops the others and is raised here with its traceback.

    Where the system can fork, all come from one server process that has imported torch once.

    Raises:
        torch.multiprocessing.ProcessRaisedException: A process raised.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "rendezvous").as_uri()
        start_processes(_enter, (size, meeting, function, args), size)


def start_processes(
    function: Callable[..., Any], args: tuple[Any, ...], num_processes: int
) -> None:
    """Call ``function(number, *args)`` in new processes and wait for them all.

    Raises:
        torch.multiprocessing.ProcessRaisedException: A process raised.
    """
    method = "forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn"
    if method == "forkserver":
        mp.get_context(method).set_forkserver_preload([__name__])
    mp.start_processes(function, args, nprocs=num_processes, start_method=method)


def _enter(
    rank: int, size: int, meeting: str, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    timeout = timedelta(seconds=TIMEOUT_S)
    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=size, timeout=timeout
    )
    try:
        function(*args)
    finally:
        dist.destroy_process_group()
