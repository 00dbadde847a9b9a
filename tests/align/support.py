"""A tiny policy, a tokenizer that knows its task, and hand-made samples."""

from __future__ import annotations

import functools

from weft.align.grpo_config import GRPOConfig
from weft.align.types import Group, Sample
from weft.data.tasks.task import Problem
from weft.engine.config import EngineConfig
from weft.models.decoder import Decoder
from weft.spec import ModelShape
from weft.spec.request import FinishReason
from weft.spec.sampling import SamplingParams
from weft.text.tokenizer import Tokenizer
from weft.text.train import train_bpe
from weft.train.optim import OptimizerConfig
from weft.train.schedule import ScheduleConfig

ENGINE = EngineConfig(kv_tokens=4096, max_num_sequences=64, max_tokens_per_step=512)


@functools.cache
def tokenizer() -> Tokenizer:
    texts = ["What is 17 + 25? user assistant system the sum of numbers"] * 3
    return train_bpe(texts, 300)


def tiny_model(seed: int = 0, **shape: int) -> Decoder:
    sizes = {"dim": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, **shape}
    tok = tokenizer()
    spec = ModelShape(**sizes, context_length=128).build(tok.vocab_size, eos_ids=tok.eos_ids)
    return Decoder(spec, seed=seed)


def sample(
    *, prompt: int = 2, actions: int = 2, reward: float | None = 1.0, first_token: int = 5
) -> Sample:
    tokens = list(range(first_token, first_token + prompt + actions))
    return Sample.from_completion(
        tokens[:prompt],
        tokens[prompt:],
        [-0.5 - 0.1 * i for i in range(actions)],
        weight_versions=[0] * actions,
        finish_reason=FinishReason.STOP,
        reward=reward,
    )


def group(*rewards: float | None, actions: int = 2) -> Group:
    samples = tuple(
        sample(reward=reward, actions=actions + index % 2, first_token=5 + index)
        for index, reward in enumerate(rewards)
    )
    return Group(Problem("What is 1 + 1?", "2"), samples)


def tiny_config(**changes: object) -> GRPOConfig:
    settings = {
        "steps": 2,
        "prompts_per_step": 3,
        "group_size": 4,
        "sampling": SamplingParams(max_tokens=4),
        "engine": ENGINE,
        "optimizer": OptimizerConfig(name="adamw", lr=1e-2, weight_decay=0.0),
        "schedule": ScheduleConfig(kind="constant", warmup_steps=0),
        "checkpoint_interval_s": None,
        "sample_interval_s": None,
        **changes,
    }
    return GRPOConfig(**settings)  # type: ignore[arg-type]


class ParityGrader:
    """Rewards answers by the parity of their length: random policies get mixed groups."""

    def grade(self, problem: Problem, text: str, finish_reason: FinishReason):
        from weft.align.grade import Grade

        return Grade.CORRECT if sum(text.encode()) % 2 else Grade.WRONG
