"""The same input many times, among different neighbours: the same tokens, to the bit."""

from __future__ import annotations

import pytest
import torch

from tests.engine.support import GREEDY, make_llm, make_prompts
from tests.engine.test_trainer_equality import EXACT, decoder
from weft.spec import SamplingParams

NUM_TIMES = 12
PROMPT = list(range(20, 51))
SEEDED = SamplingParams(temperature=0.8, seed=5, max_tokens=12, ignore_eos=True)


@pytest.mark.skipif(not EXACT, reason="no C compiler or no AVX-512: sums have no fixed order")
@pytest.mark.pair("deterministic", "batching")
@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_an_input_repeats_itself_among_any_neighbours(params):
    """Greedy and batch-invariant: tokens and log-probabilities are one and the same each time."""
    llm = make_llm(decoder=decoder(), deterministic=True, num_blocks=2048)
    generator = torch.Generator().manual_seed(0)
    answers = set()
    for _ in range(NUM_TIMES):
        num_neighbours = int(torch.randint(0, 7, (1,), generator=generator))
        neighbours = [
            torch.randint(0, 300, (size,), generator=generator).tolist()
            for size in torch.randint(1, 60, (num_neighbours,), generator=generator).tolist()
        ]
        place = int(torch.randint(0, num_neighbours + 1, (1,), generator=generator))
        prompts = [*neighbours[:place], PROMPT, *neighbours[place:]]
        mine = llm.generate(prompts, params)[place]
        answers.add((mine.tokens, mine.logprobs))
    assert len(answers) == 1


def test_without_batch_invariance_tokens_agree_and_log_probabilities_nearly():
    alone = make_llm(decoder=decoder()).generate([PROMPT], GREEDY)[0]
    beside = make_llm(decoder=decoder()).generate([*make_prompts(), PROMPT], GREEDY)[-1]
    assert beside.tokens == alone.tokens
    assert beside.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
