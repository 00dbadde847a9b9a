"""A model as a tree of modules with the shapes that flow through them, without computing anything.

The model is built on the meta device and run there a few times with hooks, at different lengths: a
size that grows with the number of tokens is shown as such ("T", "8T"). Only one layer of each kind
is run. Layers that are alike are folded into one node that says how often it stands there, and so
are sequences of layers that repeat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from weft.models.decoder import Decoder
from weft.models.encoder import Encoder
from weft.models.encoder_decoder import EncoderDecoder
from weft.nn.context import StepContext
from weft.spec import EncoderDecoderSpec, EncoderSpec, ModelSpec

# Lengths that no width or number of heads equals by accident, two per symbol.
LENGTHS = {"T": (11, 13), "S": (17, 19)}

# Longest sequence of layers that is looked for as a pattern.
MAX_PERIOD = 12

Shape = tuple[int, ...]
Flow = tuple[tuple[Shape, ...], tuple[Shape, ...]]
AnySpec = ModelSpec | EncoderSpec | EncoderDecoderSpec


@dataclass(frozen=True)
class ModuleNode:
    """One module, or several alike that follow each other.

    Attributes:
        name: Its name in its parent; "3-60" for layers 3 to 60.
        kind: Its class; empty for a sequence of layers that repeats.
        note: What the module says of itself.
        repeat: How many modules, or sequences, this node stands for.
        parameters: Numbers learnt in one of them, children included.
        tensors: Own parameters and buffers of one, name and shape.
        inputs: Shapes of the tensors it is called with; none where it is not called.
        outputs: Shapes of what it returns.
        children: Its modules; of a sequence, those of its first round.
    """

    name: str
    kind: str
    note: str
    repeat: int
    parameters: int
    tensors: tuple[tuple[str, Shape], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    children: tuple[ModuleNode, ...]

    @property
    def num_modules(self) -> int:
        """Modules this node stands for, itself included."""
        return self.repeat * (bool(self.kind) + sum(child.num_modules for child in self.children))

    def unfolded(self, path: str = "", shift: int = 0) -> Iterator[tuple[str, ModuleNode]]:
        """Yield every module under its full name, as ``named_modules`` does.

        ``shift`` is added to the number of a layer (for further rounds of a sequence).
        """
        first, _, last = self.name.partition("-")
        for index in range(self.repeat):
            if not self.kind:
                stride = (int(last) - int(first) + 1) // self.repeat
                for child in self.children:
                    yield from child.unfolded(path, shift + index * stride)
                continue
            name = str(int(first) + shift + index) if first.isdigit() else self.name
            here = f"{path}.{name}" if path else name
            yield here, self
            for child in self.children:
                yield from child.unfolded(here)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and dictionaries."""
        return asdict(self)


def trace(spec: AnySpec) -> ModuleNode:
    """Return the folded tree of a model.

    >>> from weft.spec import ModelShape
    >>> tree = trace(ModelShape(dim=32, num_layers=2).build(100))
    >>> tree.outputs, tree.num_modules
    (('[T, 32]',), 23)
    """
    small, kind_of_layer = _one_of_each(spec)
    model = build_on_meta(small)
    base = {symbol: lengths[0] for symbol, lengths in LENGTHS.items()}
    runs = {"": flows(model, base)}
    for symbol in ("T", "S") if isinstance(spec, EncoderDecoderSpec) else ("T",):
        runs[symbol] = flows(model, {**base, symbol: LENGTHS[symbol][1]})
    return _node("", "", build_on_meta(spec), _Flows(runs, kind_of_layer))


def build_on_meta(spec: AnySpec) -> nn.Module:
    """Return the model of a specification, without memory."""
    if isinstance(spec, EncoderSpec):
        return Encoder(spec, device="meta")
    if isinstance(spec, EncoderDecoderSpec):
        return EncoderDecoder(spec, device="meta")
    return Decoder(spec, device="meta")


def _one_of_each(spec: AnySpec) -> tuple[AnySpec, tuple[int, ...]]:
    """Return a model with one layer of each kind, and which of them every layer is like."""
    if isinstance(spec, EncoderDecoderSpec):
        return spec, ()
    if isinstance(spec, ModelSpec) and spec.kv_sources:
        return spec, tuple(range(spec.num_layers))
    kinds = list(dict.fromkeys(spec.layers))
    return replace(spec, layers=tuple(kinds)), tuple(kinds.index(layer) for layer in spec.layers)


@torch.no_grad()
def flows(model: nn.Module, lengths: Mapping[str, int]) -> dict[str, Flow]:
    """Run a model and return the shapes into and out of every module that is called, by name."""
    found: dict[str, Flow] = {}

    def record(name: str, arguments: Any, result: Any) -> None:
        found.setdefault(name, (tuple(_shapes(arguments)), tuple(_shapes(result))))

    handles = [
        module.register_forward_hook(
            lambda module, args, kwargs, result, name=name: record(name, (args, kwargs), result),
            with_kwargs=True,
        )
        for name, module in model.named_modules()
    ]
    try:
        _run(model, lengths)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _run(model: nn.Module, lengths: Mapping[str, int]) -> None:
    device = next(model.parameters()).device
    tokens_T = torch.zeros(lengths["T"], dtype=torch.int64, device=device)
    if isinstance(model, EncoderDecoder):
        source_S = torch.zeros(lengths["S"], dtype=torch.int64, device=device)
        model(source_S, (lengths["S"],), tokens_T, (lengths["T"],))
        return
    keep = model.spec.kv_sources if isinstance(model, Decoder) else frozenset()
    model(tokens_T, StepContext.packed((lengths["T"],), device=device, keep_keys=keep))


