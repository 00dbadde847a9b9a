"""``weft plan kv``: move a prompt's keys and values, swap them, or compute them again."""

from __future__ import annotations

from weft.cli.plan.inputs import cluster_of, deployment_of, model_of
from weft.cli.plan.options import DeploymentOptions, Output
from weft.cli.plan.output import emit
from weft.plan.answer import Answer, Curve, Item, Plot, listing, seconds
from weft.plan.hardware.links import Link, link
from weft.plan.inference.reuse import FetchChoice, fetch_crossover, fetch_or_compute
from weft.plan.inference.step import StepModel

_LENGTHS = (256, 1024, 4096, 16_384, 65_536, 131_072)


def kv(
    model: str,
    *,
    hw: str = "H100",
    via: str | None = None,
    swap: str = "pcie5",
    deployment: DeploymentOptions = DeploymentOptions(),  # noqa: B008
    output: Output = Output(),  # noqa: B008
) -> None:
    """Compare moving a prompt's cache with swapping it and with computing it again.

    Parameters
    ----------
    model
        A name from `weft model list`, a folder or a config.json.
    hw
        Devices of one replica.
    via
        Link to another replica, see `weft plan hw`; by default the one between nodes.
    swap
        Link to the host's memory.
    """
    name, spec = model_of(model)
    cluster = cluster_of(hw)
    step = StepModel(deployment_of(spec, cluster, deployment))
    paths = {"transfer": link(via) if via else cluster.scale_out, "swap": link(swap)}
    choices = {
        path: [_choice(step, length, wire) for length in _LENGTHS] for path, wire in paths.items()
    }
    crossings = tuple(_crossing(step, path, wire) for path, wire in paths.items())
    per_token = step.deployment.kv_bytes_per_token
    cache = Item("cache per token and device", per_token, "B", formula="2 x kv heads x width ...")
    emit(_answer(f"{name} on {hw}", (cache, *crossings), choices), output)


def _choice(step: StepModel, length: int, wire: Link) -> FetchChoice:
    return fetch_or_compute(step, length, bandwidth=wire.rate, start_s=wire.start_s)


def _crossing(step: StepModel, path: str, wire: Link) -> Item:
    found = fetch_crossover(step, bandwidth=wire.rate, start_s=wire.start_s)
    formula = f"{wire.name}: first length at which bytes / rate < prefill time"
    value = "never" if found is None else found
    return Item(f"{path} pays from", value, "tokens", "fit", formula)


def _answer(title: str, items: tuple[Item, ...], choices: dict[str, list[FetchChoice]]) -> Answer:
    computed = [choice.compute_s for choice in choices["transfer"]]
    rows = []
    for index, length in enumerate(_LENGTHS):
        options = {path: found[index].fetch_s for path, found in choices.items()}
        options["compute"] = computed[index]
        best = min(options, key=lambda name: options[name])
        rows.append((f"{length:,}", *(seconds(value) for value in options.values()), best))
    lengths = tuple(float(length) for length in _LENGTHS)
    curves = [
        Curve(path, lengths, tuple(choice.fetch_s for choice in found))
        for path, found in choices.items()
    ]
    curves.append(Curve("compute", lengths, tuple(computed)))
    return Answer(
        title=title,
        items=items,
        listings=(listing("by length", ("tokens", *choices, "compute", "fastest"), rows),),
        plots=(Plot("time by length", "tokens", "seconds", tuple(curves)),),
    )
