"""``weft plan search``: the best ways to train or serve a model on given devices."""

from __future__ import annotations

from typing import Literal

from weft.cli.plan.inputs import cluster_of, limits_of, model_of, storage_of, traffic_of
from weft.cli.plan.launch import serving_command, training_command, uncut
from weft.cli.plan.memory import describe
from weft.cli.plan.options import Output, TrafficOptions
from weft.cli.plan.output import emit
from weft.plan.answer import Answer, Curve, Item, Listing, Plot, listing, seconds
from weft.plan.hardware.cluster import Cluster
from weft.plan.search.serving import ServingOption, ServingSearch, ServingSpace, search_serving
from weft.plan.search.space import TrainingSpace
from weft.plan.search.training import Candidate, TrainingSearch, search_training
from weft.plan.simulator.result import ServiceLevel

_NO_CUTS = (
    "weft's own trainer holds the whole model on every device; cut layouts (tp, pp, cp, ep) are "
    "for trainers that cut it"
)

_NO_CUT_SERVER = (
    "weft's own server holds the whole model on one device and serves both phases; cut replicas "
    "and split pools are for servers that cut it"
)


def search(
    model: str,
    *,
    hw: str = "H100x8",
    task: Literal["train", "serve"] = "train",
    gbs: int | None = None,
    seq: int = 4096,
    dtype: str = "bfloat16",
    kv_dtype: str = "bfloat16",
    slo: str = "",
    top: int = 10,
    traffic: TrafficOptions = TrafficOptions(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Find the best training layouts or deployments.

    Parameters
    ----------
    model
        A name from `weft model list`, a folder or a config.json.
    hw
        All devices, such as H100x1024.
    task
        What is searched.
    gbs
        Training: sequences per step; by default one per device.
    seq
        Training: tokens of a sequence.
    dtype
        Of matrix products in training, of weights in serving.
    kv_dtype
        Serving: of the cache.
    slo
        Serving: mean latencies to keep, such as ttft=300ms,tpot=10ms.
    top
        Rows of the ranking.
    """
    name, spec = model_of(model)
    cluster = cluster_of(hw)
    title = f"{name} on {hw}"
    if task == "train":
        space = TrainingSpace(cluster.num_devices, gbs or cluster.num_devices, seq, dtype=dtype)
        found = search_training(spec, cluster, space, num_best=top)
        emit(training_answer(title, found, cluster), output)
        return
    limits = limits_of(slo)
    serving = ServingSpace(
        cluster,
        traffic_of(traffic),
        storage_of(dtype, kv_dtype),
        ServiceLevel(**limits) if limits else None,
    )
    emit(serving_answer(title, model, search_serving(spec, serving, num_best=top), serving), output)


def training_answer(title: str, found: TrainingSearch, cluster: Cluster) -> Answer:
    """Return the ranking of training layouts."""
    best = found.best[0]
    whole = next((one for one in found.best if uncut(one.layout)), None)
    return Answer(
        title=title,
        facts=(describe(best.layout),),
        items=(
            Item("step time", best.step_s, "s", "fit", "weft plan train shows the parts"),
            Item("peak memory", best.memory_bytes, "B", "fit"),
            Item("layouts tried", found.num_tried, ""),
            Item("layouts that fit", found.num_fitting, ""),
        ),
        listings=(_training_rows(found.best), _rejected(found.rejected)),
        notes=() if whole else (_NO_CUTS,),
        command=training_command(whole.layout, cluster.devices_per_node) if whole else "",
    )


def _training_rows(best: tuple[Candidate, ...]) -> Listing:
    rows = []
    for one in best:
        lay = one.layout
        rows.append(
            (lay.tensor, lay.pipeline, lay.chunks, lay.context, lay.expert, lay.data, lay.zero,
             lay.micro_batch, lay.recomputed, seconds(one.step_s),
             f"{100 * (one.step_s / best[0].step_s - 1):+.1f} %",
             f"{one.memory_bytes / 2**30:.0f} GiB", one.binding)
        )  # fmt: skip
    columns = ("tp", "pp", "vp", "cp", "ep", "dp", "zero", "mbs", "recompute", "step", "",
               "memory", "bound by")  # fmt: skip
    return listing("fastest first", columns, rows)


def _rejected(rejected: dict[str, int]) -> Listing:
    rows = sorted(rejected.items(), key=lambda pair: -pair[1])
    return listing("rejected", ("reason", "layouts"), rows)


def serving_answer(title: str, model: str, found: ServingSearch, space: ServingSpace) -> Answer:
    """Return the ranking of deployments."""
    best = found.best[0]
    whole = next((one for one in found.best if _whole(one)), None)
    length = space.traffic.num_prompt_tokens + space.traffic.num_output_tokens
    front = Curve(
        "",
        tuple(one.tokens_per_s_per_user for one in found.front),
        tuple(one.tokens_per_s_per_device for one in found.front),
    )
    return Answer(
        title=title,
        facts=(f"{best.num_replicas} x {best.name}" if best.prefill is None else best.name,),
        items=(
            Item("output per device", best.tokens_per_s_per_device, "tok/s", "fit"),
            Item("TTFT", best.ttft_s, "s", "fit", "mean, closed loop"),
            Item("TPOT", best.tpot_s, "s", "fit", "mean, closed loop"),
            Item("clients", best.num_clients, ""),
        ),
        listings=(
            _serving_rows("most output per device first", found.best),
            _serving_rows("Pareto front: rate per device against speed per user", found.front),
            _rejected(found.rejected),
        ),
        plots=(Plot("Pareto front", "tokens/s per user", "tokens/s per device", (front,)),),
        notes=() if whole else (_NO_CUT_SERVER,),
        command=serving_command(model, whole, length) if whole else "",
    )


def _whole(one: ServingOption) -> bool:
    return one.prefill is None and one.deployment.cluster.num_devices == 1


def _serving_rows(title: str, options: tuple[ServingOption, ...]) -> Listing:
    rows = [
        (one.name, one.num_replicas, one.num_clients, seconds(one.ttft_s), seconds(one.tpot_s),
         f"{one.tokens_per_s_per_device:,.0f}", f"{one.tokens_per_s_per_user:.0f}", one.num_devices,
         one.binding)
        for one in options
    ]  # fmt: skip
    columns = ("replica", "count", "clients", "TTFT", "TPOT", "tok/s/device", "tok/s/user",
               "devices", "bound by")  # fmt: skip
    return listing(title, columns, rows)
