"""``weft plan cluster``: what training a model on a cluster takes, by arithmetic."""

from __future__ import annotations

from pathlib import Path

from weft.core.console import console, format_bytes, format_count, format_duration, table
from weft.core.errors import ConfigError
from weft.core.files import read_json, write_atomic
from weft.launch import slurm
from weft.launch.job import Job
from weft.plan.cluster import ClusterPlan, plan_cluster
from weft.spec.families import spec_from_hf


def cluster(
    model: Path,
    *,
    tokens: float = 1e12,
    devices: int = 64,
    peak_tflops: float = 989.0,
    memory_gib: float = 80.0,
    sequence_length: int = 4096,
    devices_per_node: int = 8,
    slurm_file: Path | None = None,
) -> None:
    """What training a model on a cluster takes, by arithmetic.

    Parameters
    ----------
    model
        A config.json or a folder with one.
    tokens
        Tokens to train on, such as 1e12.
    devices
        Number of GPUs.
    peak_tflops
        Dense bf16 peak of one GPU in TFLOP/s (989 is an H100's).
    memory_gib
        Memory of one GPU.
    sequence_length
        Tokens per sequence.
    devices_per_node
        GPUs of one machine.
    slurm_file
        Also write a Slurm script that trains on that many nodes.
    """
    if min(tokens, devices, peak_tflops, memory_gib, sequence_length, devices_per_node) <= 0:
        raise ConfigError("every number must be above 0", fix="check the options")
    spec = spec_from_hf(read_json(model / "config.json" if model.is_dir() else model))
    result = plan_cluster(
        spec,
        num_tokens=tokens,
        num_devices=devices,
        peak_flops=peak_tflops * 1e12,
        sequence_length=sequence_length,
    )
    console.print(table(f"{model}, {devices} devices", ("figure", "value"), _rows(result)))
    _verdict(result, memory_gib)
    if slurm_file is not None:
        job = Job(
            ("train", "my.toml", "--out", "runs/big"),
            num_nodes=-(-devices // devices_per_node),
            processes_per_node=devices_per_node,
        )
        write_atomic(slurm_file, slurm.render(job, gpus_per_node=devices_per_node))
        console.print(f"wrote {slurm_file}", markup=False)


def _rows(result: ClusterPlan) -> list[tuple[str, str]]:
    time = result.duration_s
    return [
        ("parameters", format_count(result.num_parameters)),
        ("training FLOPs", f"{result.flops:.3g}"),
        ("time (spec)", format_duration(time.value)),
        ("  80 % interval", f"{format_duration(time.low)} to {format_duration(time.high)}"),
        ("device hours", format_count(time.value / 3600 * result.num_devices)),
        ("weights, gradients, optimizer", format_bytes(result.state_bytes)),
        ("  per device, fully sharded", format_bytes(result.state_bytes_per_device)),
    ]


def _verdict(result: ClusterPlan, memory_gib: float) -> None:
    available = memory_gib * 2**30
    if result.state_bytes_per_device <= available:
        left = available - result.state_bytes_per_device
        console.print(f"fits: {format_bytes(left)} per device are left for activations")
        return
    needed = -(-result.state_bytes // int(available))
    console.print(f"does not fit: at least {needed} devices are needed for the training state")
