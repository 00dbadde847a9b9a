"""Inference rows: from a published configuration to a prediction, and how good predictions are.

What a row leaves out is filled in by what its software does by default: the type of the cache, and
whether prompts stop decoding. Nothing depends on where a row comes from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from weft.core.errors import DataError, WeftError
from weft.plan.figure import Figure
from weft.plan.hardware.cluster import Cluster
from weft.plan.inference.constants import ServingConstants, interval_factor, serving_constants
from weft.plan.inference.deployment import Deployment, Storage
from weft.plan.inference.disaggregate import Disaggregated, estimate_disaggregated
from weft.plan.inference.load import Traffic, estimate_closed_loop, estimate_max_load
from weft.plan.inference.static import estimate_static
from weft.plan.inference.step import StepModel
from weft.plan.models import public_model
from weft.plan.validate.rows import Row
from weft.plan.validate.table import Comparison
from weft.spec import ModelSpec, MoESpec

Kind = str
"""What is predicted: "static", "max load", "closed loop tpot", "closed loop ttft", ..."""

_STATIC_MODES = ("static batch", "decode", "prefill only")
_CACHE = {"fp8": "float8", "fp16": "bfloat16", "bf16": "bfloat16"}
_HARDWARE = {"RTXPRO6000": "RTX-PRO-6000", "GH200-144GB": "GH200"}
_WORKER = re.compile(
    r"(?P<count>\d+)x\(tp(?P<tensor>\d+) dp(?P<data>\d+) ep(?P<expert>\d+) bs(?P<batch>\d+)\)"
)


@dataclass(frozen=True)
class InferenceCase:
    """One inference row, read.

    Attributes:
        row: The line.
        spec: The model.
        kind: What is measured.
    """

    row: Row
    spec: ModelSpec
    kind: Kind

    @property
    def measured(self) -> float:
        """The measurement in the row's own unit."""
        return self.row.number("value")

    def predict(self, constants: ServingConstants | None = None) -> float:
        """Return the prediction in the row's own unit.

        Raises:
            WeftError: the configuration cannot be or does not fit.
        """
        constants = constants or serving_constants()
        predict = _STATIC if self.row["mode"] in _STATIC_MODES else _LOADED
        return predict(self, constants)[self.row["metric"]] * _unit(self.row)

    def figure(self, constants: ServingConstants | None = None) -> Figure:
        """Return the prediction with its 80 % interval."""
        factor = interval_factor(self.kind)
        return Figure.within(self.predict(constants), factor, self.row["unit"], "fit")

    def compare(self, constants: ServingConstants | None = None) -> Comparison:
        """Return prediction and measurement side by side, for the error table."""
        row = self.row
        return Comparison(
            id=row.id,
            source=row.source,
            quantity=self.kind,
            predicted=self.figure(constants),
            measured=self.measured,
            complete=row.is_complete,
            explanation=f"{row['model']} on {row['gpus']} {row['hardware']}, {row['engine']}, "
            f"{row['precision']}, batch {row['batch']}, {row['isl']} + {row['osl']} tokens",
        )

    @cached_property
    def deployment(self) -> Deployment:
        """What the row ran on, if prompts and outputs share it."""
        row = self.row
        tensor, data = row.integer("tp", 1), row.integer("dp", 1)
        pipeline, num_devices = row.integer("pp", 1), row.integer("gpus")
        if tensor * data * pipeline != num_devices and tensor * pipeline == num_devices:
            tensor //= data  # data-parallel attention inside the tensor group
        return self._deploy(num_devices, tensor, data, row.integer("ep", 1), pipeline)

    @cached_property
    def pools(self) -> tuple[tuple[int, Deployment], tuple[int, Deployment]]:
        """Number and deployment of prefill and of decode workers."""
        workers = [
            {key: int(value) for key, value in match.groupdict().items()}
            for match in _WORKER.finditer(self.row["mode"])
        ]
        if len(workers) != 2:
            raise DataError(f"line {self.row.line}: mode {self.row['mode']!r} names no two pools")
        found = [
            (w["count"], self._deploy(w["tensor"] * w["data"], w["tensor"], w["data"], w["expert"]))
            for w in workers
        ]
        return found[0], found[1]

    def traffic(self) -> Traffic:
        """Return what every request looks like."""
        row = self.row
        engine = row["engine"].lower()
        return Traffic(
            row.integer("isl"),
            row.integer("osl"),
            max_tokens_per_step=self._tokens_per_step(),
            prompts_first="sglang" in engine,
            prompts_together=_is_tensorrt(engine),
        )

    def _tokens_per_step(self) -> int:
        """Return the engine's default budget; SGLang's doubles on devices of 160 GB and more."""
        device = _cluster(self.row, 1).device
        large = "sglang" in self.row["engine"].lower() and device.memory_bytes >= 160e9
        return 16_384 if large else 8192

    def step_model(self, deployment: Deployment, constants: ServingConstants) -> StepModel:
        """Return how long an engine's steps take; newer engines run prompts from PyTorch."""
        engine = self.row["engine"].lower()
        eager = any(name in engine for name in ("sglang", "trtllm", "pytorch"))
        return StepModel(deployment, constants, compiled=not eager)

    def _deploy(
        self, num_devices: int, tensor: int, data: int, expert: int, pipeline: int = 1
    ) -> Deployment:
        return Deployment(
            self.spec,
            _cluster(self.row, num_devices),
            tensor=tensor,
            data=data,
            pipeline=pipeline,
            expert=max(1, expert),
            storage=_storage(self.row, self.spec),
        )


