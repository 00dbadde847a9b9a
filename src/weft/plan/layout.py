"""How a model is trained on many devices: cuts, batch, precision, what is recomputed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from weft.core.errors import ConfigError
from weft.plan.work import Dtypes, Shard, Work
from weft.plan.zero import ZeroStage

Recompute = Literal["none", "selective", "full"]
AttentionKernel = Literal["tuned", "fused", "scores"]


@dataclass(frozen=True, kw_only=True)
class TrainingLayout:
    """One way to train.

    Attributes:
        data: Replicas that see different data.
        tensor: Devices that share each matrix.
        pipeline: Devices that hold different layers.
        chunks: Stages per pipeline rank (interleaving).
        context: Devices that share each sequence.
        expert: Devices that share the experts; they lie across data, context and tensor ranks.
        expert_tensor: Devices that share one expert's matrices; none means ``tensor`` without
            expert parallelism and 1 with it.
        micro_batch: Sequences per forward pass of one replica.
        global_batch: Sequences per optimizer step.
        length: Tokens of a sequence.
        zero: What data parallelism shards (arXiv:1910.02054); 3 is fully sharded.
        shard_size: Replicas that shard together; none means all.
        sequence_parallel: Norms and residuals are cut by ``tensor``.
        recompute: What the backward pass computes again.
        recompute_share: In so many of the layers; the others keep everything.
        dtype: Element type of the layers' matrix products.
        gradient_bytes: Bytes per reduced gradient.
        overlap: Communication of weights, gradients and experts hides behind computation.
        tensor_overlap: That of tensor parallelism does, in pieces.
        attention: Vendors' kernels tuned to the generation, portable fused kernels, or matrices
            of scores in memory.
        frozen: The model's weights are not trained (adapters).
        adapter_rank: Inner width of adapters beside every matrix (LoRA, arXiv:2106.09685).
        weight_bytes: Bytes per weight of the copy that computes; 0.5625 is four bits with scales
            (QLoRA, arXiv:2305.14314).
        early_stop: Recomputation ends before products whose output nothing needs: the last one of
            a layer (PyTorch's non-reentrant checkpoints).
        blocking_engine: Stages hand over whole activations and wait, and gradients are summed in
            float32 after every micro batch (DeepSpeed's pipeline engine).
        parallel_block: Mixer and feed-forward part share one reduction.
    """

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    chunks: int = 1
    context: int = 1
    expert: int = 1
    expert_tensor: int | None = None
    micro_batch: int = 1
    global_batch: int = 1
    length: int = 2048
    zero: ZeroStage = 1
    shard_size: int | None = None
    sequence_parallel: bool = True
    recompute: Recompute = "none"
    recompute_share: float = 1.0
    dtype: str = "bfloat16"
    gradient_bytes: float = 4.0
    overlap: bool = True
    tensor_overlap: bool = False
    attention: AttentionKernel = "fused"
    frozen: bool = False
    adapter_rank: int = 0
    weight_bytes: float = 2.0
    early_stop: bool = False
    blocking_engine: bool = False
    parallel_block: bool = False

    def __post_init__(self) -> None:
        sizes = ("data", "tensor", "pipeline", "chunks", "context", "expert", "micro_batch",
                 "global_batch", "length")  # fmt: skip
        for name in sizes:
            if getattr(self, name) < 1:
                raise ConfigError(f"layout.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0.0 <= self.recompute_share <= 1.0:
            raise ConfigError(
                f"layout.recompute_share is {self.recompute_share}", fix="use a share from 0 to 1"
            )
        if self.length % self.context:
            raise ConfigError(f"{self.length} tokens do not split over {self.context} devices")

    @property
    def num_devices(self) -> int:
        return self.data * self.tensor * self.pipeline * self.context

    @property
    def num_micro(self) -> int:
        """Forward passes of one replica per optimizer step."""
        return max(1, math.ceil(self.global_batch / (self.data * self.micro_batch)))

    @property
    def tokens_per_step(self) -> int:
        return self.global_batch * self.length

    @property
    def num_shards(self) -> int:
        """Devices that share training state by ZeRO: replicas times context ranks."""
        return self.shard_size or self.data * self.context

    @property
    def num_expert_shards(self) -> int:
        """Devices that share the state of one expert."""
        parts = self.expert * self.shard.within_expert
        return max(1, self.data * self.context * self.tensor // parts)

    @property
    def shard(self) -> Shard:
        return Shard(
            tensor=self.tensor,
            expert=self.expert,
            context=self.context,
            sequence=self.sequence_parallel,
            expert_tensor=self.expert_tensor,
        )

    @property
    def dtypes(self) -> Dtypes:
        return Dtypes(compute=self.dtype, weights="bfloat16")

    @property
    def work(self) -> Work:
        """The forward pass of one micro batch."""
        return Work.train(self.micro_batch, self.length)

    @property
    def recomputed(self) -> str:
        """What is computed again, in words."""
        partial = self.recompute != "none" and self.recompute_share < 1.0
        where = f" in {100 * self.recompute_share:.0f} % of layers" if partial else ""
        return f"{self.recompute}{where}"

    def but(self, **changes: object) -> TrainingLayout:
        """Return the layout with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]
