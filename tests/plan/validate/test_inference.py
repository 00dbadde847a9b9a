from __future__ import annotations

import dataclasses

import pytest

from weft.core.errors import ConfigError, DataError
from weft.plan.figure import Figure
from weft.plan.inference.constants import ServingConstants, interval_factor, serving_constants
from weft.plan.validate.inference import (
    InferenceCase,
    read_case,
    read_cases,
)
from weft.plan.validate.inference_fit import (
    KIND_WEIGHTS,
    fit,
    interval_factors,
    leave_one_source_out,
    loss,
)
from weft.plan.validate.rows import INFERENCE_COLUMNS, Row
from weft.plan.validate.table import error_table

BASE = {
    "id": "R1", "source_group": "lab", "model": "Llama-3.1-8B", "hardware": "H100", "gpus": "1",
    "tp": "1", "pp": "1", "dp": "1", "ep": "1", "mode": "static batch", "engine": "TensorRT-LLM",
    "precision": "fp8", "batch": "8", "isl": "128", "osl": "128", "value": "1000", "unit": "tok/s",
    "metric": "output_tok_s_total", "config_complete": "yes",
}  # fmt: skip
CLOSED = {"mode": "aggregated, closed loop", "metric": "tpot_ms", "unit": "ms", "value": "10"}
APART = "disaggregated: prefill 2x(tp1 dp4 ep4 bs1) decode 1x(tp8 dp1 ep8 bs64)"
TRUE = ServingConstants(product_share=0.7, weight_share=0.8, step_s=2e-3)


def row(**changes: str) -> Row:
    return Row(2, {**dict.fromkeys(INFERENCE_COLUMNS, ""), **BASE, **changes})


def made_up_cases() -> list[InferenceCase]:
    """Rows whose values the model itself made, with other constants than it starts from."""
    cases = []
    for source in ("one", "two", "three"):
        for batch in ("1", "16", "64"):
            for mode, metric, unit in (
                ("static batch", "output_tok_s_total", "tok/s"),
                ("aggregated, closed loop", "tpot_ms", "ms"),
                ("aggregated, closed loop", "ttft_ms", "ms"),
            ):
                for prompt in ("128", "2048"):
                    case = read_case(
                        row(
                            source_group=source, batch=batch, mode=mode, metric=metric, unit=unit,
                            isl=prompt,
                        )
                    )  # fmt: skip
                    value = str(case.predict(TRUE))
                    values = {**case.row.values, "value": value}
                    cases.append(dataclasses.replace(case, row=Row(2, values)))
    return cases


def test_kinds_of_measurements_are_told_apart():
    assert read_case(row()).kind == "static"
    queued = row(mode="aggregated", batch="max load, all requests queued")
    assert read_case(queued).kind == "max load"
    assert read_case(row(**CLOSED)).kind == "closed loop tpot"
    assert read_case(row(**CLOSED | {"mode": APART})).kind == "disaggregated tpot"
    with pytest.raises(DataError, match="line 2"):
        read_case(row(metric="latency_us", mode="dispatch"))


def test_software_fills_in_what_the_row_leaves_out():
    assert read_case(row()).deployment.storage.kv == "float8"
    assert read_case(row(engine="vllm")).deployment.storage.kv == "bfloat16"
    assert read_case(row(kv_precision="fp16")).deployment.storage.kv == "bfloat16"
    assert read_case(row(engine="sglang 0.5")).traffic().prompts_first
    assert not read_case(row(engine="vllm")).traffic().prompts_first


def test_engines_differ_in_how_prompts_reach_their_steps():
    engines = ("vllm", "sglang 0.5", "trtllm 1.2")
    cases = [read_case(row(engine=engine, hardware="B200", **CLOSED)) for engine in engines]
    compiled = [c.step_model(c.deployment, ServingConstants()).compiled for c in cases]
    assert compiled == [True, False, False]
    assert [c.traffic().prompts_together for c in cases] == [False, False, True]
    assert [c.traffic().max_tokens_per_step for c in cases] == [8192, 16_384, 8192]
    small = read_case(row(engine="sglang 0.5", hardware="H200", **CLOSED))
    assert small.traffic().max_tokens_per_step == 8192