def _shapes(value: Any) -> Iterator[Shape]:
    if isinstance(value, Tensor):
        yield tuple(value.shape)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _shapes(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _shapes(item)


@dataclass(frozen=True)
class _Flows:
    """Shapes by module, at different lengths, of a model with one layer of each kind.

    Attributes:
        runs: By the symbol whose length was changed; "" for none.
        kind_of_layer: Which of its layers each layer of the whole model is like.
    """

    runs: Mapping[str, Mapping[str, Flow]]
    kind_of_layer: tuple[int, ...]

    def of(self, path: str, side: int) -> tuple[str, ...]:
        """Return one side's shapes; sizes that follow a length are named after it."""
        match = re.match(r"layers\.(\d+)(.*)", path)
        if match and self.kind_of_layer:
            path = f"layers.{self.kind_of_layer[int(match[1])]}{match[2]}"
        if path not in self.runs[""]:
            return ()
        return tuple(
            "[" + ", ".join(_size(s, tuple(self.runs)) for s in zip(*shapes, strict=True)) + "]"
            for shapes in zip(*(run[path][side] for run in self.runs.values()), strict=True)
        )


def _node(path: str, name: str, module: nn.Module, shapes: _Flows) -> ModuleNode:
    prefix = f"{path}." if path else ""
    children = [
        _node(prefix + child, child, inner, shapes) for child, inner in module.named_children()
    ]
    if isinstance(module, nn.ModuleList):
        children = _folded(children)
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return ModuleNode(
        name=name,
        kind=type(module).__name__,
        note=_note(module),
        repeat=1,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        tensors=tuple((label, tuple(tensor.shape)) for label, tensor in own),
        inputs=shapes.of(path, 0),
        outputs=shapes.of(path, 1),
        children=tuple(children),
    )


def _note(module: nn.Module) -> str:
    """What distinguishes the module: the fields of its description that are not the usual."""
    spec = getattr(module, "spec", None)
    if is_dataclass(spec) and not isinstance(spec, AnySpec):
        return ", ".join(describe(spec))
    return "" if module._modules else module.extra_repr()


def describe(spec: Any) -> Iterator[str]:
    """Yield ``name=value`` for each field that has no default or another value.

    >>> from weft.spec import AttentionSpec
    >>> list(describe(AttentionSpec(8, 2, 64, window=512)))
    ['num_heads=8', 'num_kv_heads=2', 'head_dim=64', 'window=512']
    """
    for item in fields(spec):
        value = getattr(spec, item.name)
        default = item.default_factory() if callable(item.default_factory) else item.default
        if value == default:
            continue
        if is_dataclass(value) and not isinstance(value, type):
            yield f"{item.name}=({', '.join(describe(value))})"
        elif (
            not isinstance(value, tuple) or len(value) < 4
        ):  # a searched factor per pair says little
            yield f"{item.name}={value:g}" if isinstance(value, float) else f"{item.name}={value}"


def _folded(children: list[ModuleNode]) -> list[ModuleNode]:
    """Join neighbours that differ in nothing but their number, and sequences of them."""
    folded: list[ModuleNode] = []
    start = 0
    while start < len(children):
        rest = children[start:]
        periods = range(1, 1 + min(MAX_PERIOD, len(rest)))
        period = max(periods, key=lambda p: (_rounds(rest, p) > 1) * p * _rounds(rest, p) - p / 100)
        rounds = _rounds(rest, period)
        name = f"{start}-{start + rounds * period - 1}"
        if rounds == 1:
            folded.append(rest[0])
        elif period == 1:
            folded.append(replace(rest[0], name=name, repeat=rounds))
        else:
            inner = tuple(_numbered(_folded(rest[:period]), start))
            parameters = sum(node.parameters for node in rest[:period])
            folded.append(ModuleNode(name, "", "", rounds, parameters, (), (), (), inner))
        start += rounds * period if rounds > 1 else 1
    return folded


def _numbered(nodes: list[ModuleNode], start: int) -> Iterator[ModuleNode]:
    """Give folded nodes, counted from 0, their numbers in the whole list."""
    position = start
    for node in nodes:
        end = position + node.repeat - 1
        yield replace(node, name=f"{position}-{end}" if node.repeat > 1 else str(position))
        position = end + 1


def _rounds(nodes: list[ModuleNode], period: int) -> int:
    """Return how often the first ``period`` nodes follow each other."""
    count = 1
    while _alike(nodes[:period], nodes[count * period : (count + 1) * period]):
        count += 1
    return count


def _alike(a: list[ModuleNode], b: list[ModuleNode]) -> bool:
    same = (replace(x, name="") == replace(y, name="") for x, y in zip(a, b, strict=False))
    return len(a) == len(b) and all(same)


def _size(sizes: tuple[int, ...], symbols: tuple[str, ...]) -> str:
    """Return ``a T + b`` for a size seen at the usual lengths and with each symbol's changed.

    >>> _size((88, 104), ("", "T")), _size((64, 64), ("", "T"))
    ('8T', '64')
    """
    rest, text = sizes[0], ""
    for symbol, size in zip(symbols[1:], sizes[1:], strict=True):
        first, second = LENGTHS[symbol]
        slope, remainder = divmod(size - sizes[0], second - first)
        if remainder:
            return "?"
        rest -= slope * first
        if slope:
            text += ("+" if text else "") + ("" if slope == 1 else str(slope)) + symbol
    if not text:
        return str(rest)
    return text if rest == 0 else f"{text}{rest:+d}"
