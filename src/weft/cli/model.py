"""``weft model``: what a model is made of, and which published ones are known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from weft.core.console import console, format_bytes, format_count, table
from weft.core.errors import ConfigError, InputFileError, UnsupportedError
from weft.core.files import read_json, write_atomic
from weft.plan.flops import training_flops
from weft.plan.memory import kv_bytes_per_token, state_bytes_per_sequence
from weft.plan.parameters import AnyModelSpec, count_parameters
from weft.spec import EncoderDecoderSpec, ModelSpec, zoo
from weft.spec.lint import lint

CACHE_DTYPE = "bfloat16"
FLOPS_LENGTH = 4096


def show(
    model: str,
    *,
    json_output: Annotated[bool, Parameter(name="--json")] = False,
    html: Path | None = None,
    depth: int | None = None,
) -> None:
    """Show a model's modules, shapes, parameters and cache size.

    Parameters
    ----------
    model
        A name from `weft model list`, a checkpoint folder or a config.json.
    json_output
        Print JSON for programs.
    html
        Also write the module tree as one interactive page.
    depth
        Levels of modules to print; none prints all.
    """
    summary = describe(model)
    if json_output:
        console.print(json.dumps(summary, indent=2), markup=False, soft_wrap=True)
    else:
        _print(summary, depth)
    if html is not None:
        from weft.report.model_page import model_page

        write_atomic(html, model_page(summary))
        if not json_output:
            console.print(f"\nwrote {html}", markup=False, soft_wrap=True)


def list_models() -> None:
    """List the published models that are known by name."""
    rows = []
    for name in zoo.names():
        entry = zoo.entry(name)
        active = "" if entry.active is None else format_count(entry.active)
        rows.append((name, entry.config["model_type"], format_count(entry.parameters), active))
    console.print(table("", ("name", "family", "parameters", "active"), rows))


def describe(model: str) -> dict[str, Any]:
    """Return everything ``show`` prints, as plain data.

    Raises:
        UserError: there is no such model, or it cannot be expressed.
    """
    from weft.models.graph import trace

    name, spec = resolve(model)
    count = count_parameters(spec)
    decoder = spec.decoder if isinstance(spec, EncoderDecoderSpec) else spec
    summary: dict[str, Any] = {
        "name": name,
        "family": spec.family,
        "num_layers": decoder.num_layers,
        "dim": decoder.dim,
        "vocab_size": decoder.vocab_size,
        "context_length": decoder.context_length,
        "parameters": {"total": count.total, "active": count.active, **dataclasses.asdict(count)},
        "warnings": [remark._asdict() for remark in lint(spec)],
    }
    if isinstance(decoder, ModelSpec):
        summary["cache"] = {
            "dtype": CACHE_DTYPE,
            "kv_bytes_per_token": kv_bytes_per_token(decoder, dtype=CACHE_DTYPE),
            "state_bytes_per_sequence": state_bytes_per_sequence(decoder, dtype=CACHE_DTYPE),
        }
    if isinstance(spec, ModelSpec):
        flops = training_flops(spec, [FLOPS_LENGTH]) / FLOPS_LENGTH
        summary["training_flops_per_token"] = {"length": FLOPS_LENGTH, "flops": flops}
    tree = trace(spec)
    return {**summary, "num_modules": tree.num_modules, "tree": tree.to_dict()}


def resolve(model: str) -> tuple[str, AnyModelSpec]:
    """Return the name and specification of a zoo name, a folder or a config.json.

    Raises:
        ConfigError: it is none of them; the nearest name is given.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        path = path / "config.json"
        if not path.exists():
            raise InputFileError(f"{model!r} has no config.json", fix="give a checkpoint folder")
    if path.is_file():
        if path.suffix != ".json":
            raise UnsupportedError(f"{path} is no config.json", fix="give its folder")
        config = read_json(path)
        if not isinstance(config, dict):
            raise UnsupportedError(f"{path} holds no configuration", fix="give a config.json")
        return path.resolve().parent.name, zoo.spec_from_any_config(config)
    if model.endswith(".json") or "/" in model:
        raise ConfigError(f"there is no {model!r}", fix="give a folder, a config.json or a name")
    return zoo.entry(model).name, zoo.spec(model)


def _print(summary: dict[str, Any], depth: int | None) -> None:
    for label, value in facts(summary):
        console.print(f"{label:<12} {value}", markup=False, soft_wrap=True)
    console.print()
    lines = list(_lines(summary["tree"], "", "", depth))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    for name, kind, size, shapes in lines:
        text = f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {size:>{widths[2]}}  {shapes}"
        console.print(text.rstrip(), markup=False, soft_wrap=True)
    for remark in summary["warnings"]:
        console.print(
            f"\nwarning: {remark['field']}: {remark['message']}\n  new models: {remark['advice']}",
            markup=False,
            soft_wrap=True,
        )


def facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the lines above the tree: what and its value."""
    parameters = summary["parameters"]
    sizes = f"{parameters['total']:,}"
    if parameters["active"] != parameters["total"]:
        sizes += f", {parameters['active']:,} active per token"
    lines = [
        ("model", f"{summary['name']} ({summary['family']})"),
        ("parameters", sizes),
        (
            "shape",
            f"{summary['num_layers']} layers, width {summary['dim']:,}, vocabulary "
            f"{summary['vocab_size']:,}, context {summary['context_length']:,}",
        ),
    ]
    if "cache" in summary:
        lines.append(("cache", _cache(summary["cache"])))
    if "training_flops_per_token" in summary:
        flops = summary["training_flops_per_token"]
        text = f"{flops['flops'] / 1e9:,.2f} GFLOP per token at {flops['length']:,} tokens"
        lines.append(("training", text))
    lines.append(("modules", f"{summary['num_modules']:,}"))
    return lines


def _cache(cache: dict[str, Any]) -> str:
    parts = []
    if cache["kv_bytes_per_token"]:
        parts.append(f"{cache['kv_bytes_per_token']:,} B per token")
    if cache["state_bytes_per_sequence"]:
        parts.append(f"{format_bytes(cache['state_bytes_per_sequence'])} of state per sequence")
    return " and ".join(parts) + f" ({cache['dtype']})"


def _lines(
    node: dict[str, Any], lead: str, branch: str, depth: int | None
) -> list[tuple[str, str, str, str]]:
    """Return name, class, parameters and shapes of a node and everything below it."""
    repeat = f" ×{node['repeat']}" if node["repeat"] > 1 else ""
    flow = " → ".join(", ".join(node[side]) for side in ("inputs", "outputs") if node[side])
    size = format_count(node["parameters"]) if node["parameters"] else ""
    lines = [
        (f"{lead}{branch}{node['name'] or '.'}{repeat}", node["kind"] or "in turn", size, flow)
    ]
    children = [c for c in node["children"] if c["parameters"] or c["outputs"]]
    if depth == 0:
        return lines
    below = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
    for index, child in enumerate(children):
        mark = "└─ " if index == len(children) - 1 else "├─ "
        lines += _lines(child, below, mark, None if depth is None else depth - 1)
    return lines
