"""What networks guess from their caches is what they guess when all is computed afresh."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch

from tests.engine.speculation.support import (
    block,
    eagle,
    one_module,
    prompts,
    serve,
    trained,
)
from weft.engine.config import EngineConfig
from weft.engine.core import EngineCore
from weft.engine.speculation.config import SpeculationConfig, TreeShape
from weft.models import heads
from weft.models.block_draft import BlockHead
from weft.models.decoder import Decoder
from weft.models.mtp import MTPModule
from weft.nn.context import StepContext
from weft.sched.loop import VirtualClock
from weft.sched.plan import Draft
from weft.spec import SamplingParams
from weft.spec.request import Request

GREEDY = SamplingParams(temperature=0.0, max_tokens=30)
NUM_GUESSES = 3
SETTINGS = {
    "roomy": {},
    "chunked": {"max_tokens_per_step": 9},
    "preempted": {"num_blocks": 24},
}


def _packed(num_tokens: int) -> StepContext:
    return StepContext.packed([num_tokens])


def _best(model: Decoder, hidden_D: torch.Tensor) -> int:
    return int(heads.logits(model, hidden_D[None]).argmax())


def _decoder_guesses(decoder: Decoder, tokens: Sequence[int]) -> tuple[int, ...]:
    known = list(tokens)
    for _ in range(NUM_GUESSES):
        hidden_TD = decoder(torch.tensor(known), _packed(len(known)))
        known.append(_best(decoder, hidden_TD[-1]))
    return tuple(known[-NUM_GUESSES:])


def _head_guesses(model: Decoder, head: MTPModule, tokens: Sequence[int]) -> tuple[int, ...]:
    """Every guess adds a position whose feature is the head's own answer."""
    known = list(tokens)
    features_TD = model(torch.tensor(known[:-1]), _packed(len(known) - 1))
    for _ in range(NUM_GUESSES):
        ctx = _packed(len(known) - 1)
        answers_TD = head(features_TD, model.embed_tokens(torch.tensor(known[1:]), ctx), ctx)
        known.append(_best(model, answers_TD[-1]))
        features_TD = torch.cat((features_TD, answers_TD[-1:]))
    return tuple(known[-NUM_GUESSES:])


def _module_guesses(model: Decoder, tokens: Sequence[int]) -> tuple[int, ...]:
    known = list(tokens)
    num_tokens = len(known) - 1
    hidden_TD = model(torch.tensor(known[:-1]), _packed(num_tokens))
    for steps, module in enumerate(model.mtp, start=1):
        ctx = _packed(num_tokens)
        ahead_T = torch.tensor(known[steps : steps + num_tokens])
        hidden_TD = module(hidden_TD, model.embed_tokens(ahead_T, ctx), ctx)
        known.append(_best(model, hidden_TD[-1]))
    return tuple(known[len(tokens) :])


@torch.inference_mode()
def _check_drafts(
    config: SpeculationConfig,
    model: Decoder,
    drafter: torch.nn.Module | None,
    expected: Callable[[Sequence[int]], Draft],
    settings: dict,
) -> None:
    """Serve with a proposer whose every draft is compared with one computed afresh."""
    requests = [Request(str(i), prompt, GREEDY) for i, prompt in enumerate(prompts(3, 27))]
    chosen = {"num_blocks": 96, "block_size": 4, "max_num_sequences": 8} | settings
    core = EngineCore(
        model,
        config=EngineConfig(speculation=config, **chosen),
        clock=VirtualClock(),
        drafter=drafter,
    )
    proposer, known, num_checked = core.speculator.proposer, {}, 0
    propose = proposer.propose

    def checked(view):
        nonlocal num_checked
        known.update({new.id: list(new.prompt) for new in view.new})
        drafts = propose(view)
        for id in view.walks:
            known[id] += view.drawn(id)
        for id, draft in drafts.items():
            assert draft == expected(known[id]), (id, len(known[id]))
            num_checked += 1
        return drafts

    proposer.propose = checked
    for request in requests:
        core.submit(request)
    while core.has_work:
        core.step()
    assert core.runner.num_failed_proposals == 0
    assert num_checked > 15
    if "num_blocks" in settings:
        assert core.stats().scheduler.counters.num_preemptions > 0


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_drafting_model(settings):
    drafter = one_module()
    _check_drafts(
        SpeculationConfig("draft", NUM_GUESSES),
        trained(),
        drafter,
        lambda known: Draft(_decoder_guesses(drafter, known)),
        SETTINGS[settings],
    )


