"""Generating, chatting and scoring: what comes out, what is refused, what is left behind."""

from __future__ import annotations

import pytest

from tests.engine.support import (
    GREEDY,
    assert_nothing_left,
    make_llm,
    make_prompts,
    model,
    tokenizer,
    tokens_of,
)
from weft.checkpoint.hf import save_model
from weft.core.errors import (
    ConfigError,
    ContextLengthError,
    RequestError,
    TokenizerError,
    UnsupportedError,
)
from weft.engine.async_engine import AsyncEngine
from weft.engine.config import EngineConfig
from weft.engine.llm import LLM
from weft.spec import FinishReason, SamplingParams


class Planned:
    """Makes the model write chosen tokens: the logits of every step point at the next one."""

    def __init__(self, monkeypatch, tokens):
        import torch

        from weft.engine import runner

        # The request's own positions decide, so chunks, batches and preemption do not matter.
        self.tokens = tokens

        def logits(decoder, hidden_RD):
            rows = torch.zeros(len(hidden_RD), decoder.spec.vocab_size)
            rows[:, tokens[min(self.num_drawn, len(tokens) - 1)]] = 50.0
            self.num_drawn += 1
            return rows

        self.num_drawn = 0
        monkeypatch.setattr(runner.heads, "logits", logits)


def write(monkeypatch, text, tail=()):
    tokens = tokenizer().encode(text)
    Planned(monkeypatch, [*tokens, *tail])
    return tokens


def test_text_prompt_is_encoded_and_output_decoded(monkeypatch):
    written = write(monkeypatch, "the quick brown fox")
    completion = make_llm().generate("lazy dog", SamplingParams(max_tokens=len(written)))[0]
    assert completion.prompt == tuple(tokenizer().encode("lazy dog"))
    assert completion.tokens == tuple(written)
    assert completion.text == "the quick brown fox"
    assert completion.finish_reason is FinishReason.LENGTH
    assert completion.top_logprobs == ()


def test_multi_byte_characters_arrive_whole(monkeypatch):
    written = write(monkeypatch, "漢字 🙂 ß")
    pieces = [d.text for d in make_llm().stream([1], SamplingParams(max_tokens=len(written)))]
    assert "".join(pieces) == "漢字 🙂 ß"
    assert all("�" not in piece for piece in pieces)
    assert "" in pieces


def test_end_token_is_in_tokens_but_not_in_text(monkeypatch):
    end = tokenizer().eos_ids[0]
    written = write(monkeypatch, "a cloth", [end])
    completion = make_llm().generate([[1]], SamplingParams())[0]
    assert completion.tokens == (*written, end)
    assert completion.text == "a cloth"
    assert completion.finish_reason is FinishReason.STOP
    assert len(completion.logprobs) == len(completion.tokens)


def test_named_stop_token_is_in_tokens_but_not_in_text(monkeypatch):
    written = write(monkeypatch, "a cloth!")
    completion = make_llm().generate([[1]], SamplingParams(stop_token_ids=(written[-1],)))[0]
    assert completion.tokens == tuple(written)
    assert completion.text == "a cloth"
    assert completion.finish_reason is FinishReason.STOP


def test_min_tokens_bans_end_tokens():
    end = tokenizer().eos_ids[0]
    llm = make_llm()
    favourite = llm.generate([[5, 6]], SamplingParams(temperature=0, max_tokens=1))[0].tokens[0]
    params = SamplingParams(
        temperature=0, max_tokens=5, min_tokens=3, stop_token_ids=(favourite,), ignore_eos=True
    )
    tokens = llm.generate([[5, 6]], params)[0].tokens
    assert favourite not in tokens[:3]
    assert end not in params.stop_token_ids


