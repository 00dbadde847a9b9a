"""The training search against brute force, published layouts, and its errors."""

from __future__ import annotations

from itertools import product

import pytest

from weft.core.errors import ConfigError, ResourceError
from weft.plan.hardware.cluster import Cluster
from weft.plan.layout import TrainingLayout
from weft.plan.ledger import training_ledger
from weft.plan.search.rules import rule
from weft.plan.search.space import TrainingSpace
from weft.plan.search.training import neighbours, search_training, state_bytes
from weft.plan.step_time import step_time
from weft.spec import ModelSpec, zoo

CLUSTER = Cluster.parse("H100x16")
SPACE = TrainingSpace(
    16, 32, 2048, tensors=(1, 2, 4), pipelines=(1, 2, 4), chunks=(1, 2), contexts=(1, 2),
    experts=(1, 2, 8), micro_batches=(1, 2),
)  # fmt: skip


def decoder(name: str) -> ModelSpec:
    spec = zoo.spec(name)
    assert isinstance(spec, ModelSpec)
    return spec


def brute_force(spec: ModelSpec, space: TrainingSpace) -> list[float]:
    """Step times of every layout that obeys the rules and fits, without any pruning."""
    experts = space.experts if spec.family == "mixtral" else (1,)
    times = []
    axes = (
        space.tensors, space.pipelines, space.chunks, space.contexts, experts, space.zeros,
        space.micro_batches, space.recomputes,
    )  # fmt: skip
    for tensor, pipeline, chunks, context, expert, zero, micro, recompute in product(*axes):
        data, rest = divmod(space.num_devices, tensor * pipeline * context)
        if rest:
            continue
        layout = TrainingLayout(
            data=data, tensor=tensor, pipeline=pipeline, chunks=chunks, context=context,
            expert=expert, zero=zero, micro_batch=micro, recompute=recompute,
            global_batch=space.global_batch, length=space.length,
        )  # fmt: skip
        if rule(spec, layout, CLUSTER.devices_per_node):
            continue
        if training_ledger(spec, layout).total <= CLUSTER.device.memory_bytes:
            times.append(step_time(spec, layout, CLUSTER).total_s)
    return sorted(times)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "mixtral-8x7b"])
def test_the_search_finds_what_brute_force_finds(name: str) -> None:
    spec = decoder(name)
    found = search_training(spec, CLUSTER, SPACE, num_best=20)
    times = brute_force(spec, SPACE)
    assert found.num_fitting == len(times)
    assert [one.step_s for one in found.best] == pytest.approx(times[:20])


def test_every_layout_is_either_fitting_or_rejected_for_a_reason() -> None:
    found = search_training(decoder("llama-3.1-8b"), CLUSTER, SPACE)
    assert found.num_tried == found.num_fitting + sum(found.rejected.values())
    assert all(reason for reason in found.rejected)
    assert all(one.binding for one in found.best)


def test_states_alone_never_exceed_the_whole_memory() -> None:
    spec = decoder("mixtral-8x7b")
    for layout, reason in SPACE.cuts(spec, 8):
        if not reason and not rule(spec, layout, 8):
            assert state_bytes(spec, layout) <= training_ledger(spec, layout).total


def test_llama_405b_fits_as_published() -> None:
    # arXiv:2407.21783, table 4 and section 3.3.2: TP8 PP16 on 8,192 GPUs, gradients and optimizer
    # sharded, no recomputation.
    layout = TrainingLayout(data=64, tensor=8, pipeline=16, global_batch=2048, length=8192, zero=2)
    spec = decoder("llama-3.1-405b")
    assert rule(spec, layout, 8) == ""
    assert training_ledger(spec, layout).total <= Cluster.parse("H100").device.memory_bytes


def test_deepseek_v3_fits_as_published() -> None:
    # arXiv:2412.19437, section 3.2: PP16, EP64, ZeRO-1, no tensor parallelism, 2,048 H800.
    layout = TrainingLayout(
        data=128, pipeline=16, expert=64, global_batch=15_360, length=4096, zero=1,
        dtype="float8", recompute="full",
    )  # fmt: skip
    spec = decoder("deepseek-v3")
    assert rule(spec, layout, 8) == ""
    assert training_ledger(spec, layout).total <= Cluster.parse("H800").device.memory_bytes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tensor": 16, "data": 1}, "beyond a node"),
        ({"tensor": 3}, "heads"),
        ({"expert": 2}, "mixture"),
        ({"pipeline": 64}, "stages"),
        ({"chunks": 2}, "interleaving"),
        ({"context": 16, "length": 2048}, "cp"),
        ({"micro_batch": 3}, "micro batches"),
        ({"recompute": "selective"}, "nothing to save"),
    ],
)
def test_impossible_layouts_say_why(changes: dict[str, int], reason: str) -> None:
    layout = TrainingLayout(data=2, global_batch=8).but(**changes)
    assert reason in rule(decoder("llama-3.1-8b"), layout, 8)


def test_a_model_that_fits_nowhere_says_so() -> None:
    with pytest.raises(ResourceError, match="alone exceed") as caught:
        search_training(decoder("llama-3.1-405b"), CLUSTER, SPACE)
    assert "more devices" in str(caught.value)


def test_a_batch_that_nothing_divides_is_no_matter_of_memory() -> None:
    space = TrainingSpace(16, 31, 2048, tensors=(1,), pipelines=(1,), contexts=(1,))
    with pytest.raises(ConfigError, match="no layout is possible"):
        search_training(decoder("llama-3.2-1b"), CLUSTER, space)


def test_neighbours_are_single_changes_fastest_first() -> None:
    layout = TrainingLayout(data=8, tensor=2, global_batch=64, zero=3)
    found = neighbours(decoder("llama-3.1-8b"), layout, CLUSTER)
    times = [one.step_s for one in found]
    assert times == sorted(times)
    assert {one.layout.num_devices for one in found} == {16}
    assert "tp4" in {one.change for one in found}


def test_no_more_layers_are_recomputed_than_memory_asks_for() -> None:
    spec, cluster = decoder("llama-3.1-8b"), Cluster.parse("H100x8")
    space = TrainingSpace(
        8,
        64,
        16384,
        tensors=(1,),
        pipelines=(1,),
        contexts=(1,),
        recomputes=("full",),
        micro_batches=(1,),
    )
    best = search_training(spec, cluster, space).best[0]
    share = best.layout.recompute_share
    assert 1 / 16 < share < 1.0
    less = best.layout.but(recompute_share=share - 1 / 16)
    assert training_ledger(spec, less).total > best.available_bytes >= best.memory_bytes
    whole = best.layout.but(recompute_share=1.0)
    assert best.step_s < step_time(spec, whole, cluster).total_s
