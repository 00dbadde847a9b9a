"""Contrastive search: likely tokens that do not repeat what was said (Su et al. 2022).

At each step the ``k`` likeliest tokens are computed, and the one is taken with the largest

    (1 - alpha) * p(v | x)  -  alpha * max over earlier tokens j of cos(h_v, h_j)

where h are last hidden states (arXiv:2202.06417, eq. 5). The candidates' hidden states come with
the logits behind them, so a step is one forward pass of ``k`` tokens per prompt. It needs hidden
states that no request of the engine gives away; so it runs on a cache of its own, beside it.
(Contrastive *decoding*, arXiv:2210.15097, is another method, which compares two models.)

Shapes: B prompts, R = B * k candidates, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from weft.core.errors import ConfigError, ContextLengthError
from weft.models.continuations import Continuations
from weft.models.decoder import Decoder


@dataclass(frozen=True)
class ContrastiveParams:
    """How tokens are chosen.

    Attributes:
        k: Candidates per step; 1 is greedy search.
        alpha: Weight of the penalty, from 0 (greedy) to 1.
        max_tokens: Most new tokens.
        ignore_eos: Continue past the model's end tokens.
    """

    k: int = 4
    alpha: float = 0.6
    max_tokens: int = 16
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        for name in ("k", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix="use at least 1")
        if not 0.0 <= self.alpha <= 1.0:
            raise ConfigError(f"alpha is {self.alpha}", fix="choose 0 to 1")


@dataclass(frozen=True)
class ContrastiveResult:
    """One continuation.

    Attributes:
        tokens: Without the end token.
        finished: Whether it ended by itself, not by ``max_tokens``.
    """

    tokens: tuple[int, ...]
    finished: bool


@torch.inference_mode()
def contrastive_search(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    params: ContrastiveParams,
    eos_ids: Collection[int] = (),
) -> list[ContrastiveResult]:
    """Continue each prompt.

    Raises:
        ContextLengthError: a prompt and its continuation do not fit the context.
    """
    _check_lengths(model, prompts, params)
    ends = frozenset() if params.ignore_eos else frozenset(eos_ids)
    k = min(params.k, model.spec.vocab_size)
    rows = Continuations(model, prompts, max_tokens=params.max_tokens, num_beams=k)
    logits_BV = rows.start()
    histories = [normalize(part_SD) for part_SD in _parts(rows.hidden_TD, prompts)]
    tokens: list[list[int]] = [[] for _ in prompts]
    finished = [False] * len(prompts)
    # Which prompt each row of logits belongs to, and its index in the latest call.
    active, sources = list(range(len(prompts))), list(range(len(prompts)))
    while active:
        top = logits_BV.float().softmax(-1).topk(k)
        parents_R = torch.tensor(sources).repeat_interleave(k)
        logits_RV = rows.advance(parents_R, top.indices.flatten())
        hidden_RD = normalize(rows.hidden_TD.float())
        going: list[tuple[int, int]] = []
        for place, prompt in enumerate(active):
            hidden_KD = hidden_RD[place * k : (place + 1) * k]
            penalty_K = (hidden_KD @ histories[prompt].T).amax(-1)
            score_K = (1 - params.alpha) * top.values[place] - params.alpha * penalty_K
            best = int(score_K.argmax())
            token = int(top.indices[place, best])
            finished[prompt] = token in ends
            if finished[prompt]:
                continue
            tokens[prompt].append(token)
            if len(tokens[prompt]) < params.max_tokens:
                histories[prompt] = torch.cat((histories[prompt], hidden_KD[best : best + 1]))
                going.append((prompt, place * k + best))
        active, sources = [prompt for prompt, _ in going], [row for _, row in going]
        logits_BV = logits_RV[sources]
    return [
        ContrastiveResult(tuple(ids), ended) for ids, ended in zip(tokens, finished, strict=True)
    ]


def _parts(hidden_TD: Tensor, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
    return hidden_TD.float().split([len(prompt) for prompt in prompts])


def _check_lengths(
    model: Decoder, prompts: Sequence[Sequence[int]], params: ContrastiveParams
) -> None:
    limit = model.spec.context_length
    for prompt in prompts:
        if not prompt or len(prompt) + params.max_tokens > limit:
            raise ContextLengthError(
                f"{len(prompt)} prompt tokens and {params.max_tokens} new ones; the context is "
                f"{limit} and a prompt has at least one token",
                fix="shorten the prompt or lower max_tokens",
            )
