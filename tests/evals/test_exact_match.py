from __future__ import annotations

from tests.evals.support import ENGINE, tiny_model, tokenizer
from weft.data.tasks.addition import Addition
from weft.data.tasks.task import sample
from weft.engine.llm import LLM
from weft.evals.exact_match import exact_match
from weft.evals.interval import wilson


class ByLength:
    """A judge that likes answers of even length."""

    name = "by-length"

    def problems(self, split, seed):
        return Addition().problems(split, seed)

    def grade(self, problem, text):
        return len(text) % 2 == 0


def run(llm, n=12):
    return exact_match(llm, ByLength(), sample(Addition(), "test", count=n), max_tokens=3)


def test_score_is_the_share_the_judge_accepts():
    found = run(LLM(tiny_model(), tokenizer(), ENGINE))
    assert found.num_correct == sum(len(answer.text) % 2 == 0 for answer in found.answers)
    assert found.score == found.num_correct / 12
    assert found.interval == wilson(found.num_correct, 12)


def test_generation_is_greedy_and_so_repeatable():
    assert run(LLM(tiny_model(), tokenizer(), ENGINE)) == run(
        LLM(tiny_model(), tokenizer(), ENGINE)
    )


def test_answers_cut_off_are_counted():
    found = run(LLM(tiny_model(), tokenizer(), ENGINE))
    assert sum(found.finish_reasons.values()) == 12
    assert found.finish_reasons["length"] > 0


def test_prompt_is_the_chat_template_with_the_assistants_header():
    found = run(LLM(tiny_model(), tokenizer(), ENGINE))
    text = tokenizer().decode(found.first_prompt, skip_special=False)
    assert text.startswith("<|im_start|>user\nWhat is ")
    assert text.endswith("<|im_start|>assistant\n")
