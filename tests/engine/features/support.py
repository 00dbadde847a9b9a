"""Tests of features in pairs: tiny models, one way to run requests, one way to compare.

A test names its pair with ``@pytest.mark.pair("overlap", "grammar")``; the names are those of
``FEATURES``. It serves the same requests with and without a feature and compares.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.engine.support import assert_nothing_left, make_prompts, tokenizer
from tests.nn.recurrent.models import model_spec
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.outputs import Completion
from weft.models.decoder import Decoder
from weft.sched.loop import VirtualClock
from weft.spec import AttentionSpec, LayerSpec, MLASpec, MLPSpec, ModelSpec, MoESpec, SamplingParams
from weft.spec.request import Request

FEATURES = (
    "batching", "chunking", "cache", "preemption", "offload", "speculation", "adapters", "grammar",
    "quantized_kv", "tensor_parallel", "overlap", "deterministic", "states", "windows", "fork",
    "pause",
)  # fmt: skip
# Of each kind of layer one.
KINDS = (
    "dense", "windows", "ring", "latent", "softcap", "sinks", "slopes", "experts", "gated-delta",
    "rwkv",
)  # fmt: skip
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
SEEDED = SamplingParams(temperature=0.9, top_k=40, top_p=0.95, max_tokens=12, seed=7)
PENALISED = replace(SEEDED, frequency_penalty=0.4, repetition_penalty=1.2, min_tokens=4)
WINDOW = 12
SETTINGS = {"num_blocks": 96, "block_size": 4, "max_num_sequences": 16}


def config(**settings: Any) -> EngineConfig:
    """Return a small engine's config; settings override ``SETTINGS``."""
    chosen = SETTINGS | settings
    budget = chosen.get("max_tokens_per_step", 2048)
    return EngineConfig(**chosen | {"max_num_sequences": min(chosen["max_num_sequences"], budget)})


@functools.cache
def tiny(kind: str = "dense", seed: int = 0) -> Decoder:
    """Return a random model whose greedy tokens are certain, of 300 tokens and 128 positions.

    Kinds: "dense", "windows" (every other layer), "ring" (every layer), "latent" (MLA), "softcap",
    "sinks", "slopes" (ALiBi), "experts" and the recurrent mixers of
    ``tests.nn.recurrent.models`` such as "gated-delta", whose layer of attention has a window in
    "windowed-gated-delta".
    """
    with torch.inference_mode(False):  # the first to ask may be in inference mode
        built = Decoder(_spec(kind), seed=seed).eval()
    for parameter in built.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(3.0)
    return built


def _spec(kind: str) -> ModelSpec:
    mixer = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16)
    windowed = replace(mixer, window=WINDOW)
    mixers = {
        "dense": (mixer, mixer),
        "windows": (windowed, mixer),
        "ring": (windowed, windowed),
        "latent": (MLASpec(4, 16, 16, 16, 8, query_latent_dim=None),) * 2,
        "softcap": (replace(mixer, softcap=8.0),) * 2,
        "sinks": (replace(mixer, sinks=True), replace(windowed, sinks=True)),
        "slopes": (replace(mixer, rotary=None, alibi=True),) * 2,
        "experts": (mixer, mixer),
    }
    if kind not in mixers:
        spec = model_spec(kind.removeprefix("windowed-"), hybrid=True)
        spec = replace(spec, vocab_size=300, context_length=128, eos_ids=tokenizer().eos_ids)
        if not kind.startswith("windowed-"):
            return spec
        first, attention, last = spec.layers
        windowed = replace(attention, mixer=replace(attention.mixer, window=WINDOW))
        return replace(spec, layers=(first, windowed, last))
    ffn = MoESpec(6, 2, MLPSpec(32)) if kind == "experts" else MLPSpec(48)
    layers = tuple(LayerSpec(chosen, ffn) for chosen in mixers[kind])
    return ModelSpec("llama", 300, 32, layers, context_length=128, eos_ids=tokenizer().eos_ids)


def requests(
    params: SamplingParams | Sequence[SamplingParams] = GREEDY,
    prompts: Sequence[Sequence[int]] | None = None,
    **fields: Any,
) -> list[Request]:
    """Return one request per prompt, by default those of ``make_prompts``; ids are "0", "1" ..."""
    prompts = make_prompts() if prompts is None else prompts
    if isinstance(params, SamplingParams):
        params = [params] * len(prompts)
    pairs = enumerate(zip(prompts, params, strict=True))
    return [Request(str(i), tuple(prompt), chosen, **fields) for i, (prompt, chosen) in pairs]


def core_of(config: EngineConfig, decoder: Decoder | None = None) -> EngineCore:
    """Return an engine over a tiny model and the tests' tokenizer, on a virtual clock."""
    return EngineCore(decoder or tiny(), tokenizer(), config, clock=VirtualClock())


def completions(
    config: EngineConfig | EngineCore,
    requests: Sequence[Request],
    *,
    decoder: Decoder | None = None,
    stagger: int = 0,
) -> list[Completion]:
    """Serve requests until none is left, in an engine of their own or the one given.

    With ``stagger``, each is submitted so many steps after the one before it. A step that fails
    raises; nothing may be left behind.
    """
    core = config if isinstance(config, EngineCore) else core_of(config, decoder)
    streams = []
    for request in requests:
        streams.append(core.submit(request))
        for _ in range(stagger):
            step(core)
    while core.has_work:
        step(core)
    assert_nothing_left(core)
    return [stream.completion() for stream in streams]


def step(core: EngineCore) -> None:
    """Run one step; raise what it raised."""
    core.step()
    if core.loop.failure is not None:
        raise core.loop.failure


def assert_same(
    got: Sequence[Completion], expected: Sequence[Completion], *, abs: float = 1e-5
) -> None:
    """Assert equal tokens, texts and ends, and log-probabilities up to ``abs`` (0: bit-equal)."""
    for index, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        assert ours.error == theirs.error, index
        assert ours.tokens == theirs.tokens, index
        assert (ours.text, ours.finish_reason) == (theirs.text, theirs.finish_reason), index
        if abs == 0:
            assert ours.logprobs == theirs.logprobs, index
        else:
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=abs), index