def test_four_bits_of_a_mixture_are_its_experts():
    case = read_case(row(model="gpt-oss-120b", precision="fp4", hardware="B200"))
    assert (case.deployment.storage.ffn, case.deployment.storage.mixer) == ("float4", "bfloat16")
    dense = read_case(row(precision="nvfp4", hardware="B200"))
    assert dense.deployment.storage.mixer == "float4"


def test_data_parallel_attention_lies_inside_the_tensor_group():
    case = read_case(row(model="Qwen3-235B-A22B", gpus="8", tp="8", dp="8", ep="8"))
    assert (case.deployment.tensor, case.deployment.data) == (1, 8)


def test_pools_are_read_from_the_mode():
    case = read_case(
        row(**CLOSED | {"mode": APART, "model": "DeepSeek-V3", "hardware": "B200", "gpus": "16"})
    )
    (num_prefill, prefill), (num_decode, decode) = case.pools
    assert (num_prefill, prefill.data, prefill.expert) == (2, 4, 4)
    assert (num_decode, decode.tensor, decode.expert) == (1, 8, 8)
    assert 1.0 < case.predict(ServingConstants()) < 1000.0


def test_predictions_come_in_the_row_s_unit():
    rate = read_case(row())
    per_device = read_case(row(metric="output_tok_s_per_gpu", gpus="2", tp="2"))
    total = read_case(row(gpus="2", tp="2"))
    assert total.predict() == pytest.approx(2 * per_device.predict())
    assert rate.predict() > 100
    assert 1.0 < read_case(row(**CLOSED)).predict() < 100.0


def test_rows_that_say_too_little_are_left_out_with_a_reason():
    rows = [
        row(id="a"),
        row(id="b", config_complete="partial (osl unknown)"),
        row(id="c", model="Nobody-9B"),
        row(id="d", notes="Outlier: exclude from headline error"),
        row(id="e", model="Llama-3.1-405B", precision="bf16"),
    ]
    cases, skipped = read_cases(rows)
    assert [(case.row.id, case.compare().complete) for case in cases] == [("a", True), ("b", False)]
    assert set(skipped) == {"c", "d", "e"}
    assert "Nobody-9B" in skipped["c"]


def test_a_figure_carries_its_interval():
    figure = read_case(row()).figure()
    assert figure.low == pytest.approx(figure.value / interval_factor("static"))
    assert figure.grade == "fit"
    assert interval_factor("something else") >= interval_factor("static")


def test_shipped_constants_are_physical():
    constants = serving_constants()
    for name, value in vars(constants).items():
        assert value > 0.0, name
        if name.endswith("_share"):
            assert value <= 1.2, name


def test_a_fit_finds_constants_that_explain_the_rows():
    cases = [case for case in made_up_cases() if case.row.source == "one"]
    found = fit(cases, max_rounds=4)
    before, after = (
        sum(abs(case.compare(c).error) for case in cases) / len(cases)
        for c in (ServingConstants(), found)
    )
    assert before > 0.1
    assert after < 0.5 * before
    assert loss(cases, found) < loss(cases, ServingConstants())


def test_a_source_left_out_is_predicted_from_the_others():
    cases = [case for case in made_up_cases() if case.kind == "static"]
    found = leave_one_source_out(cases, max_rounds=3)
    assert len(found) == len(cases)
    assert max(abs(one.error) for one in found) < 0.15


def test_rows_make_the_error_table():
    table = error_table(case.compare(TRUE) for case in made_up_cases())
    line = table.headline("static")
    assert line.num_rows == 18
    assert line.median == pytest.approx(0.0, abs=1e-9)
    assert line.coverage == 1.0
    assert {line.quantity for line in table.lines} <= set(KIND_WEIGHTS)
    assert "Llama-3.1-8B on 1 H100" in table.worst[0].explanation


def test_intervals_hold_the_share_asked_for():
    case = read_case(row(value="1000"))
    figures = [Figure.within(1000.0 * (1 + i / 100), 1.2, "tok/s", "fit") for i in range(101)]
    compared = [dataclasses.replace(case.compare(), predicted=figure) for figure in figures]
    assert interval_factors(compared, coverage=0.8)["static"] == pytest.approx(1.8)


def test_rows_without_a_known_kind_teach_nothing():
    with pytest.raises(ConfigError, match="no row"):
        loss([], ServingConstants())
