from __future__ import annotations

import dataclasses

import pytest

from tests.plan.inference.support import FP8, make_model
from weft.core.errors import ConfigError
from weft.plan.inference.overlap import overlap_pays, overlapped_seconds
from weft.plan.inference.step import StepModel
from weft.plan.work import Work


def wide_ep() -> StepModel:
    return make_model("DeepSeek-V3", "H800", 32, storage=FP8, data=32, expert=32)


def test_overlap_pays_for_long_prompts_over_a_slow_network_and_not_for_few_tokens():
    """W10: 32-way experts across nodes."""
    assert overlap_pays(wide_ep(), Work.prefill(8, 4096))
    assert not overlap_pays(wide_ep(), Work.decode(2, 1000))


def test_an_overlapped_step_is_never_shorter_than_its_network_or_its_kernels():
    model, work = wide_ep(), Work.prefill(8, 4096)
    kernels, network = model.cost(Work.prefill(4, 4096)).children[0].children
    assert overlapped_seconds(model, work) > 2 * max(kernels.seconds, network.seconds)


def test_without_a_network_splitting_only_costs():
    model = make_model("Llama-3.1-8B")
    assert not overlap_pays(model, Work.decode(64, 1000))


def test_one_sequence_cannot_be_split():
    with pytest.raises(ConfigError, match="one sequence"):
        overlapped_seconds(wide_ep(), dataclasses.replace(Work.decode(1, 10)))