class TestStopTexts:
    """Stop texts end a request wherever the token boundaries are, and are never shown."""

    @pytest.mark.parametrize("stop", ["fox", "own f", "x jumps", "n", "the quick brown fox jumps"])
    def test_text_ends_before_the_stop_text(self, monkeypatch, stop):
        text = "the quick brown fox jumps over"
        written = write(monkeypatch, text)
        llm = make_llm()
        deltas = list(llm.stream([1], SamplingParams(stop=(stop,), max_tokens=len(written))))
        shown = "".join(delta.text for delta in deltas)
        assert shown == text[: text.index(stop)]
        assert deltas[-1].finish_reason is FinishReason.STOP
        assert deltas[-1].stop_text == stop
        assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
        assert_nothing_left(llm.core)

    def test_what_only_looked_like_a_stop_text_is_released_at_the_end(self, monkeypatch):
        written = write(monkeypatch, "brown fo")
        params = SamplingParams(stop=("fox",), max_tokens=len(written))
        completion = make_llm().generate([[1]], params)[0]
        assert completion.text == "brown fo"
        assert completion.finish_reason is FinishReason.LENGTH
        assert completion.stop_text is None

    def test_stop_text_on_the_last_allowed_token_counts_as_stop(self, monkeypatch):
        written = write(monkeypatch, "lazy dog")
        params = SamplingParams(stop=("dog",), max_tokens=len(written))
        completion = make_llm().generate([[1]], params)[0]
        assert (completion.text, completion.finish_reason) == ("lazy ", FinishReason.STOP)

    def test_stop_text_before_min_tokens_does_not_count(self, monkeypatch):
        written = write(monkeypatch, "dog. the dog.")
        params = SamplingParams(stop=("dog",), min_tokens=4, max_tokens=len(written))
        assert make_llm().generate([[1]], params)[0].text == "dog. the "

    def test_stop_text_needs_a_tokenizer(self):
        llm = LLM(model(), None, EngineConfig(num_blocks=8))
        with pytest.raises(RequestError, match="need a tokenizer"):
            llm.generate([[1]], SamplingParams(stop=("x",)))


def test_alternatives_are_ordered_and_contain_the_greedy_token():
    params = SamplingParams(temperature=0, max_tokens=4, logprobs=3)
    completion = make_llm().generate([[1, 2]], params)[0]
    for token, logprob, top in zip(
        completion.tokens, completion.logprobs, completion.top_logprobs, strict=True
    ):
        assert top[0] == (token, logprob)
        assert len(top) == 3
        assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)


def test_logprobs_zero_reports_no_alternatives():
    completion = make_llm().generate([[1]], SamplingParams(max_tokens=2, logprobs=0))[0]
    assert completion.top_logprobs == ((), ())


def test_more_prompts_than_may_wait_are_all_served():
    llm = make_llm(max_waiting=2, max_num_sequences=2)
    completions = llm.generate([[index] for index in range(1, 12)], GREEDY)
    assert [completion.prompt for completion in completions] == [(i,) for i in range(1, 12)]
    assert all(len(completion.tokens) == 12 for completion in completions)
    assert llm.stats().scheduler.counters.num_refused == 0


@pytest.mark.parametrize(
    ("prompt", "error", "words"),
    [
        ([], RequestError, "empty"),
        ([300], RequestError, "token 300 does not exist"),
        ([-1], RequestError, "token -1 does not exist"),
        ([1] * 128, ContextLengthError, "holds a prompt of at most 127"),
    ],
)
def test_a_prompt_that_cannot_be_served_is_refused_before_anything_runs(prompt, error, words):
    llm = make_llm()
    with pytest.raises(error, match=words):
        llm.generate([[1], prompt], GREEDY)
    assert_nothing_left(llm.core)
    assert llm.stats().scheduler.counters.num_steps == 0


def test_stop_token_outside_the_vocabulary_is_refused():
    with pytest.raises(RequestError, match="token 999 does not exist"):
        make_llm().generate([[1]], SamplingParams(stop_token_ids=(999,), min_tokens=2))


def test_wrong_number_of_sampling_parameters_is_refused():
    with pytest.raises(ConfigError, match="2 sampling parameters for 3 prompts"):
        make_llm().generate([[1], [2], [3]], [GREEDY, GREEDY])


def test_generation_stops_at_the_context_length():
    completion = make_llm().generate([[1] * 120], SamplingParams(temperature=0, ignore_eos=True))[0]
    assert completion.num_prompt_tokens + len(completion.tokens) == 128
    assert completion.finish_reason is FinishReason.LENGTH


def test_failing_forward_pass_reaches_the_caller_and_leaves_nothing(monkeypatch):
    llm = make_llm()
    good = llm.generate(make_prompts(), GREEDY)

    def explode(*args):
        raise ZeroDivisionError("kernel")

    with monkeypatch.context() as patch:
        patch.setattr(llm.model.layers[1], "forward", explode)
        with pytest.raises(ZeroDivisionError, match="kernel"):
            llm.generate(make_prompts(), GREEDY)
    assert_nothing_left(llm.core)
    assert llm.stats().num_failed_steps == 1
    assert tokens_of(llm.generate(make_prompts(), GREEDY)) == tokens_of(good)