@pytest.mark.parametrize("settings", SETTINGS)
def test_an_eagle_head(settings):
    _check_drafts(
        SpeculationConfig("eagle", NUM_GUESSES),
        trained(),
        eagle(),
        lambda known: Draft(_head_guesses(trained(), eagle(), known)),
        SETTINGS[settings],
    )


@pytest.mark.parametrize("settings", SETTINGS)
def test_one_prediction_module_used_again(settings):
    model = one_module()
    _check_drafts(
        SpeculationConfig("mtp", NUM_GUESSES),
        model,
        None,
        lambda known: Draft(_head_guesses(model, model.mtp[0], known)),
        SETTINGS[settings],
    )


@pytest.mark.parametrize("settings", SETTINGS)
def test_several_prediction_modules(settings):
    _check_drafts(
        SpeculationConfig("mtp", NUM_GUESSES),
        trained(),
        None,
        lambda known: Draft(_module_guesses(trained(), known)),
        SETTINGS[settings],
    )


def _block_guesses(model: Decoder, head: BlockHead, tokens: Sequence[int]) -> tuple[int, ...]:
    known_T = torch.tensor(tokens)
    hidden_TD = model(known_T[:-1], _packed(len(tokens) - 1))
    last_1D = model.embed_tokens(known_T[-1:], _packed(1))
    masks_MD = head.mask.expand(NUM_GUESSES - 1, -1)
    rows_TD = torch.cat((head.inject(hidden_TD), last_1D, masks_MD))
    answers_TD = head(rows_TD, _packed(len(rows_TD)))
    guesses = [tokens[-1]]
    for answer_D in answers_TD[-NUM_GUESSES:]:
        scores_V = heads.logits(model, answer_D[None]) + head.bias(torch.tensor([guesses[-1]]))
        guesses.append(int(scores_V.argmax()))
    return tuple(guesses[1:])


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_block_head(settings):
    _check_drafts(
        SpeculationConfig("block", NUM_GUESSES),
        trained(),
        block(),
        lambda known: Draft(_block_guesses(trained(), block(), known)),
        SETTINGS[settings],
    )


def _likeliest_paths(known: Sequence[int], branching: int, depth: int, num: int) -> Draft:
    """Score every node of the whole tree by itself; the frontier is as wide as it branches."""
    frontier, scored = [((), 0.0)], {}
    for _ in range(depth):
        level = []
        for path, logprob in frontier:
            tokens = torch.tensor([*known, *path])
            hidden_TD = trained()(tokens, _packed(len(tokens)))
            logprobs_V = heads.logits(trained(), hidden_TD[-1:]).log_softmax(dim=-1)[0]
            best = logprobs_V.topk(branching)
            level += [
                ((*path, token), logprob + value)
                for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        scored |= dict(level)
        frontier = sorted(level, key=lambda node: -node[1])[:branching]
    order = sorted(scored, key=lambda path: -scored[path])[:num]
    parents = (order.index(path[:-1]) if len(path) > 1 else -1 for path in order)
    return Draft(tuple(path[-1] for path in order), tuple(parents))


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_tree_holds_the_likeliest_paths(settings):
    def same(known):
        return _likeliest_paths(known, 2, 3, 5)

    config = SpeculationConfig("draft", 5, tree=TreeShape(2, 3))
    _check_drafts(config, trained(), trained(), same, SETTINGS[settings])


def test_drafting_resumes_behind_tokens_it_has_not_seen():
    """While drafting is off tokens wait; all are computed when it goes on."""
    requests = [Request("0", prompts(1)[0], SamplingParams(temperature=0.0, max_tokens=60))]
    config = SpeculationConfig("eagle", NUM_GUESSES, switch=None)
    core = EngineCore(
        trained(),
        config=EngineConfig(num_blocks=40, block_size=4, speculation=config),
        clock=VirtualClock(),
        drafter=eagle(),
    )
    decisions = itertools.cycle([True] * 3 + [False] * 5)
    core.speculator._switch.step = lambda view: next(decisions)
    stream = core.submit(requests[0])
    while core.has_work:
        core.step()
    plain, _ = serve(requests)
    assert stream.completion().tokens == plain[0].tokens
    stats = core.speculator.stats()
    assert stats.num_drafts >= 6
    assert stats.acceptance_rate > 0.4
