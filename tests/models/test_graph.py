"""The module tree is the model's own, with the shapes that a real forward pass has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.plan.specs import SPECS, model
from weft.models.decoder import Decoder
from weft.models.encoder import Encoder
from weft.models.encoder_decoder import EncoderDecoder
from weft.models.graph import ModuleNode, build_on_meta, trace
from weft.nn.context import StepContext
from weft.spec import (
    AttentionSpec,
    EncoderDecoderSpec,
    EncoderSpec,
    LayerSpec,
    MLPSpec,
    ModelSpec,
    zoo,
)

NUM_TOKENS, NUM_SOURCE = 6, 9
COUNTED_ROWS = {"switch", "gshard"}  # experts drop rows: only a run knows how many

WHOLE = AttentionSpec(4, 4, 16, rotary=None, causal=False)
ENCODER = EncoderSpec("bert", 50, 64, (LayerSpec(WHOLE, MLPSpec(32)),) * 2, num_token_types=2)
CROSS = LayerSpec(AttentionSpec(4, 4, 16), MLPSpec(32), cross=WHOLE)
OTHERS: dict[str, EncoderSpec | EncoderDecoderSpec | ModelSpec] = {
    "encoder": ENCODER,
    "encoder-decoder": EncoderDecoderSpec(ENCODER, ModelSpec("t5", 50, 64, (CROSS,) * 2)),
    "shared keys": ModelSpec(
        "llama",
        50,
        64,
        (
            LayerSpec(AttentionSpec(4, 2, 16), MLPSpec(32)),
            LayerSpec(AttentionSpec(4, 2, 16, kv_source=0), MLPSpec(32)),
        ),
    ),
}
ALL = {**SPECS, **OTHERS}


def hooked(spec: Any) -> tuple[nn.Module, dict[str, tuple[list[str], list[str]]]]:
    """Run a real model on the CPU and note every module's tensors."""
    seen: dict[str, tuple[list[str], list[str]]] = {}
    module = {EncoderSpec: Encoder, EncoderDecoderSpec: EncoderDecoder}.get(type(spec), Decoder)(
        spec
    )

    def tensors(value: Any) -> list[str]:
        if isinstance(value, torch.Tensor):
            return [str(list(value.shape))]
        if isinstance(value, dict):
            value = tuple(value.values())
        return (
            [text for item in value for text in tensors(item)] if isinstance(value, tuple) else []
        )

    def note(name: str) -> Any:
        def hook(inner: nn.Module, args: tuple, kwargs: dict, result: Any) -> None:
            seen.setdefault(name, (tensors(args) + tensors(kwargs), tensors(result)))

        return hook

    for name, inner in module.named_modules():
        inner.register_forward_hook(note(name), with_kwargs=True)
    tokens = torch.zeros(NUM_TOKENS, dtype=torch.int64)
    with torch.no_grad():
        if isinstance(spec, EncoderDecoderSpec):
            source = torch.zeros(NUM_SOURCE, dtype=torch.int64)
            module(source, (NUM_SOURCE,), tokens, (NUM_TOKENS,))
        else:
            keep = spec.kv_sources if isinstance(spec, ModelSpec) else frozenset()
            module(tokens, StepContext.packed((NUM_TOKENS,), keep_keys=keep))
    return module, seen


def filled_in(shapes: tuple[str, ...]) -> list[str]:
    """Put numbers for T and S."""

    def number(size: str) -> int:
        for symbol, value in (("T", NUM_TOKENS), ("S", NUM_SOURCE)):
            if size.endswith(symbol):
                return int(size.removesuffix(symbol) or 1) * value
        return int(size)

    return [str([number(size) for size in shape[1:-1].split(", ") if size]) for shape in shapes]


@pytest.mark.parametrize("name", ALL)
def test_modules_and_shapes_equal_a_forward_hook_trace(name: str) -> None:
    module, seen = hooked(ALL[name])
    tree = trace(ALL[name])
    nodes = dict(tree.unfolded())
    assert list(nodes) == [path for path, _ in module.named_modules()]
    assert tree.num_modules == len(nodes)
    for path, inner in module.named_modules():
        node = nodes[path]
        assert node.kind == type(inner).__name__
        assert node.parameters == sum(p.numel() for p in inner.parameters())
        own = {
            **dict(inner.named_parameters(recurse=False)),
            **dict(inner.named_buffers(recurse=False)),
        }
        assert {label: list(shape) for label, shape in node.tensors} == {
            label: list(tensor.shape) for label, tensor in own.items()
        }
        taken, returned = seen.get(path, ([], []))
        assert filled_in(node.inputs) == taken, path
        assert filled_in(node.outputs) == returned, path


@pytest.mark.parametrize("name", ["deepseek-v3", "kimi-linear-48b-a3b"])
def test_the_largest_models_take_no_memory(name: str) -> None:
    tree, spec = trace(zoo.spec(name)), zoo.spec(name)
    assert tree.parameters == zoo.parameters(name)
    paths = [path for path, _ in tree.unfolded()]
    assert paths == [path for path, _ in build_on_meta(spec).named_modules()]


def layers_of(tree: ModuleNode) -> list[tuple[str, int, list[tuple[str, int]]]]:
    (layers,) = (child for child in tree.children if child.name == "layers")
    return [
        (node.name, node.repeat, [(c.name, c.repeat) for c in node.children if not node.kind])
        for node in layers.children
    ]


def test_equal_layers_and_patterns_of_layers_are_folded() -> None:
    assert layers_of(trace(zoo.spec("deepseek-v3"))) == [("0-2", 3, []), ("3-60", 58, [])]
    pattern = [("0-2", 3), ("3", 1)]
    assert layers_of(trace(zoo.spec("qwen3-next-80b-a3b"))) == [("0-47", 12, pattern)]
    gemma = layers_of(trace(zoo.spec("gemma-3-4b")))
    assert gemma == [("0-29", 5, [("0-4", 5), ("5", 1)]), ("30-33", 4, [])]


def test_layers_that_differ_in_what_no_tensor_shows_are_kept_apart() -> None:
    near, far = (LayerSpec(AttentionSpec(4, 2, 16, window=w), MLPSpec(32)) for w in (4, None))
    spec = ModelSpec("llama", 50, 64, (near, near, far))
    assert [name for name, _, _ in layers_of(trace(spec))] == ["0-1", "2"]
    assert "window=4" in dict(trace(spec).unfolded())["layers.1.mixer"].note


def test_sizes_that_follow_the_tokens_are_named() -> None:
    nodes = dict(trace(OTHERS["encoder-decoder"]).unfolded())
    assert nodes["decoder.layers.1.cross.kv"].outputs == ("[S, 128]",)
    assert nodes["decoder.layers.1.cross.q"].outputs == ("[T, 64]",)
    assert trace(model(AttentionSpec(4, 2, 16))).inputs == ("[T]",)
