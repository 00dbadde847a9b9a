from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.inference.support import FP8, make_model
from weft.plan.cost import Cost
from weft.plan.hardware.catalogue import device
from weft.plan.hardware.cluster import Cluster
from weft.plan.inference.constants import ServingConstants
from weft.plan.inference.deployment import Deployment, Storage
from weft.plan.inference.step import StepModel, plan_work, step_collectives, step_ops
from weft.plan.models import public_model
from weft.plan.simulate import Arrival, simulate
from weft.plan.work import Segment, Work
from weft.sched.config import SchedulerConfig
from weft.sched.plan import StepItem, StepPlan


def leaves(cost: Cost) -> list[Cost]:
    return [leaf for child in cost.children for leaf in leaves(child)] or [cost]


def flops(model: StepModel, work: Work) -> Counter[str]:
    found: Counter[str] = Counter()
    for op in step_ops(model.deployment, work):
        found[op.name] += op.total_flops
    return found


def names(model: StepModel, work: Work) -> dict[str, str]:
    return {leaf.name: leaf.bound for leaf in leaves(model.cost(work))}


def test_decode_reads_weights_and_prefill_multiplies_them():
    model = make_model()
    assert names(model, Work.decode(1, 128))["up"] == "memory"
    assert names(model, Work.prefill(1, 4096))["up"] == "compute"


def test_a_batch_of_one_is_the_bandwidth_bound_of_the_weights():
    model = make_model(hardware="H200")
    weights_s = 2 * (public_8b_weights() - 128256 * 4096) / 4.8e12
    assert 1.0 < model.seconds(Work.decode(1, 128)) / weights_s < 2.0


def public_8b_weights() -> float:
    return 8.03e9


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["Llama-3.1-8B", "Qwen3-30B-A3B", "gpt-oss-20b"]),
    batch=st.integers(1, 64),
    context=st.integers(1, 4000),
    more=st.integers(1, 500),
)
def test_more_work_never_takes_less(name, batch, context, more):
    model = make_model(name)
    base = model.seconds(Work.decode(batch, context))
    assert model.seconds(Work.decode(batch + more, context)) >= base
    assert model.seconds(Work.decode(batch, context + more)) >= base
    prompt = model.seconds(Work.prefill(1, context))
    assert model.seconds(Work.prefill(1, context + more)) >= prompt


def test_children_add_up_to_the_step():
    cost = make_model("Qwen3-30B-A3B", num_devices=2).cost(Work.prefill(2, 300))
    assert sum(leaf.seconds for leaf in leaves(cost)) == pytest.approx(cost.seconds)
    assert sum(leaf.flops for leaf in leaves(cost)) == pytest.approx(cost.flops)


def test_twice_the_bandwidth_never_slows():
    spec = public_model("Llama-3.1-8B")
    slow = device("H100")
    fast = dataclasses.replace(slow, memory_bandwidth=2 * slow.memory_bandwidth)
    steps = [
        StepModel(Deployment(spec, Cluster.of(hardware, 1)), ServingConstants()).seconds(
            Work.decode(8, 1000)
        )
        for hardware in (slow, fast)
    ]
    assert steps[1] < steps[0]


def test_one_device_exchanges_nothing():
    assert step_collectives(make_model().deployment, Work.decode(1, 1)) == ()


def test_tensor_parallel_layers_sum_twice():
    model = make_model("Llama-3.1-8B", num_devices=4)
    sums = step_collectives(model.deployment, Work.decode(16, 100))
    assert {(one.name, one.count) for one in sums} == {
        ("attention sum", 32), ("feed-forward sum", 32),
    }  # fmt: skip
    assert all(one.num_bytes == 16 * 4096 * 2 for one in sums)


def test_data_parallel_experts_dispatch_and_combine():
    model = make_model("DeepSeek-V3", "H200", 8, storage=FP8, data=8, expert=8)
    found = {one.name: one for one in step_collectives(model.deployment, Work.decode(16, 100))}
    assert found["combine"].num_bytes == 2 * found["dispatch"].num_bytes
    assert found["dispatch"].count == 58
    # A token's eight experts lie on 5.25 of 8 devices on average.
    assert found["dispatch"].num_bytes == pytest.approx(16 * 7168 * 8 * (1 - (7 / 8) ** 8))
    assert "feed-forward sum" not in found


def test_prompts_beside_latent_decoding_do_not_expand_its_cache():
    model = make_model("DeepSeek-V3", "B200", 8, storage=FP8)
    decode, prompt = Segment(1, 8000, 64), Segment(512, 0)
    mixed, alone = (flops(model, Work(work)) for work in ((decode, prompt), (prompt,)))
    assert mixed["latent up"] == alone["latent up"]
    assert mixed["absorb"] > 0.0


def test_experts_may_be_stored_in_fewer_bits_than_attention():
    storage = Storage(ffn="float4", mixer="bfloat16")
    model = make_model("gpt-oss-120b", "B200", storage=storage)
    dtypes = {op.name: op.dtype for op in step_ops(model.deployment, Work.decode(1, 10))}
    assert dtypes["experts up"] == "float4"
    assert dtypes["qkv"] == "bfloat16"


def test_a_small_batch_touches_few_experts():
    model = make_model("Qwen3-30B-A3B", "H200")
    few, many = (
        sum(
            op.memory_bytes
            for op in step_ops(model.deployment, Work.decode(batch, 10))
            if op.name == "experts up"
        )
        for batch in (1, 64)
    )
    assert 10 * few < many < 16 * few  # 8 of 128 experts, then nearly all


def test_launching_weighs_on_short_prompts_and_not_on_graphs():
    model = make_model("Llama-3.1-8B", hardware="B200")
    costs = [model.cost(Work.prefill(1, num)) for num in (16, 16_384)]
    shares = [cost.children[1].seconds / cost.seconds for cost in costs]
    assert costs[0].children[1].name == "launch"
    assert shares[0] > 0.3 > 0.05 > shares[1]
    assert model.cost(Work.decode(1, 16)).children[1].seconds == 0.0


def test_launches_that_are_not_compiled_show_in_short_prompts_only():
    model = make_model("DeepSeek-V3", "H200", 8, storage=FP8)
    eager = dataclasses.replace(model, compiled=False)

    def ratio(work: Work) -> float:
        return eager.seconds(work) / model.seconds(work)

    assert ratio(Work.prefill(1, 256)) > 1.4 > 1.1 > ratio(Work.prefill(8, 4096)) > 1.0
    assert ratio(Work.decode(8, 256)) == 1.0
    assert eager.under_load() == model


def test_a_schedule_becomes_work_with_like_sequences_together():
    items = (
        StepItem(0, (7,), 99, (), True),
        StepItem(1, (7,), 101, (), True),
        StepItem(2, (1, 2, 3), 0, (), False),
    )
    work = plan_work(StepPlan(0, items))
    assert work.segments == (Segment(1, 96, 2), Segment(3, 0, 1))
    assert work.num_logits == 2


def test_the_step_model_drives_the_simulator():
    config = SchedulerConfig(num_blocks=2000, max_context=4096)
    model = make_model("Llama-3.1-8B")
    run = simulate([Arrival(0.0, 512, 20)] * 8, scheduler=config, step_time=model)
    decode_s = model.seconds(Work.decode(8, 520))
    assert run.percentile("tpot_s", 50) == pytest.approx(decode_s, rel=0.3)
