"""Step models with constants that do not change when the fit does."""

from __future__ import annotations

from weft.plan.hardware.cluster import Cluster
from weft.plan.inference.constants import ServingConstants
from weft.plan.inference.deployment import Deployment, Storage
from weft.plan.inference.step import StepModel
from weft.plan.models import public_model

FP8 = Storage(ffn="float8", mixer="float8", kv="float8")


def make_model(
    name: str = "Llama-3.1-8B",
    hardware: str = "H100",
    num_devices: int = 1,
    *,
    storage: Storage | None = None,
    constants: ServingConstants | None = None,
    **layout: int,
) -> StepModel:
    layout = layout or {"tensor": num_devices}
    cluster = Cluster.of(hardware, num_devices)
    deployment = Deployment(public_model(name), cluster, storage=storage or Storage(), **layout)
    return StepModel(deployment, constants or ServingConstants())
