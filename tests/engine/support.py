"""Tiny models and a tokenizer trained on a page of text, for the tests of the engine."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.llm import LLM
from weft.engine.outputs import Completion
from weft.models.decoder import Decoder
from weft.sched.loop import VirtualClock
from weft.spec import ModelShape, SamplingParams
from weft.text.tokenizer import Tokenizer
from weft.text.train import train_bpe

VOCAB_SIZE = 300
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
_TEXT = (
    "Grüße aus Köln! 漢字かな交じり文 🙂 the quick brown fox jumps over the lazy dog. "
    "To weave is to cross a weft with a warp, again and again, until there is cloth. "
)


@functools.cache
def tokenizer() -> Tokenizer:
    return train_bpe([_TEXT] * 3, VOCAB_SIZE)


@functools.cache
def model(family: str = "llama", seed: int = 0) -> Decoder:
    """Return a random model whose logits are far enough apart for greedy tests."""
    shape = ModelShape(
        family=family, dim=32, num_layers=2, num_heads=4, num_kv_heads=2, context_length=128
    )
    built = Decoder(shape.build(VOCAB_SIZE, eos_ids=tokenizer().eos_ids), seed=seed)
    for parameter in built.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(4.0)
    return built.eval()


def make_llm(family: str = "llama", *, decoder: Decoder | None = None, **config) -> LLM:
    settings = {"num_blocks": 64, "block_size": 4, "max_num_sequences": 32} | config
    settings["max_num_sequences"] = min(
        settings["max_num_sequences"], settings.get("max_tokens_per_step", 2048)
    )
    return LLM(
        decoder or model(family), tokenizer(), EngineConfig(**settings), clock=VirtualClock()
    )


def make_prompts(num: int = 6) -> list[list[int]]:
    """Return prompts of different lengths; some share their beginning."""
    start = [5, 7, 11, 13, 17, 19, 23, 29, 31]
    return [
        (start[: 3 + index] if index % 2 else []) + [40 + index, 60 + 3 * index] * (1 + index)
        for index in range(num)
    ]


def tokens_of(completions: Sequence[Completion]) -> list[tuple[int, ...]]:
    return [completion.tokens for completion in completions]


def assert_nothing_left(core: EngineCore) -> None:
    """Assert that no request, block or runner state is left behind."""
    core.scheduler.check()
    stats = core.stats().scheduler
    assert (stats.num_running, stats.num_waiting, stats.num_used_blocks) == (0, 0, 0)
    assert core.num_unfinished == 0
    assert len(core.runner.table) == 0
