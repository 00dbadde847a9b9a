"""From what a person types to what the planner takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from weft.cli.model import resolve
from weft.cli.plan.options import DeploymentOptions, LayoutOptions, TrafficOptions
from weft.core.errors import ConfigError, UnsupportedError, did_you_mean
from weft.plan.calibration import THIS_MACHINE, Calibration, load_calibration
from weft.plan.hardware.cluster import Cluster
from weft.plan.inference.deployment import Deployment, Storage
from weft.plan.inference.load import Traffic
from weft.plan.layout import Recompute, TrainingLayout
from weft.plan.models import model_names, public_model
from weft.plan.ops import ELEMENT_BYTES
from weft.spec import ModelSpec, zoo

_SCALES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0}
_NUMBER = r"\s*(?P<number>[\d.]+(?:e[+-]?\d+)?)\s*"
_COUNT = r"\s*[x×*]\s*(\d+)\s*$"
# Per number with its scales; four bits are quantised twice (QLoRA).
_WEIGHT_BYTES = {16: 2.0, 8: 1.03125, 4: 0.5625}
# Four-bit weights of mixtures of experts are the experts'; attention keeps its type.
_FOUR_BITS = ("int4", "float4")


def model_of(text: str) -> tuple[str, ModelSpec]:
    """Return name and specification of a known name, a folder or a config.json.

    Raises:
        ConfigError: no such model; the nearest is named.
        UnsupportedError: a model without a decoder alone.
    """
    if text.lower() in {name.lower() for name in model_names()} - set(zoo.names()):
        return text.lower(), public_model(text)
    name, spec = resolve(text)
    if not isinstance(spec, ModelSpec):
        raise UnsupportedError(
            f"{name} is no decoder-only model", fix="plan decoders: weft model list shows them"
        )
    return name, spec


def cluster_of(text: str) -> Cluster:
    """Return "H100x64", "this-machine" or a calibration file as a cluster.

    Raises:
        ConfigError: no such device; the nearest are listed.
    """
    calibration = calibration_of(text)
    if calibration is None:
        return Cluster.parse(text)
    count = re.search(_COUNT, text)
    return Cluster.of(calibration.hardware, int(count[1]) if count else 1)


def calibration_of(text: str) -> Calibration | None:
    """Return the calibration that hardware in words names; none if it is of the catalogue."""
    name = re.split(_COUNT, text)[0].strip()
    if name != THIS_MACHINE and not name.endswith(".json"):
        return None
    return load_calibration(None if name == THIS_MACHINE else Path(name))


def count_of(text: str) -> float:
    """Return "2T", "512k" or "1e12" as a number.

    >>> count_of("2T"), count_of("1e9")
    (2000000000000.0, 1000000000.0)

    Raises:
        ConfigError: not a number above 0.
    """
    match = re.fullmatch(_NUMBER + r"(?P<scale>[KMBGTPE]?)", text, re.IGNORECASE)
    value = _float(match["number"]) * _SCALES[match["scale"].upper()] if match else 0.0
    if value <= 0.0:
        raise ConfigError(f"{text!r} is no count", fix="write 2T, 500B, 64k or 1e12")
    return value


def seconds_of(text: str) -> float:
    """Return "300ms", "1.5s" or "20us" in seconds.

    Raises:
        ConfigError: not a time above 0.
    """
    match = re.fullmatch(_NUMBER + r"(?P<scale>us|ms|s|)", text)
    value = _float(match["number"]) * _TIMES[match["scale"]] if match else 0.0
    if value <= 0.0:
        raise ConfigError(f"{text!r} is no time", fix="write 300ms, 1.5s or 20us")
    return value


def limits_of(text: str) -> dict[str, float]:
    """Return "ttft=300ms,tpot=10ms" as seconds by name; empty text promises nothing.

    Raises:
        ConfigError: an unknown name or no time.
    """
    limits = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name.strip() not in ("ttft", "tpot", "latency"):
            raise ConfigError(
                f"no service level is called {name!r}", fix="write ttft=300ms,tpot=10ms"
            )
        limits[f"{name.strip()}_s"] = seconds_of(value.strip())
    return limits


def layout_of(options: LayoutOptions, num_devices: int) -> TrainingLayout:
    """Return a training layout over so many devices.

    Raises:
        ConfigError: the degrees do not divide the devices, or a word is unknown.
    """
    cut = options.tp * options.pp * options.cp
    if cut < 1 or num_devices % cut:
        raise ConfigError(
            f"tp {options.tp} x pp {options.pp} x cp {options.cp} = {cut} does not divide "
            f"{num_devices} devices",
            fix=f"choose degrees whose product divides {num_devices}",
        )
    _known("recompute", options.recompute, get_args(Recompute))
    _known("dtype", options.dtype, ELEMENT_BYTES)
    _known("zero", str(options.zero), ("0", "1", "2", "3"))
    _known("weight-bits", str(options.weight_bits), _WEIGHT_BYTES)
    if options.lora < 0:
        raise ConfigError(f"lora is {options.lora}", fix="give a width of at least 1, or 0")
    if options.weight_bits < 16 and not (options.frozen or options.lora):
        raise ConfigError(
            f"weights of {options.weight_bits} bits cannot be trained",
            fix="train adapters beside them: --lora 16",
        )
    data = num_devices // cut
    return TrainingLayout(
        data=data,
        tensor=options.tp,
        pipeline=options.pp,
        chunks=options.vp,
        context=options.cp,
        expert=options.ep,
        micro_batch=options.mbs,
        global_batch=options.gbs or data * options.mbs * 4 * options.pp,
        length=options.seq,
        zero=options.zero,  # type: ignore[arg-type]
        recompute=options.recompute,  # type: ignore[arg-type]
        recompute_share=options.recompute_share,
        dtype=options.dtype,
        frozen=options.frozen or options.lora > 0,
        adapter_rank=options.lora,
        weight_bytes=_WEIGHT_BYTES[options.weight_bits],
    )


def deployment_of(spec: ModelSpec, cluster: Cluster, options: DeploymentOptions) -> Deployment:
    """Return a deployment of one replica over the whole cluster.

    Raises:
        ConfigError: the degrees do not give the devices, or a type is unknown.
    """
    tensor = options.tp or max(1, cluster.num_devices // (options.dp * options.pp))
    return Deployment(
        spec,
        cluster,
        tensor=tensor,
        data=options.dp,
        pipeline=options.pp,
        expert=options.ep,
        storage=storage_of(options.dtype, options.kv_dtype),
    )


def storage_of(dtype: str, kv_dtype: str) -> Storage:
    """Return how weights and cache are stored."""
    for name, value in (("dtype", dtype), ("kv_dtype", kv_dtype)):
        _known(name, value, ELEMENT_BYTES)
    mixer = "bfloat16" if dtype in _FOUR_BITS else dtype
    return Storage(ffn=dtype, mixer=mixer, kv=kv_dtype, weights_only=dtype == "int4")


def traffic_of(options: TrafficOptions) -> Traffic:
    """Return what every request looks like."""
    return Traffic(
        options.isl,
        options.osl,
        num_cached_tokens=options.cached,
        max_tokens_per_step=options.step_tokens,
    )


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _known(name: str, value: str, choices: object) -> None:
    names = [str(choice) for choice in choices]  # type: ignore[attr-defined]
    if value not in names:
        raise ConfigError(f"{name} is {value!r}", fix=did_you_mean(value, names))
