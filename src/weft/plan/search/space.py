"""All training layouts of a number of devices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from weft.core.errors import ConfigError
from weft.plan.layout import Recompute, TrainingLayout
from weft.plan.search.rules import expert_count, tensor_rule
from weft.plan.zero import ZeroStage
from weft.spec import ModelSpec


@dataclass(frozen=True)
class TrainingSpace:
    """What is tried.

    Attributes:
        num_devices: All of them are used.
        global_batch: Sequences per step, the same for every layout.
        length: Tokens of a sequence.
        dtype: Of matrix products.
        tensors: Sizes of tensor parallelism.
        pipelines: Sizes of pipeline parallelism.
        chunks: Stages per pipeline rank.
        contexts: Sizes of context parallelism.
        experts: Sizes of expert parallelism; only of mixtures of experts.
        zeros: Stages of ZeRO.
        micro_batches: Sequences per forward pass.
        recomputes: What the backward pass computes again.
    """

    num_devices: int
    global_batch: int
    length: int = 4096
    dtype: str = "bfloat16"
    tensors: tuple[int, ...] = (1, 2, 4, 8)
    pipelines: tuple[int, ...] = (1, 2, 4, 8, 12, 16, 24, 32, 64)
    chunks: tuple[int, ...] = (1, 2, 4, 8)
    contexts: tuple[int, ...] = (1, 2, 4, 8, 16)
    experts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    zeros: tuple[ZeroStage, ...] = (1, 2, 3)
    micro_batches: tuple[int, ...] = (1, 2, 4, 8)
    recomputes: tuple[Recompute, ...] = ("none", "selective", "full")

    def __post_init__(self) -> None:
        if min(self.num_devices, self.global_batch, self.length) < 1:
            raise ConfigError(
                f"{self.num_devices} devices, a batch of {self.global_batch} sequences of "
                f"{self.length} tokens",
                fix="give at least one of each",
            )

    def cuts(self, spec: ModelSpec, devices_per_node: int) -> Iterator[tuple[TrainingLayout, str]]:
        """Yield every combination of degrees with micro batch 1, or why it is impossible.

        What depends on micro batch and recomputation is left to ``variants``.
        """
        experts = self.experts if expert_count(spec) else (1,)
        axes = (self.tensors, self.pipelines, self.contexts, self.chunks, experts, self.zeros)
        for tensor, pipeline, context, chunks, expert, zero in product(*axes):
            cut = tensor * pipeline * context
            if self.num_devices % cut:
                continue
            layout = TrainingLayout(
                data=self.num_devices // cut,
                tensor=tensor,
                pipeline=pipeline,
                chunks=chunks,
                context=context if self.length % context == 0 else 1,
                expert=expert,
                global_batch=self.global_batch,
                length=self.length,
                zero=zero,
                dtype=self.dtype,
            )
            if layout.context != context:
                continue
            yield layout, tensor_rule(spec, tensor, devices_per_node)

    def variants(self, layout: TrainingLayout) -> Iterator[TrainingLayout]:
        """Yield a layout with every micro batch and recomputation."""
        for micro, recompute in product(self.micro_batches, self.recomputes):
            yield layout.but(micro_batch=micro, recompute=recompute)
