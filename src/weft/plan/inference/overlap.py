"""Two-batch overlap: while one half of a batch computes, the other exchanges tokens.

As in DeepSeek-V3's deployment (arXiv:2412.19437, section 3.4): the halves take turns on kernels and
network. Each half reads the weights again, so it pays only where exchanges take longer than that.
"""

from __future__ import annotations

from weft.core.errors import ConfigError
from weft.plan.inference.step import StepModel
from weft.plan.work import Segment, Work


def overlapped_seconds(model: StepModel, work: Work) -> float:
    """Return the seconds of a step whose batch is split in two halves that overlap.

    With ``k`` and ``n`` the kernels' and the network's time of a half, both halves take
    ``max(2k, 2n) + min(k, n)``: the longer stream is busy throughout, the shorter once alone.

    Raises:
        ConfigError: a batch of one sequence has no halves.
    """
    if work.num_sequences < 2:
        raise ConfigError("one sequence cannot be split in two batches", fix="use at least two")
    step = model.cost(_half(work))
    device, launch, _ = step.children
    kernels_s, network_s = (part.seconds for part in device.children)
    host_s = model.cost(work).children[2].seconds
    busy_s = 2.0 * max(kernels_s, network_s) + min(kernels_s, network_s)
    return busy_s + 2.0 * launch.seconds + host_s


def overlap_pays(model: StepModel, work: Work) -> bool:
    """Whether splitting is faster than one batch."""
    return overlapped_seconds(model, work) < model.seconds(work)


def _half(work: Work) -> Work:
    """Return the larger half."""
    segments = tuple(Segment(new, cached, -(-count // 2)) for new, cached, count in work.segments)
    num_logits = None if work.num_logits is None else -(-work.num_logits // 2)
    return Work(segments, work.causal, num_logits)
