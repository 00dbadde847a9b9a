"""Starting the ranks of an engine: processes of this machine that meet, load and agree.

Rank 0 is the process that asks for the engine. It starts the others as fresh interpreters
(``python -m weft.engine.parallel``), which get their job on standard input, or finds those that
torchrun has started. All of them meet in a store; sockets are bound to the local host.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from weft.checkpoint.hf import load_spec
from weft.checkpoint.sharded import load_sharded, load_stage
from weft.core.config import from_mapping, to_mapping
from weft.core.environment import total_memory_bytes
from weft.core.errors import ConfigError, UnsupportedError
from weft.dist.private_group import PrivateGroup
from weft.engine.config import EngineConfig
from weft.engine.features import check_features
from weft.engine.memory import plan_memory
from weft.engine.parallel.channel import (
    Address,
    Channel,
    ChannelClosed,
    ChannelTimeout,
    Kind,
    Listener,
)
from weft.engine.parallel.config import ParallelConfig
from weft.engine.parallel.lockstep import Lockstep
from weft.engine.parallel.ranks import RankError, Ranks, stop_processes
from weft.models.decoder import Decoder
from weft.models.sharding import plan_sharding
from weft.models.staged import plan_stages

_ADDRESS = "weft/rank 0"
# Share of the machine's memory that the caches of all ranks may take together.
_CPU_SHARE = 0.25


class Loaded(NamedTuple):
    """What an engine on several ranks is built from.

    Attributes:
        model: Rank 0's part.
        config: The engine's, with the sizes that all ranks have agreed on.
        ranks: The other ranks.
    """

    model: Decoder
    config: EngineConfig
    ranks: Ranks


@dataclasses.dataclass(frozen=True)
class Job:
    """What a rank has to know to take part; travels as JSON.

    Attributes:
        folder: The checkpoint.
        rank: Its number, from 0.
        config: The engine's.
        dtype: Name of the element type; none keeps the checkpoint's.
        device_type: "cpu" or "cuda".
        num_threads: Threads of one rank.
        store: File where the ranks meet; none means torchrun's store.
        address: Where rank 0 listens; none means that the store knows.
        has_tokenizer: Grammars are compiled with the folder's tokenizer.
    """

    folder: str
    rank: int
    config: EngineConfig
    dtype: str | None
    device_type: str
    num_threads: int
    store: str | None = None
    address: Address | None = None
    has_tokenizer: bool = True

    def to_json(self) -> str:
        """Return the job as one line."""
        return json.dumps(
            {**vars(self), "config": to_mapping(self.config), "address": self.address}
        )

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read a job."""
        fields: dict[str, Any] = json.loads(text)
        fields["config"] = from_mapping(EngineConfig, fields["config"])
        fields["address"] = Address(*fields["address"])
        return cls(**fields)

    @property
    def device(self) -> torch.device:
        """Where the rank computes: each on a GPU of its own."""
        if self.device_type == "cuda":
            return torch.device("cuda", self.rank % torch.cuda.device_count())
        return torch.device(self.device_type)


