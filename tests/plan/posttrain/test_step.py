"""Steps of GRPO: shared devices add up, split ones overlap."""

from __future__ import annotations

import pytest

from weft.core.errors import ConfigError, ResourceError
from weft.plan.hardware.cluster import Cluster
from weft.plan.inference.deployment import Deployment
from weft.plan.inference.step import StepModel
from weft.plan.layout import TrainingLayout
from weft.plan.models import public_model
from weft.plan.posttrain.step import PolicyStep, PolicyWork, colocated_step, split_step
from weft.plan.step_time import step_time
from weft.plan.workload.lengths import FixedLength

SPEC = public_model("qwen3-8b")
LAYOUT = TrainingLayout(data=8, zero=3, recompute="full", gradient_bytes=2.0)
WORK = PolicyWork(
    num_prompts=64, group_size=8, num_prompt_tokens=512, outputs=FixedLength(1024), num_scorings=2
)


def replica(hardware: str = "H100") -> StepModel:
    return StepModel(Deployment(SPEC, Cluster.parse(hardware)))


@pytest.fixture(scope="module")
def shared() -> PolicyStep:
    return colocated_step(SPEC, WORK, LAYOUT, Cluster.parse("H100x8"), replica())


def test_shared_devices_do_one_thing_after_the_other(shared: PolicyStep):
    parts = shared.rollout_s.value + shared.scoring_s.value + shared.training_s.value
    assert shared.total_s.value == pytest.approx(parts + shared.reward_s + shared.switch_s)
    assert shared.total_s.low < shared.total_s.value < shared.total_s.high
    assert shared.num_tokens == 512 * (512 + 1024)


def test_training_is_the_step_of_the_trainer(shared: PolicyStep):
    layout = LAYOUT.but(length=1536, global_batch=512)
    cluster = Cluster.parse("H100x8")
    assert shared.training_s.value == pytest.approx(step_time(SPEC, layout, cluster).total_s)
    # Two forward passes beside training, which is forward, backward and forward again.
    assert 0.3 < shared.scoring_s.value / shared.training_s.value < 0.7


def test_more_updates_cut_the_batch_not_the_work(shared: PolicyStep):
    work = PolicyWork(
        num_prompts=64, group_size=8, num_prompt_tokens=512, outputs=FixedLength(1024),
        num_updates=4, num_scorings=2,
    )  # fmt: skip
    found = colocated_step(SPEC, work, LAYOUT, Cluster.parse("H100x8"), replica())
    assert found.training_s.value == pytest.approx(shared.training_s.value, rel=0.1)
    assert found.training_s.value > shared.training_s.value


def test_split_devices_overlap_one_step_off_policy():
    def split(overlap: bool) -> PolicyStep:
        trainer = Cluster.parse("H100x8")
        return split_step(
            SPEC, WORK, LAYOUT, trainer, replica(), num_rollout_devices=4, overlap=overlap
        )

    ahead, waiting = split(True), split(False)
    learnt = ahead.scoring_s.value + ahead.training_s.value
    longer = max(ahead.rollout_s.value + ahead.reward_s, learnt)
    assert ahead.total_s.value == pytest.approx(longer + ahead.switch_s)
    assert waiting.total_s.value == pytest.approx(ahead.rollout_s.value + learnt + ahead.switch_s)
    assert max(ahead.busy.values()) > 0.95
    assert ahead.num_devices == 12


def test_twice_the_rollout_devices_halve_a_full_rollout():
    work = PolicyWork(
        num_prompts=512, group_size=16, num_prompt_tokens=512, outputs=FixedLength(2048)
    )
    few, many = (
        split_step(
            SPEC, work, LAYOUT, Cluster.parse("H100x8"), replica(), num_rollout_devices=count
        ).rollout_s.value
        for count in (4, 8)
    )
    assert few / many == pytest.approx(2.0, rel=0.1)


def test_replicas_must_divide_the_devices():
    with pytest.raises(ConfigError, match="do not divide 6 devices"):
        split_step(
            SPEC, WORK, LAYOUT, Cluster.parse("H100x8"),
            StepModel(Deployment(SPEC, Cluster.parse("H100x4"), tensor=4)),
            num_rollout_devices=6,
        )  # fmt: skip


def test_training_that_does_not_fit_is_refused():
    plain = LAYOUT.but(zero=0, recompute="none", gradient_bytes=4.0)
    with pytest.raises(ResourceError, match="more than"):
        colocated_step(SPEC, WORK, plain, Cluster.parse("H100x8"), replica())


@pytest.mark.parametrize("changes", [{"num_updates": 3}, {"group_size": 0}, {"reward_s": -1.0}])
def test_impossible_work_says_why(changes: dict[str, int]):
    fields = {"num_prompts": 4, "group_size": 4, "num_prompt_tokens": 8}
    with pytest.raises(ConfigError):
        PolicyWork(**{**fields, "outputs": FixedLength(8), **changes})
