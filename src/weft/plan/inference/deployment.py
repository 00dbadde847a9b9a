"""A model on devices: how it is cut, how it is stored, what is left for the cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from weft.core.console import format_bytes
from weft.core.errors import ConfigError, ResourceError
from weft.plan.accounting import distinct_layers
from weft.plan.hardware.cluster import Cluster
from weft.plan.matrices import layer_matrices
from weft.plan.ops import ELEMENT_BYTES
from weft.plan.work import Dtypes, Shard
from weft.spec import AttentionSpec, LayerSpec, ModelSpec, MoESpec

# Memory an engine may use, and what it needs besides weights and cache: graphs, libraries,
# activations of the largest step (vLLM's and TensorRT-LLM's defaults are 0.9).
USABLE_SHARE = 0.90
OVERHEAD_BYTES = 4e9


@dataclass(frozen=True)
class Storage:
    """Element types of a served model, as keys of ``weft.plan.ops.ELEMENT_BYTES``.

    Attributes:
        ffn: Feed-forward parts and experts, in memory.
        mixer: Projections of attention, in memory.
        kv: The cache.
        weights_only: Products run in bfloat16, whatever the weights are stored in.
    """

    ffn: str = "bfloat16"
    mixer: str = "bfloat16"
    kv: str = "bfloat16"
    weights_only: bool = False

    def dtypes(self, weights: str) -> Dtypes:
        """Return the types of one part."""
        compute = "bfloat16" if self.weights_only else weights
        return Dtypes(compute=compute, weights=weights, kv=self.kv)


@dataclass(frozen=True, eq=False)  # compared by identity: one deployment has one table of kernels
class Deployment:
    """One instance of a served model.

    Attributes:
        spec: The model.
        cluster: Its devices.
        tensor: Devices that share each matrix of attention.
        data: Groups of ``tensor`` devices that serve different sequences (data-parallel attention).
        pipeline: Stages.
        expert: Devices the experts are spread over whole; 1 cuts every expert over all devices
            of a stage.
        storage: Element types.
    """

    spec: ModelSpec
    cluster: Cluster
    tensor: int = 1
    data: int = 1
    pipeline: int = 1
    expert: int = 1
    storage: Storage = field(default_factory=Storage)

    def __post_init__(self) -> None:
        if min(self.tensor, self.data, self.pipeline, self.expert) < 1:
            raise ConfigError("every degree of parallelism must be at least 1")
        if self.tensor * self.data * self.pipeline != self.cluster.num_devices:
            raise ConfigError(
                f"tensor {self.tensor} x data {self.data} x pipeline {self.pipeline} is not "
                f"{self.cluster.num_devices} devices",
                fix="make the product the number of devices",
            )
        if self.expert > 1 and self.stage_devices % self.expert:
            raise ConfigError(
                f"experts over {self.expert} of {self.stage_devices} devices",
                fix=f"choose a divisor of {self.stage_devices}",
            )

    @property
    def stage_devices(self) -> int:
        """Devices of one pipeline stage."""
        return self.tensor * self.data

    @cached_property
    def layers(self) -> dict[LayerSpec, int]:
        """Kinds of layers and how many there are of each; counted once, as hashing them is slow."""
        return distinct_layers(self.spec)

    @cached_property
    def shard(self) -> Shard:
        """How layers are cut."""
        within = self.stage_devices // self.expert
        return Shard(tensor=self.tensor, expert=self.expert, sequence=False, expert_tensor=within)

    @cached_property
    def weight_bytes(self) -> float:
        """Bytes of weights on the fullest device."""
        total = 0.0
        for layer in self.spec.layers:
            for matrix in layer_matrices(layer, self.spec.dim, self.tensor):
                stored = self.storage.ffn if matrix.branch == "ffn" else self.storage.mixer
                total += matrix.local_weights(self.shard) * ELEMENT_BYTES[stored]
        rows = 1 if self.spec.tie_embeddings else 2
        ends = rows * self.spec.vocab_size * self.spec.dim / self.tensor * ELEMENT_BYTES["bfloat16"]
        return total / self.pipeline + ends

    @cached_property
    def kv_bytes_per_token(self) -> float:
        """Cache bytes of one token on one device; latents and few heads are copied, not cut."""
        total = 0.0
        for layer in self.spec.layers:
            values = layer.mixer.cache_values_per_token
            if isinstance(layer.mixer, AttentionSpec):
                values /= min(self.tensor, layer.mixer.num_kv_heads)
                if layer.mixer.window is not None:  # holds a window, not the context
                    continue
            total += values
        return total * ELEMENT_BYTES[self.storage.kv] / self.pipeline

    def cache_bytes(self) -> float:
        """Return the bytes one device has left for the cache.

        Raises:
            ResourceError: the weights alone do not fit; says by how much and on how many devices
                they would.
        """
        memory = self.cluster.device.memory_bytes * USABLE_SHARE
        needed = self.weight_bytes + OVERHEAD_BYTES
        if needed >= memory:
            raise ResourceError(
                f"weights and overhead take {format_bytes(int(needed))} of "
                f"{format_bytes(int(memory))} per device",
                fix=f"cut the model over {needed / memory:.1f} times as many devices or store "
                "it in fewer bits",
            )
        return memory - needed

    def kv_capacity_tokens(self) -> int:
        """Return the tokens whose keys and values fit, over all data-parallel groups.

        Raises:
            ResourceError: see ``cache_bytes``.
        """
        return int(self.cache_bytes() / self.kv_bytes_per_token) * self.data

    @cached_property
    def num_experts(self) -> int:
        """Experts of a mixture layer; 0 if there is none."""
        ffns = (layer.ffn for layer in self.spec.layers)
        return max((ffn.num_experts for ffn in ffns if isinstance(ffn, MoESpec)), default=0)
