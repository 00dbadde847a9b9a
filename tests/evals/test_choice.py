from __future__ import annotations

import pytest
import torch

from tests.evals.support import tiny_model, tokenizer, uniform_model
from weft.core.errors import DataError
from weft.evals.choice import ChoiceItem, choose
from weft.models.heads import logits
from weft.nn.context import StepContext

ITEMS = [
    ChoiceItem("What is", (" the sum", " 17", " number of items"), 0),
    ChoiceItem("Return the", (" sum", " number", " items?"), 2),
    ChoiceItem("", ("the", "sum of"), 1),
]


def brute_force(model, item):
    """Score every choice by feeding the whole text, with the border found by decoding."""
    tok = tokenizer()
    values = []
    for choice in item.choices:
        tokens = tok.encode(item.context + choice)
        first = next(
            i for i in range(len(tokens)) if len(tok.decode(tokens[: i + 1])) > len(item.context)
        )
        tokens = [tok.bos_id, *tokens] if first == 0 else tokens
        first = max(first, 1)
        with torch.no_grad():
            hidden_TD = model(torch.tensor(tokens), StepContext.packed([len(tokens)]))
            table = logits(model, hidden_TD).log_softmax(-1)
        values.append(sum(float(table[i - 1, tokens[i]]) for i in range(first, len(tokens))))
    return values


@pytest.mark.parametrize("seed", range(4))
def test_choice_equals_brute_force(seed):
    model = tiny_model(seed)
    found = choose(model, tokenizer(), ITEMS)
    expected = [brute_force(model, item) for item in ITEMS]
    for values, wanted in zip(found.log_probs, expected, strict=True):
        assert values == pytest.approx(wanted, abs=1e-4)
    correct = sum(max(range(len(v)), key=v.__getitem__) == item.answer
                  for v, item in zip(expected, ITEMS, strict=True))  # fmt: skip
    assert found.num_correct == correct


def test_per_byte_score_does_not_favour_short_choices():
    item = ChoiceItem("What is", (" 1", " the number of items"), 1)
    found = choose(uniform_model(), tokenizer(), [item])
    # Equal probability per token: fewer tokens win raw, more bytes per token win per byte.
    assert found.num_correct == 0
    assert found.num_correct_per_byte == 1


def test_chance_is_the_mean_of_one_over_the_number_of_choices():
    found = choose(tiny_model(), tokenizer(), ITEMS)
    assert found.chance == pytest.approx((1 / 3 + 1 / 3 + 1 / 2) / 3)
    assert found.n == 3


def test_results_do_not_depend_on_the_company_of_items():
    model = tiny_model()
    together = choose(model, tokenizer(), ITEMS).log_probs[1]
    alone = choose(model, tokenizer(), ITEMS[1:2]).log_probs[0]
    assert together == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize(
    ("choices", "answer"), [(("a",), 0), (("a", "a"), 0), (("a", "b"), 2), (("a", "b"), -1)]
)
def test_items_that_cannot_be_answered_are_refused(choices, answer):
    with pytest.raises(DataError):
        ChoiceItem("x", choices, answer)


def test_no_items_are_refused():
    with pytest.raises(DataError):
        choose(tiny_model(), tokenizer(), [])
