"""Structured output through the whole engine, on random weights."""

from __future__ import annotations

import dataclasses
import json
import re
import threading

import pytest
import torch

from tests.engine.grammar.support import accepts, decode, generate
from tests.engine.support import (
    VOCAB_SIZE,
    assert_nothing_left,
    make_llm,
    make_prompts,
    model,
    tokenizer,
    tokens_of,
)
from weft.core.errors import RequestError
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.models import heads
from weft.nn.context import StepContext
from weft.spec import FinishReason, SamplingParams
from weft.spec.structured import EBNF, Choice, JSONObject, JSONSchema, Regex

SHORT = {"type": "string", "maxLength": 6}


def record(required: list[str] | None = None, **properties) -> dict:
    names = list(properties) if required is None else required
    return {
        "type": "object", "properties": properties, "required": names,
        "additionalProperties": False,
    }  # fmt: skip


# Bounded, so that random weights come to an end.
SCHEMAS = {
    "nested": record(a=record(b=record(c={"type": "boolean"}))),
    "array": {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 1, "maxItems": 4},
    "pair": {"type": "array", "prefixItems": [SHORT, {"type": "null"}], "items": False,
             "minItems": 2},
    "objects": record(items={"type": "array", "maxItems": 2,
                             "items": record(id={"type": "integer", "minimum": 0, "maximum": 9})}),
    "enum": {"enum": ["red", "grün", "青", None, 7, {"x": [1]}]},
    "const": {"const": {"deep": ["a\"b\\c\n", "🙂"]}},
    "range": record(n={"type": "integer", "minimum": -20, "maximum": 30}),
    "number": record(x={"type": "number", "minimum": 0.5, "maximum": 2.5}),
    "escapes": record(**{'a "quoted"\\key': SHORT, "schlüssel 漢": SHORT}),
    "length": {"type": "string", "minLength": 3, "maxLength": 5},
    "pattern": record(code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}),
    "optional": record(required=["b"], a={"enum": [1]}, b={"enum": [2]}, c={"enum": [3]}),
    "none required": record(required=[], a={"enum": [1]}, b={"enum": [2]}),
    "either": {"anyOf": [{"type": "null"}, record(k=SHORT), {"enum": ["x"]}]},
    "kinds": record(v={"type": ["boolean", "null"]}),
    "reference": {"$ref": "#/$defs/leaf", "$defs": {"leaf": record(w={"enum": ["p", "q"]})}},
    "recursive": {
        "$ref": "#/$defs/node",
        "$defs": {"node": record(
            required=["v"], v={"enum": [0]},
            next={"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]})},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_output_on_random_weights_meets_its_schema(name: str):
    schema = SCHEMAS[name]
    llm = make_llm(num_blocks=512)
    num_whole = 0
    for fields in ({"temperature": 1.0}, {"temperature": 0.0}, {"temperature": 3.0, "top_p": 0.9}):
        spec = JSONSchema.of(schema, compact=True)
        for completion in generate(spec, 6, llm, **fields):
            if completion.finish_reason is FinishReason.LENGTH:
                continue  # recursion without an end
            assert completion.finish_reason is FinishReason.STOP, completion.error
            assert accepts(schema, json.loads(completion.text), schema), completion.text
            num_whole += 1
    assert num_whole == 18 if name != "recursive" else num_whole > 6
    assert_nothing_left(llm.core)
    assert len(llm.core.runner.table.grammars) == 0


def test_the_judge_refuses_what_is_not_valid():
    wrong = {
        "nested": {"a": {"b": {}}},
        "array": [],
        "enum": "blue",
        "range": {"n": 31},
        "length": "ab",
        "pattern": {"code": "AB-12"},
        "optional": {"a": 1},
        "kinds": {"v": 0},
    }
    for name, value in wrong.items():
        assert not accepts(SCHEMAS[name], value, SCHEMAS[name]), name


def test_white_space_between_the_parts_is_allowed_unless_compact():
    spec = JSONSchema.of(record(a={"enum": [1]}))
    # The tokens of spaces and line breaks are made likely.
    spaces = tuple((id, 30.0) for id in range(VOCAB_SIZE) if tokenizer().token_bytes(id) == b" ")
    (loose,) = generate(spec, logit_bias=spaces, max_tokens=8)
    assert loose.text.startswith("{  ")
    compact = dataclasses.replace(spec, compact=True)
    (tight,) = generate(compact, logit_bias=spaces)
    assert tight.text == '{"a":1}'


def test_any_object_is_an_object():
    ends = [c for c in generate(JSONObject(compact=True), 12, temperature=2.0, top_k=20)
            if c.finish_reason is FinishReason.STOP]  # fmt: skip
    assert ends
    assert all(isinstance(json.loads(c.text), dict) for c in ends)


@pytest.mark.parametrize(
    "pattern",
    [
        "(foo|ba+r){2,4}é?",
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
        r"(\d{1,3}\.){3}\d{1,3}",
        '[^"\n]{0,8}"',
        "漢+字?|🙂{2,3}",
        "^abc?$",
        "[a-c]{2}/\\\\x",
        "(?i)hello( world)?!{1,3}",
    ],
)
def test_a_regex_matches_the_whole_output(pattern: str):
    for completion in generate(Regex(pattern), 8):
        if completion.finish_reason is FinishReason.STOP:
            assert re.fullmatch(pattern, completion.text), completion.text
        else:
            assert completion.finish_reason is FinishReason.LENGTH
            assert "+" in pattern
    assert any(c.finish_reason is FinishReason.STOP for c in generate(Regex(pattern), 8))


def test_a_choice_is_one_of_its_texts_and_each_can_come():
    options = ("yes", "yes and no", 'n"o\\n\n', "été 🙂", "\t")
    texts = {c.text for c in generate(Choice(options), 64, temperature=20.0)}
    assert texts == set(options)


@pytest.mark.parametrize(
    "grammar",
    [
        'start: sum\nsum: NUMBER ("+" NUMBER)*\nNUMBER: /[0-9]{1,2}/',
        'root ::= num ("+" num)*\nnum ::= [0-9] [0-9]?',
    ],
    ids=["lark", "gbnf"],
)
def test_a_context_free_grammar_is_kept(grammar: str):
    for completion in generate(EBNF(grammar), 8):
        assert completion.finish_reason is FinishReason.STOP
        assert re.fullmatch(r"[0-9]{1,2}(\+[0-9]{1,2})*", completion.text)


def test_balanced_brackets_are_balanced():
    spec = EBNF('start: pair\npair: "(" pair? ")" | "[" pair? "]"')
    closing = {"(": ")", "[": "]"}
    for text in (c.text for c in generate(spec, 16) if c.finish_reason is FinishReason.STOP):
        half = len(text) // 2
        assert text[half:] == "".join(closing[character] for character in reversed(text[:half]))


# Invariance.

SPEC = JSONSchema.of(record(a={"type": "integer"}, b=SHORT), compact=True)
STRUCTURED = SamplingParams(structured=SPEC, max_tokens=40, seed=5, frequency_penalty=0.2)
FREE = SamplingParams(max_tokens=12, seed=3)


def alone(prompts, params):
    return [make_llm().generate([prompt], params)[0].tokens for prompt in prompts]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_same_tokens_alone_batched_chunked_and_beside_free_rows(temperature: float):
    params = dataclasses.replace(STRUCTURED, temperature=temperature)
    prompts = make_prompts()
    expected = alone(prompts, params)
    assert tokens_of(make_llm().generate(prompts, params)) == expected
    assert tokens_of(make_llm(max_tokens_per_step=3).generate(prompts, params)) == expected
    mixed = make_llm().generate(prompts, [params, FREE] * 3)
    assert tokens_of(mixed)[::2] == expected[::2]
    assert tokens_of(mixed)[1::2] == alone(prompts[1::2], FREE)


def test_preemption_does_not_disturb_a_grammar():
    params = dataclasses.replace(STRUCTURED, structured=Regex("[a-z ]{20,30}"), max_tokens=30)
    prompts = [[index + 1] * 9 for index in range(3)]
    crowded = make_llm(num_blocks=12, block_size=4)
    got = crowded.generate(prompts, params)
    assert crowded.stats().scheduler.counters.num_preemptions > 0
    assert tokens_of(got) == alone(prompts, params)
    assert all(re.fullmatch("[a-z ]{20,30}", c.text) for c in got)
    assert_nothing_left(crowded.core)


def test_deterministic_mode_and_samples_of_one_prompt():
    llm = make_llm(deterministic=True)
    samples = generate(SPEC, 6, llm)
    assert len(set(tokens_of(samples))) > 1
    again = generate(SPEC, 6, make_llm(deterministic=True))
    assert tokens_of(again) == tokens_of(samples)
    assert [c.logprobs for c in again] == [c.logprobs for c in samples]


def test_many_grammars_in_one_step_are_kept_apart():
    patterns = [f"{letter}{{3,5}}" for letter in "abcdefgh"]
    params = [SamplingParams(structured=Regex(p), max_tokens=8, seed=1) for p in patterns]
    got = make_llm().generate([[1, 2, 3]] * 8, params)
    assert all(re.fullmatch(p, c.text) for p, c in zip(patterns, got, strict=True))


# Together with other parameters.


def test_logprobs_are_those_of_the_masked_distribution():
    params = {"temperature": 0.7, "logprobs": 5, "max_tokens": 6}
    (completion,) = generate(Regex("[a-d]+"), **params)
    letters = {id for id in range(VOCAB_SIZE)
               if re.fullmatch(b"[a-d]+", tokenizer().token_bytes(id))}  # fmt: skip
    ends = set(make_llm().core.eos_ids)
    history = list(completion.prompt)
    for index, token in enumerate(completion.tokens):
        allowed = sorted(letters | (ends if index else set()))
        with torch.inference_mode():
            hidden_TD = model()(torch.tensor(history), StepContext.packed([len(history)]))
            logits_V = heads.logits(model(), hidden_TD[-1:])[0].float()
        logprobs = (logits_V[allowed] / 0.7).log_softmax(-1).tolist()
        expected = dict(zip(allowed, logprobs, strict=True))
        assert completion.logprobs[index] == pytest.approx(expected[token], abs=1e-4)
        top = dict(completion.top_logprobs[index])
        assert top == pytest.approx({id: expected[id] for id in top}, abs=1e-4)
        assert sorted(top.values()) == pytest.approx(sorted(expected.values())[-5:], abs=1e-4)
        history.append(token)


def test_min_tokens_hold_until_nothing_but_the_end_is_left():
    (long,) = generate(Regex("a{1,40}"), min_tokens=12)
    assert len(long.tokens) > 12
    assert re.fullmatch("a{12,40}", long.text)
    (short,) = generate(Regex("ab"), min_tokens=12)
    assert short.text == "ab"
    assert short.finish_reason is FinishReason.STOP


def test_stop_tokens_of_the_request_end_only_complete_texts():
    stop = next(id for id in range(VOCAB_SIZE) if tokenizer().token_bytes(id) == b"b")
    for completion in generate(Regex("[ab]{3}"), 16, stop_token_ids=(stop,), max_tokens=8):
        assert completion.finish_reason is FinishReason.STOP
        assert completion.text == "aaa"


def test_a_stop_text_still_cuts():
    (completion,) = generate(Choice(("left|right",)), stop=("|",))
    assert (completion.text, completion.stop_text) == ("left", "|")


def test_bias_penalties_and_truncation_choose_among_what_is_allowed():
    heavy = next(id for id in range(VOCAB_SIZE) if tokenizer().token_bytes(id) == b"z")
    fields = {"logit_bias": ((heavy, 100.0),), "top_k": 3, "min_p": 0.1, "presence_penalty": 1.0,
              "repetition_penalty": 1.3}  # fmt: skip
    (completion,) = generate(Regex("[a-c]{2}z?"), **fields)
    assert re.fullmatch("[a-c]{2}z", completion.text)


def test_what_excludes_a_grammar_ends_only_that_request_with_a_reason():
    params = SamplingParams(structured=Regex("abc"), seed=1, max_tokens=12, allowed_token_ids=(5,))
    llm = make_llm()
    failed, fine, free = llm.generate([[1, 2, 3]] * 3, [params, STRUCTURED, FREE])
    assert failed.finish_reason is FinishReason.ERROR
    assert "grammar" in failed.error
    assert fine.tokens == alone([[1, 2, 3]], STRUCTURED)[0]
    assert free.tokens == alone([[1, 2, 3]], FREE)[0]
    assert_nothing_left(llm.core)


@pytest.mark.parametrize("method", ["compute_bitmask", "consume_token"])
def test_a_grammar_that_fails_ends_only_its_request(monkeypatch, method: str):
    llm = make_llm()

    class Broken:
        """A matcher that fails at its third token."""

        def __init__(self, matcher):
            self.matcher, self.num_calls = matcher, 0

        def __getattr__(self, name):
            if name == method or (name, method) == ("unsafe_compute_mask_ptr", "compute_bitmask"):
                self.num_calls += 1
                if self.num_calls > 2:
                    raise RuntimeError("lexer is on fire")
            return getattr(self.matcher, name)

    prepare = llm.core.prepare

    def break_first(request):
        state = prepare(request)
        if state is not None and request.sampling.max_tokens == 39:
            state.matcher = Broken(state.matcher)
        return state

    monkeypatch.setattr(llm.core, "prepare", break_first)
    broken = dataclasses.replace(STRUCTURED, max_tokens=39)
    failed, fine, free = llm.generate([[1, 2, 3]] * 3, [broken, STRUCTURED, FREE])
    assert failed.finish_reason is FinishReason.ERROR
    assert "lexer is on fire" in failed.error
    assert failed.tokens == fine.tokens[: len(failed.tokens)]
    assert fine.tokens == alone([[1, 2, 3]], STRUCTURED)[0]
    assert free.tokens == alone([[1, 2, 3]], FREE)[0]
    assert_nothing_left(llm.core)
    assert len(llm.core.runner.table.grammars) == 0


def test_a_refused_structure_leaves_nothing_behind():
    llm = make_llm()
    with pytest.raises(RequestError, match="cannot be enforced"):
        llm.generate([[1]] * 2, [FREE, SamplingParams(structured=Regex("("))])
    assert_nothing_left(llm.core)


def test_without_a_tokenizer_or_an_end_token_a_structure_is_refused():
    config = EngineConfig(num_blocks=8, block_size=4, max_num_sequences=4)
    with pytest.raises(RequestError, match="needs a tokenizer"):
        LLM(model(), None, config).generate([[1]], STRUCTURED)
    llm = make_llm()
    llm.core.eos_ids = ()
    with pytest.raises(RequestError, match="needs an end token"):
        llm.generate([[1]], STRUCTURED)


def test_an_aborted_request_gives_its_grammar_back():
    llm = make_llm()
    stream = llm.stream([1, 2, 3], STRUCTURED)
    assert next(stream).token is not None
    stream.close()
    assert len(llm.core.runner.table.grammars) == 0
    assert threading.active_count() < 100


def test_streamed_text_is_the_whole_text():
    text = "".join(delta.text for delta in make_llm().stream([1, 2, 3], STRUCTURED))
    assert text == make_llm().generate([[1, 2, 3]], STRUCTURED)[0].text
    assert text == decode(make_llm().generate([[1, 2, 3]], STRUCTURED)[0])
