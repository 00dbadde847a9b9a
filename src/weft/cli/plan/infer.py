"""``weft plan infer``: latencies, rates and cost of a served model."""

from __future__ import annotations

from weft.cli.plan.inputs import cluster_of, deployment_of, model_of, traffic_of
from weft.cli.plan.options import DeploymentOptions, Output, TrafficOptions
from weft.cli.plan.output import emit
from weft.plan.answer import Answer, Curve, Item, Listing, Parts, Plot, listing, seconds
from weft.plan.cost import Cost
from weft.plan.economy import price_per_million_tokens
from weft.plan.figure import Figure
from weft.plan.inference.constants import interval_factor
from weft.plan.inference.load import (
    LoadEstimate,
    Traffic,
    estimate_closed_loop,
    estimate_max_load,
)
from weft.plan.inference.step import StepModel
from weft.plan.work import Work

_NUM_DOUBLINGS = 9


def infer(
    model: str,
    *,
    hw: str = "H100",
    concurrency: int = 32,
    price: float = 2.0,
    deployment: DeploymentOptions = DeploymentOptions(),  # noqa: B008
    traffic: TrafficOptions = TrafficOptions(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Predict time to first token, time per token, rates and cost of serving.

    Parameters
    ----------
    model
        A name from `weft model list`, a folder or a config.json.
    hw
        Devices of one replica, such as H100x8.
    concurrency
        Clients that each wait for their answer before they ask again.
    price
        Of one device and hour, in any currency.
    """
    name, spec = model_of(model)
    step = StepModel(deployment_of(spec, cluster_of(hw), deployment))
    load = traffic_of(traffic)
    sections: tuple[str, ...] = ()
    result = answer(f"{name}  {hw}", step, load, concurrency, price)
    if output.html is not None:
        from weft.cli.plan.sliders import serving_sliders

        sections = (serving_sliders(step, load, price),)
    emit(result, output, *sections)


def answer(title: str, step: StepModel, load: Traffic, clients: int, price: float) -> Answer:
    """Return everything about one deployment."""
    found = estimate_closed_loop(step, load, num_clients=clients)
    most = estimate_max_load(step, load)
    devices = step.deployment.cluster.num_devices
    decode = step.cost(Work.decode(found.num_running, load.mean_context))
    prefill = step.cost(Work.prefill(1, load.num_new_tokens, load.num_cached_tokens))
    return Answer(
        title=title,
        facts=(describe(step, load, clients),),
        items=(
            *_latencies(found),
            *_rates(found, most, devices, price),
            *_capacity(step, load),
        ),
        parts=(
            Parts("a decode step", "s", _times(decode)),
            Parts("a prompt alone", "s", _times(prefill)),
        ),
        listings=(_bounds("decode kernels", decode), _bounds("prefill kernels", prefill)),
        plots=(_curve(step, load),),
    )


def describe(step: StepModel, load: Traffic, clients: int) -> str:
    """Return deployment and load in one line."""
    one = step.deployment
    cuts = f"tp{one.tensor} dp{one.data} pp{one.pipeline} ep{one.expert}"
    kinds = f"weights {one.storage.ffn} cache {one.storage.kv}"
    lengths = f"{load.num_prompt_tokens} + {load.num_output_tokens} tokens"
    return f"{cuts}  {kinds}  {lengths}  {clients} clients"


def _latencies(found: LoadEstimate) -> tuple[Item, ...]:
    ttft = Figure.within(found.ttft_s, interval_factor("closed loop ttft"), "s", "fit")
    tpot = Figure.within(found.tpot_s, interval_factor("closed loop tpot"), "s", "fit")
    return (
        Item.of("TTFT", ttft, "arrival to first token: request, queue, prompt, bursts"),
        Item.of("TPOT", tpot, "mean time per token after the first, prompts of others included"),
        Item("latency", found.latency_s, "s", "fit", "TTFT + (osl - 1) x TPOT"),
    )


def _rates(found: LoadEstimate, most: LoadEstimate, devices: int, price: float) -> tuple[Item, ...]:
    rate = found.output_tokens_per_s
    factor = interval_factor("max load")
    return (
        Item("output tokens per second", rate, "tok/s", "fit", "running / turn x osl"),
        Item("per device", rate / devices, "tok/s", "fit", "output tokens / devices"),
        Item("per user", 1.0 / found.tpot_s, "tok/s", "fit", "1 / TPOT"),
        Item("requests per second", found.requests_per_s, "", "fit", "running / turn"),
        Item(
            "cost per million output tokens",
            price_per_million_tokens(rate, num_devices=devices, price_per_hour=price),
            "", "fit", f"devices x {price:g} per hour / rate",
        ),
        Item.of(
            "most output tokens per second",
            Figure.within(most.output_tokens_per_s, factor, "tok/s", "fit"),
            f"{most.num_running} sequences per group: what the cache holds",
        ),
    )  # fmt: skip


def _capacity(step: StepModel, load: Traffic) -> tuple[Item, ...]:
    one = step.deployment
    length = load.num_prompt_tokens + load.num_output_tokens
    tokens = one.kv_capacity_tokens()
    return (
        Item("weights per device", one.weight_bytes, "B", formula="cut by tp, pp, ep"),
        Item("cache per token and device", one.kv_bytes_per_token, "B"),
        Item("cache capacity", tokens, "tokens", formula="(0.9 memory - weights - 4 GB) / token"),
        Item("full-length requests it holds", tokens // length, ""),
    )


def _times(cost: Cost) -> dict[str, float]:
    device, *others = cost.children
    return {part.name: part.seconds for part in (*device.children, *others)}


def _bounds(title: str, cost: Cost) -> Listing:
    kernels = cost.children[0].children[0].children
    largest = sorted(kernels, key=lambda one: -one.seconds)[:8]
    rows = [(one.name, seconds(one.seconds), one.bound) for one in largest]
    return listing(title, ("kernel", "time", "bound"), rows)


def _curve(step: StepModel, load: Traffic) -> Plot:
    clients = [2**power for power in range(_NUM_DOUBLINGS + 1)]
    points = [estimate_closed_loop(step, load, num_clients=n) for n in clients]
    devices = step.deployment.cluster.num_devices
    users = tuple(1.0 / point.tpot_s for point in points)
    rates = tuple(point.output_tokens_per_s / devices for point in points)
    title = f"rate against speed, 1 to {clients[-1]} clients"
    return Plot(title, "tokens/s per user", "tokens/s per device", (Curve("", users, rates),))
