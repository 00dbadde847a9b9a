"""``weft plan pd``: prefill and decode apart against both on every replica."""

from __future__ import annotations

from dataclasses import replace

from weft.cli.plan.inputs import cluster_of, deployment_of, limits_of, model_of, traffic_of
from weft.cli.plan.options import DeploymentOptions, Output, TrafficOptions
from weft.cli.plan.output import emit
from weft.plan.answer import Answer, Item, Listing, listing
from weft.plan.hardware.links import Link, link
from weft.plan.inference.disaggregate import (
    Disaggregated,
    PoolRatio,
    best_ratio,
    estimate_disaggregated,
)
from weft.plan.inference.load import Traffic, estimate_max_load
from weft.plan.inference.step import StepModel

_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
_LOAD = 0.9


def pd(
    model: str,
    *,
    hw: str = "H100x8",
    via: str | None = None,
    slo: str = "",
    clients: int | None = None,
    deployment: DeploymentOptions = DeploymentOptions(),  # noqa: B008
    traffic: TrafficOptions = TrafficOptions(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Balance a prefill and a decode pool, and compare with replicas that do both.

    Parameters
    ----------
    model
        A name from `weft model list`, a folder or a config.json.
    hw
        Devices of one worker of either kind.
    via
        Link between the pools; by default the one between nodes.
    slo
        Such as tpot=20ms: decode batches are kept so small.
    clients
        In flight over both pools; by default nine tenths of what both pools bear.
    """
    name, spec = model_of(model)
    cluster = cluster_of(hw)
    worker = StepModel(deployment_of(spec, cluster, deployment))
    load, tpot_s = traffic_of(traffic), limits_of(slo).get("tpot_s")
    wire = link(via) if via else cluster.scale_out
    ratio = best_ratio(worker, worker, load, max_tpot_s=tpot_s)
    pools = Disaggregated(worker, ratio.num_prefill, worker, ratio.num_decode, wire)
    num_clients = clients or _balanced_clients(pools, ratio, load)
    emit(_answer(f"{name}, workers of {hw}", pools, ratio, load, num_clients, tpot_s), output)


def _answer(
    title: str,
    pools: Disaggregated,
    ratio: PoolRatio,
    load: Traffic,
    clients: int,
    tpot_s: float | None,
) -> Answer:
    found = estimate_disaggregated(pools, load, num_clients=clients)
    together = estimate_max_load(pools.decode, load)
    devices = pools.decode.deployment.cluster.num_devices
    both = together.requests_per_s / devices
    return Answer(
        title=title,
        facts=(f"{load.num_prompt_tokens} + {load.num_output_tokens} tokens, {clients} clients",),
        items=(
            Item("prefill workers", ratio.num_prefill, "", "fit", "lowest terms, most per device"),
            Item("decode workers", ratio.num_decode, "", "fit"),
            Item("requests per second and device", ratio.per_device, "", "fit",
                 "min(prefill, decode) / devices"),
            Item("the same without pools", both, "", "fit", "replicas at maximum load"),
            Item("pools against replicas", ratio.per_device / both, "x", "fit"),
            Item("TTFT", found.ttft_s, "s", "fit", "queue + prompt + transfer"),
            Item("TPOT", found.tpot_s, "s", "fit", "decode steps undisturbed by prompts"),
            Item("TPOT without pools", together.tpot_s, "s", "fit", "at maximum load"),
            Item("prefill busy", found.prefill_busy, "share", "fit"),
            Item("transfer of a prompt", found.transfer_s, "s", "fit", pools.link.name),
            Item("load on the links", found.link_bytes_per_s, "B/s", "fit", _links(pools.link)),
        ),
        listings=(_sensitivity(pools, load, tpot_s),),
    )  # fmt: skip


def _balanced_clients(pools: Disaggregated, ratio: PoolRatio, load: Traffic) -> int:
    """Return the clients that keep both pools nearly busy, by Little's law."""
    clients = 1
    for _ in range(8):
        found = estimate_disaggregated(pools, load, num_clients=clients)
        turn_s = found.ttft_s + load.num_output_tokens * found.tpot_s
        clients = max(1, int(_LOAD * ratio.requests_per_s * turn_s))
    return clients


def _links(wire: Link) -> str:
    return f"rate x prompt cache; {wire.name} carries {wire.rate / 1e9:.0f} GB/s per device"


def _sensitivity(pools: Disaggregated, load: Traffic, tpot_s: float | None) -> Listing:
    """How the ratio moves with prompt and output lengths."""
    rows = []
    for prompt in _SCALES:
        cells = [f"{max(2, int(prompt * load.num_prompt_tokens)):,}"]
        for output in _SCALES:
            changed = replace(
                load,
                num_prompt_tokens=max(2, int(prompt * load.num_prompt_tokens)),
                num_output_tokens=max(1, int(output * load.num_output_tokens)),
                num_cached_tokens=0,
            )
            found = best_ratio(
                pools.prefill, pools.decode, changed, max_tpot_s=tpot_s, most_workers=12
            )
            cells.append(f"{found.num_prefill}:{found.num_decode}")
        rows.append(cells)
    outputs = (f"osl {max(1, int(s * load.num_output_tokens)):,}" for s in _SCALES)
    return listing("prefill:decode by lengths", ("isl", *outputs), rows)
