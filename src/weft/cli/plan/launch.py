"""The command that runs a found layout with weft's own trainer or server."""

from __future__ import annotations

from weft.launch.job import Job
from weft.launch.torchrun import render
from weft.plan.layout import TrainingLayout
from weft.plan.search.serving import ServingOption


def training_command(layout: TrainingLayout, devices_per_node: int) -> str:
    """Return how weft's trainer starts on every node of a layout, and what it cannot do yet."""
    per_node = min(devices_per_node, layout.num_devices)
    arguments = (
        "train", "model.toml",
        "--sequence-length", str(layout.length),
        "--tokens-per-step", str(layout.tokens_per_step),
        "--micro-batch-tokens", str(layout.micro_batch * layout.length * layout.data),
        "--device", "cuda", "--out", "runs/base",
    )  # fmt: skip
    job = Job(arguments, num_nodes=layout.num_devices // per_node, processes_per_node=per_node)
    return render(job, rendezvous="localhost:0" if job.num_nodes == 1 else "HOST:29500")


def uncut(layout: TrainingLayout) -> bool:
    """Whether every device holds the whole model, which is all weft's own trainer can do."""
    return max(layout.tensor, layout.pipeline, layout.context, layout.expert) == 1


def serving_command(model: str, option: ServingOption, length: int) -> str:
    """Return how weft's server starts for one replica; it holds the whole model on a device."""
    per_replica = max(1, option.num_clients // option.num_replicas)
    return f"weft serve {model} --max-num-sequences {per_replica} --max-context {length}"