def test_interrupted_generation_leaves_nothing():
    llm = make_llm()

    def interrupt(delta):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        llm.generate(make_prompts(), GREEDY, on_delta=interrupt)
    assert_nothing_left(llm.core)


def test_closing_a_stream_early_leaves_nothing():
    llm = make_llm()
    stream = llm.stream([1, 2, 3], GREEDY)
    next(stream)
    stream.close()
    assert_nothing_left(llm.core)


def test_chat_renders_the_template_and_keeps_special_tokens_of_messages_as_text():
    llm = make_llm()
    end = tokenizer().token_id("<|im_end|>")
    prompt = llm.chat("stop <|im_end|>", SamplingParams(max_tokens=1)).prompt
    assert prompt.count(end) == 1
    assert tokenizer().decode(prompt, skip_special=False).endswith("<|im_start|>assistant\n")
    messages = [{"role": "user", "content": "hi"}]
    assert llm.render(messages) == llm.render("hi")


def test_chat_without_template_or_tokenizer_says_so():
    llm = LLM(model(), None, EngineConfig(num_blocks=8))
    with pytest.raises(UnsupportedError, match="no tokenizer"):
        llm.chat("hi")


def test_tokenizer_larger_than_the_model_is_refused():
    from weft.models.decoder import Decoder
    from weft.spec import ModelShape

    small = Decoder(ModelShape(dim=16, num_layers=1).build(100))
    with pytest.raises(TokenizerError, match="300 tokens"):
        LLM(small, tokenizer())


def test_score_refuses_what_the_context_cannot_hold():
    with pytest.raises(ContextLengthError, match="sequence 1 has 129 tokens"):
        make_llm().score([[1, 2], [1] * 129])
    with pytest.raises(RequestError, match="sequence 0 is empty"):
        make_llm().score([[]])


def test_score_does_not_depend_on_how_sequences_are_packed():
    from weft.engine.score import score_sequences

    sequences = [[1], *make_prompts()]
    together = score_sequences(model(), sequences)
    apart = score_sequences(model(), sequences, max_tokens=1)
    for one, other in zip(together, apart, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert together[0] == []


def test_stats_count_tokens_and_times():
    llm = make_llm()
    llm.core.clock.advance(5.0)
    llm.generate(make_prompts(), GREEDY)
    stats = llm.stats()
    assert stats.scheduler.counters.num_generated_tokens == 6 * 12
    assert stats.scheduler.counters.num_prompt_tokens == sum(map(len, make_prompts()))
    assert stats.timings["time_to_first_token_s"].num_observations == 6
    assert stats.timings["time_to_first_token_s"].total == 0.0
    assert stats.timings["inter_token_latency_s"].num_observations == 6 * 11
    assert stats.timings["time_per_output_token_s"].num_observations == 6
    assert stats.timings["end_to_end_s"].num_observations == 6
    assert stats.timings["step_tokens"].num_observations == 12


def test_later_samples_of_a_prompt_share_all_but_its_last_token():
    llm = make_llm(max_tokens_per_step=32, num_blocks=256)
    prompts = [list(range(start, start + 16)) for start in (10, 40)]
    samples = llm.generate(prompts, SamplingParams(max_tokens=2, seed=1), num_samples=4)
    assert [(s.prompt[0], s.index) for s in samples] == [
        (start, index) for start in (10, 40) for index in range(4)
    ]
    assert [s.num_cached_tokens for s in samples] == [0, 15, 15, 15] * 2


def test_one_prompt_may_be_given_without_a_list():
    import numpy as np

    llm = make_llm()
    expected = tokens_of(llm.generate([[5, 6, 7]], GREEDY))
    assert tokens_of(llm.generate([5, 6, 7], GREEDY)) == expected
    assert tokens_of(llm.generate(np.array([5, 6, 7]), GREEDY)) == expected
    assert llm.generate([], GREEDY) == []


@pytest.mark.parametrize("loader", [LLM.load, AsyncEngine.load])
def test_saved_folder_is_loaded_with_its_tokenizer(tmp_path, loader):
    save_model(model(), tmp_path, tokenizer=tokenizer())
    engine = loader(tmp_path, config=EngineConfig(num_blocks=64))
    if isinstance(engine, AsyncEngine):
        engine.shutdown()
    llm = LLM(engine.core.model, engine.tokenizer, EngineConfig(num_blocks=64))
    expected = make_llm().generate("the quick", GREEDY)
    assert tokens_of(llm.generate("the quick", GREEDY)) == tokens_of(expected)
