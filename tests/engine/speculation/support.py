"""A model trained for seconds on a text of six words, and heads trained on it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from tests.engine.support import assert_nothing_left
from weft.data.batch import Batch
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.outputs import Completion
from weft.engine.speculation.config import SpeculationConfig
from weft.models.block_draft import BlockHead
from weft.models.decoder import Decoder
from weft.models.eagle import EagleHead
from weft.models.medusa import MedusaHeads
from weft.sched.loop import VirtualClock
from weft.spec import ModelShape
from weft.spec.request import Request
from weft.train.objective import NextTokenObjective
from weft.train.speculators import HeadTraining, train_head

VOCAB_SIZE = 40
CONTEXT = 128
SPACE = 2
WORDS = np.random.default_rng(3).permutation(np.arange(4, 40)).reshape(6, 6)


def text(rng: np.random.Generator, length: int) -> np.ndarray:
    """Return words in random order, each followed by a space."""
    words = [np.append(WORDS[rng.integers(len(WORDS))], SPACE) for _ in range(length // 7 + 1)]
    return np.concatenate(words)[:length].astype(np.int64)


def batches(seed: int, *, rows: int = 8, length: int = 56) -> Iterator[Batch]:
    rng = np.random.default_rng(seed)
    while True:
        pieces = [text(rng, length) for _ in range(rows)]
        labels = np.concatenate([np.append(piece[1:], -100) for piece in pieces])
        yield Batch(np.concatenate(pieces), labels, (length,) * rows)


@functools.cache
def trained(num_layers: int = 2) -> Decoder:
    """Return a model that knows the words, with two prediction modules."""
    shape = ModelShape(
        dim=32, num_layers=num_layers, num_heads=2, num_kv_heads=2, context_length=CONTEXT
    )
    model = Decoder(replace(shape.build(VOCAB_SIZE), num_mtp_layers=2), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _, batch in zip(range(120), batches(0), strict=False):
        loss = NextTokenObjective()(model, batch)
        optimizer.zero_grad()
        (loss.minimised / loss.count).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@functools.cache
def one_module() -> Decoder:
    """Return the same model with its first prediction module only."""
    whole = trained()
    model = Decoder(replace(whole.spec, num_mtp_layers=1))
    names = model.state_dict().keys()
    model.load_state_dict({k: v for k, v in whole.state_dict().items() if k in names})
    return model.eval().requires_grad_(False)


@functools.cache
def eagle() -> EagleHead:
    head = EagleHead(trained().spec, ffn_dim=48)
    train_head(trained(), head, batches(1), num_steps=60, config=HeadTraining(5e-3))
    return head


@functools.cache
def medusa() -> MedusaHeads:
    heads = MedusaHeads(trained().spec.dim, 3)
    train_head(trained(), heads, batches(2), num_steps=60, config=HeadTraining(1e-2))
    return heads


@functools.cache
def block() -> BlockHead:
    head = BlockHead(trained().spec, ffn_dim=48, num_layers=2)
    torch.manual_seed(0)
    config = HeadTraining(1e-2, run_ahead=4)
    train_head(trained(), head, batches(3), num_steps=100, config=config)
    return head


def prompts(num: int, length: int = 17) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(7)
    return [tuple(text(rng, length - index % 4).tolist()) for index in range(num)]


def serve(
    requests: Sequence[Request],
    speculation: SpeculationConfig | None = None,
    *,
    model: Decoder | None = None,
    drafter: nn.Module | None = None,
    **settings: object,
) -> tuple[list[Completion], EngineCore]:
    """Serve requests to the end; nothing may fail or be left behind."""
    chosen = {"num_blocks": 96, "block_size": 4, "max_num_sequences": 8} | settings
    config = EngineConfig(speculation=speculation, **chosen)
    core = EngineCore(model or trained(), config=config, clock=VirtualClock(), drafter=drafter)
    streams = [core.submit(request) for request in requests]
    while core.has_work:
        core.step()
        assert core.loop.failure is None, core.loop.failure
    assert_nothing_left(core)
    assert core.runner.num_failed_proposals == 0
    return [stream.completion() for stream in streams], core