def load_ranks(
    folder: Path,
    config: EngineConfig,
    *,
    load_format: str = "auto",
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Loaded:
    """Load a checkpoint on as many ranks as ``config.parallel`` says, at least two.

    Under torchrun only rank 0 returns: the others serve it, and their processes end with it. On
    the CPU the threads of this process are shared out among the ranks.

    Raises:
        ConfigError: the model's sizes do not divide among the ranks.
        UnsupportedError: a layer that ranks cannot share, or features that do not go together.
        RankError: a rank could not start.
        CheckpointError: see ``load_model``.
    """
    # Refused here, before anything is started.
    spec, parallel = load_spec(folder), config.parallel
    if load_format != "auto":
        raise UnsupportedError(
            f"load_format is {load_format!r}: the {parallel.num_ranks} ranks of an engine take "
            "their parts out of the checkpoint's files",
            fix="save a random model as a checkpoint, or set parallel.tensor and .pipeline to 1",
        )
    check_features(config, spec)
    plan_sharding(spec, parallel.tensor, expert_split=parallel.expert_split)
    plan_stages(spec, parallel.pipeline)
    job = Job(
        folder=str(Path(folder).resolve()),
        rank=0,
        config=config,
        dtype=None if dtype is None else str(dtype).removeprefix("torch."),
        device_type=torch.device(device).type,
        num_threads=max(1, torch.get_num_threads() // config.parallel.num_ranks),
        has_tokenizer=(Path(folder) / "tokenizer.json").exists(),
    )
    if config.parallel.launch == "torchrun":
        return _join_torchrun(job)
    return _start_locally(job)


def with_tensor_parallel(config: EngineConfig | None, size: int | None) -> EngineConfig:
    """Return the configuration with ``parallel.tensor`` replaced, if a size is given."""
    config = config or EngineConfig()
    if size is None:
        return config
    return dataclasses.replace(config, parallel=dataclasses.replace(config.parallel, tensor=size))


def load_part(job: Job, store: dist.Store) -> tuple[Decoder, EngineConfig, Lockstep]:
    """Load one rank's part and agree with the others on the size of the caches."""
    parallel = job.config.parallel
    if job.device_type == "cpu":
        torch.set_num_threads(job.num_threads)
    group = Lockstep(
        PrivateGroup(
            store,
            job.rank,
            parallel.num_ranks,
            device_type=job.device_type,
            timeout_s=parallel.timeout_s,
        )
    )
    try:
        model = _load(job, group)
        return model, agree_on_memory(job.config, model, group), group
    except BaseException:
        group.close()
        raise


def _load(job: Job, group: Lockstep) -> Decoder:
    dtype = None if job.dtype is None else getattr(torch, job.dtype)
    folder, parallel = Path(job.folder), job.config.parallel
    if parallel.pipeline > 1:
        return load_stage(folder, group, dtype=dtype, device=job.device)
    return load_sharded(
        folder, group, expert_split=parallel.expert_split, dtype=dtype, device=job.device
    )


def agree_on_memory(config: EngineConfig, model: Decoder, group: Lockstep) -> EngineConfig:
    """Return the configuration with sizes that every rank has memory for.

    All ranks index their caches by the blocks of one scheduler, so the smallest counts.
    """
    memory = plan_memory(config, model)
    num_blocks = memory.num_blocks
    sized = (config.kv_memory_bytes, config.kv_tokens, config.num_blocks)
    if model.device.type == "cpu" and sized == (None, None, None) and memory.block_bytes:
        budget = int(total_memory_bytes() * _CPU_SHARE) // group.size
        num_blocks = max(1, min(num_blocks, budget // memory.block_bytes))
    sizes = [num_blocks, memory.num_sequences, memory.num_snapshots]
    own = torch.tensor(sizes, device=model.device)
    with group.in_step():
        num_blocks, num_sequences, num_snapshots = group.all_gather(own).amin(0).tolist()
    return dataclasses.replace(
        config,
        kv_memory_bytes=None,
        kv_tokens=None,
        num_blocks=num_blocks,
        max_num_sequences=num_sequences,
        snapshots=dataclasses.replace(config.snapshots, num_slots=num_snapshots),
    )


def _start_locally(job: Job) -> Loaded:
    parallel = job.config.parallel
    folder = tempfile.mkdtemp(prefix="weft-ranks-")
    listener, processes = Listener(), {}
    try:
        place = str(Path(folder) / "store")
        for rank in range(1, parallel.num_ranks):
            processes[rank] = _spawn(
                dataclasses.replace(job, rank=rank, store=place, address=listener.address)
            )
        channels = _accept(listener, processes, parallel)
        return _ready(job, dist.FileStore(place, parallel.num_ranks), channels, processes)
    except BaseException:
        stop_processes(_killed(processes.values()), timeout_s=5.0)
        raise
    finally:
        listener.close()
        shutil.rmtree(folder, ignore_errors=True)  # the store is only for meeting


def _join_torchrun(job: Job) -> Loaded:
    from weft.engine.parallel.__main__ import follow

    parallel = job.config.parallel
    try:
        store, rank, size = next(iter(dist.rendezvous("env://")))
    except ValueError as error:
        raise ConfigError(
            f"parallel.launch is torchrun, which has not started this process: {error}",
            fix=f"run it with torchrun --nproc-per-node {parallel.num_ranks}, or use launch=local",
        ) from error
    if size != parallel.num_ranks:
        raise ConfigError(
            f"torchrun has started {size} processes, the engine needs {parallel.num_ranks}",
            fix=f"use torchrun --nproc-per-node {parallel.num_ranks}",
        )
    if rank > 0:
        address = Address(*json.loads(store.get(_ADDRESS)))
        follow(dataclasses.replace(job, rank=rank, address=address), store)
        sys.exit()
    listener = Listener()
    try:
        store.set(_ADDRESS, json.dumps(listener.address))
        channels = _accept(listener, {}, parallel)
        return _ready(job, store, channels, {})
    finally:
        listener.close()


def _spawn(job: Job) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "weft.engine.parallel"], stdin=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write(job.to_json())
    process.stdin.close()
    return process


def _accept(
    listener: Listener, processes: dict[int, subprocess.Popen], parallel: ParallelConfig
) -> dict[int, Channel]:
    """Wait until every rank has connected."""
    channels: dict[int, Channel] = {}
    end_s = time.monotonic() + parallel.start_timeout_s
    while missing := set(range(1, parallel.num_ranks)) - set(channels):
        found = listener.accept(timeout_s=0.2)
        if found is not None:
            channels[found[0]] = found[1]
            continue
        ended = [rank for rank, process in processes.items() if process.poll() is not None]
        if ended or time.monotonic() > end_s:
            _close(channels)
            if ended:
                code = processes[ended[0]].returncode
                raise RankError(ended[0], f"ended while it started (exit code {code})")
            raise RankError(min(missing), f"did not come within {parallel.start_timeout_s:g} s")
    return channels


def _ready(
    job: Job,
    store: dist.Store,
    channels: dict[int, Channel],
    processes: dict[int, subprocess.Popen],
) -> Loaded:
    """Load rank 0's own part and wait until the others have theirs."""
    group = None
    try:
        model, config, group = load_part(job, store)
        for rank, channel in channels.items():
            _await_ready(rank, channel, job.config.parallel.start_timeout_s)
    except BaseException:
        _close(channels)
        if group is not None:
            group.close()
        raise
    return Loaded(model, config, Ranks(channels, processes, group, config.parallel.timeout_s))


def _await_ready(rank: int, channel: Channel, timeout_s: float) -> None:
    try:
        frame = channel.receive(timeout_s)
    except ChannelTimeout:
        raise RankError(rank, "has not loaded its weights in time") from None
    except ChannelClosed as error:
        raise RankError(rank, f"ended while it loaded: {error}") from error
    if frame.kind is not Kind.READY:
        raise RankError(rank, f"raised {frame.fields['reason']}")


def _close(channels: dict[int, Channel]) -> None:
    for channel in channels.values():
        channel.close()


def _killed(processes: Any) -> Sequence[subprocess.Popen]:
    for process in processes:
        process.kill()
    return list(processes)
