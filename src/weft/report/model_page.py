"""A model's module tree as one interactive page: open and close, search, shapes, parameters.

The tree is in the page as data and everything else is inline: no asset, no network, works from
``file://``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from weft.core.console import format_bytes, format_count
from weft.report.html import figures, page, section

_BODY = """
<div class="bar">
<input id="search" type="search" placeholder="Search modules, classes, tensors"
 aria-label="Search modules">
<span id="found" class="note" role="status"></span>
<button id="expand" type="button">Expand all</button>
<button id="collapse" type="button">Collapse</button>
</div>
<div class="split"><ul id="tree" class="tree" role="tree" aria-label="Modules"></ul>
<aside id="about" class="about" aria-live="polite"></aside></div>
"""


def model_page(summary: Mapping[str, Any]) -> str:
    """Return the page of what ``weft model show --json`` prints."""
    static = resources.files("weft.report") / "static"
    style = (static / "model.css").read_text(encoding="utf-8")
    script = (static / "model.js").read_text(encoding="utf-8")
    # "</" inside a script element would end it.
    data = json.dumps(dict(summary), ensure_ascii=False).replace("</", "<\\/")
    subtitle = (
        f"{summary['family']}: {summary['num_layers']} layers, width {summary['dim']:,}, "
        f"vocabulary {summary['vocab_size']:,}, context {summary['context_length']:,}. "
        "T stands for the number of tokens.",
    )
    sections = (
        f"<style>{style}</style>",
        section("At a glance", figures(_figures(summary))),
        section(f"Modules ({summary['num_modules']:,})", _BODY),
        section("Unusual sizes", _remarks(summary["warnings"])),
        f'<script id="model" type="application/json">{data}</script><script>{script}</script>',
    )
    return page(summary["name"], subtitle, sections)


def _figures(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    parameters = summary["parameters"]
    pairs = [(f"parameters, {parameters['total']:,}", format_count(parameters["total"]))]
    if parameters["active"] != parameters["total"]:
        pairs.append(
            (f"active per token, {parameters['active']:,}", format_count(parameters["active"]))
        )
    cache = summary.get("cache", {})
    if cache.get("kv_bytes_per_token"):
        pairs.append(
            (f"cache per token, {cache['dtype']}", format_bytes(cache["kv_bytes_per_token"]))
        )
    if cache.get("state_bytes_per_sequence"):
        size = format_bytes(cache["state_bytes_per_sequence"])
        pairs.append((f"state per sequence, {cache['dtype']}", size))
    if "training_flops_per_token" in summary:
        flops = summary["training_flops_per_token"]
        name = f"training GFLOP per token at {flops['length']:,}"
        pairs.append((name, f"{flops['flops'] / 1e9:,.2f}"))
    return pairs


def _remarks(warnings: Sequence[Mapping[str, str]]) -> str:
    if not warnings:
        return ""
    items = "".join(
        f"<li><b>{escape(w['field'])}</b>: {escape(w['message'])}. "
        f'<span class="note">New models: {escape(w["advice"])}.</span></li>'
        for w in warnings
    )
    return f'<ul class="remarks">{items}</ul>'