def read_case(row: Row) -> InferenceCase:
    """Read one row.

    Raises:
        DataError: a kind of measurement that is not predicted here.
        ConfigError: an unknown model or device.
    """
    return InferenceCase(row, public_model(row["model"]), _kind(row))


def read_cases(rows: Iterable[Row]) -> tuple[list[InferenceCase], dict[str, str]]:
    """Read all rows that can be predicted; return them and, by id, why others are left out."""
    cases, skipped = [], {}
    for row in rows:
        if "exclude from headline error" in row["notes"]:
            skipped[row.id] = "its source marks it as an outlier"
        else:
            try:
                case = read_case(row)
                case.predict(_PLAIN)
                cases.append(case)
            except WeftError as error:
                skipped[row.id] = str(error).splitlines()[0]
    return cases, skipped


_PLAIN = ServingConstants()


def _kind(row: Row) -> Kind:
    mode, batch = row["mode"], row["batch"]
    if mode in _STATIC_MODES:
        return "static"
    if batch.startswith(("max load", "offline")):
        return "max load"
    words = {"ttft_ms": "ttft", "tpot_ms": "tpot", "output_tok_s_total": "throughput"}
    if batch.isdigit() and row["metric"] in words:
        loop = "disaggregated" if mode.startswith("disaggregated:") else "closed loop"
        return f"{loop} {words[row['metric']]}"
    raise DataError(f"line {row.line}: {row['metric']} of {mode!r} is not predicted")


def _storage(row: Row, spec: ModelSpec) -> Storage:
    precision, engine = row["precision"], row["engine"].lower()
    kind = precision.split()[0]
    own = _is_tensorrt(engine)  # quantises the cache with the weights
    narrow = own and kind in ("fp8", "fp4", "nvfp4")
    kv = _CACHE.get(row["kv_precision"], "float8" if narrow else "bfloat16")
    if kind in ("bf16", "fp16"):
        return Storage(kv=kv)
    stored = {"fp8": "float8", "int8": "int8", "int4": "int4"}.get(kind, "float4")
    # Four-bit checkpoints of mixtures store the experts so, and the rest as it was.
    experts_only = stored in ("int4", "float4") and _has_experts(spec)
    mixer = "bfloat16" if experts_only else stored
    return Storage(ffn=stored, mixer=mixer, kv=kv, weights_only=kind.startswith("int"))


def _cluster(row: Row, num_devices: int) -> Cluster:
    name = re.sub(r"\(.*?\)", "", row["hardware"]).split("+")[0].strip()
    return Cluster.of(_HARDWARE.get(name, name), num_devices)


def _is_tensorrt(engine: str) -> bool:
    return "trt" in engine or "tensorrt" in engine


def _has_experts(spec: ModelSpec) -> bool:
    return any(isinstance(layer.ffn, MoESpec) for layer in spec.layers)


def _unit(row: Row) -> float:
    return 1e3 if row["unit"] == "ms" else 1.0


def _static(case: InferenceCase, constants: ServingConstants) -> Mapping[str, float]:
    row, model = case.row, StepModel(case.deployment, constants, host="loop")
    estimate = estimate_static(
        model,
        batch=row.integer("batch"),
        num_prompt_tokens=row.integer("isl"),
        num_output_tokens=row.integer("osl"),
    )
    rate = estimate.output_tokens_per_s
    return {
        "ttft_ms": estimate.prefill_s,
        "tpot_ms": estimate.decode_step_s,
        "tok_s_per_user": 1.0 / estimate.decode_step_s,
        "output_tok_s_total": rate,
        "output_tok_s_per_gpu": rate / case.deployment.cluster.num_devices,
    }


def _loaded(case: InferenceCase, constants: ServingConstants) -> Mapping[str, float]:
    if case.kind.startswith("disaggregated"):
        return _disaggregated(case, constants)
    model = case.step_model(case.deployment, constants)
    if case.kind == "max load":
        estimate = estimate_max_load(model, case.traffic())
    else:
        clients = case.row.integer("batch")
        estimate = estimate_closed_loop(model, case.traffic(), num_clients=clients)
    return {
        "ttft_ms": estimate.ttft_s,
        "tpot_ms": estimate.tpot_s,
        "output_tok_s_total": estimate.output_tokens_per_s,
    }


def _disaggregated(case: InferenceCase, constants: ServingConstants) -> Mapping[str, float]:
    (num_prefill, prefill), (num_decode, decode) = case.pools
    pools = Disaggregated(
        case.step_model(prefill, constants),
        num_prefill,
        case.step_model(decode, constants),
        num_decode,
        prefill.cluster.scale_out,
    )
    clients = case.row.integer("batch")
    estimate = estimate_disaggregated(pools, case.traffic(), num_clients=clients)
    return {
        "ttft_ms": estimate.ttft_s,
        "tpot_ms": estimate.tpot_s,
        "output_tok_s_total": estimate.output_tokens_per_s,
    }


_Predict = Callable[[InferenceCase, ServingConstants], Mapping[str, float]]
_STATIC: _Predict = _static
_LOADED: _Predict = _loaded
