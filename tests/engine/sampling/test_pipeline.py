"""The vectorised chain: worked values, equality with the plain reference, independence of rows."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.sampling.rows import make_batch
from weft.engine.sampling import pipeline, reference
from weft.engine.sampling.logprobs import alternatives
from weft.ops.native.bindings import load_library
from weft.spec.sampling import SamplingParams

LOGITS = [2.0, 1.0, 0.5, 0.1, -1.0, -2.0]
# Tokens A and E lose 1.5 by the presence penalty, C and D gain 0.8 by their bias.
OUTPUT = (0, 4)
BIASED = {"presence_penalty": 1.5, "logit_bias": ((2, 0.8), (3, 0.8)), "temperature": 0.5}


def probabilities(params, logits=LOGITS, output=()):
    batch = make_batch([params], outputs=[output])
    logits_RV = torch.tensor([logits])
    pipeline.apply_bans(logits_RV, batch)
    pipeline.apply_penalties(logits_RV, batch.penalties)
    pipeline.apply_biases(logits_RV, batch)
    return pipeline.shape(logits_RV, batch).softmax(-1)[0].tolist()


def softmax(values):
    weights = [math.exp(value) for value in values]
    return [weight / sum(weights) for weight in weights]


class TestWorkedValues:
    """Numbers that can be checked with a pocket calculator."""

    def test_penalty_bias_and_temperature(self):
        got = probabilities(SamplingParams(**BIASED), output=OUTPUT)
        assert got == pytest.approx([0.0917, 0.2492, 0.4542, 0.2041, 0.0002, 0.0006], abs=5e-5)
        assert got == pytest.approx(softmax([1.0, 2.0, 2.6, 1.8, -5.0, -4.0]), abs=1e-6)

    def test_top_k_renormalises_the_three_likeliest(self):
        got = probabilities(SamplingParams(**BIASED, top_k=3), output=OUTPUT)
        assert got == pytest.approx([0, 0.2747, 0.5005, 0.2249, 0, 0], abs=6e-5)
        kept = softmax([2.0, 2.6, 1.8])
        assert got == pytest.approx([0, *kept, 0, 0], abs=1e-6)

    def test_top_p_keeps_the_token_that_crosses_the_mass(self):
        got = probabilities(SamplingParams(**BIASED, top_p=0.7), output=OUTPUT)
        assert got == pytest.approx([0, 0.3543, 0.6457, 0, 0, 0], abs=5e-5)
        assert got == pytest.approx([0, *softmax([2.0, 2.6]), 0, 0, 0], abs=1e-6)

    def test_top_k_comes_before_the_softmax(self):
        got = probabilities(SamplingParams(top_k=2))
        assert got[:2] == pytest.approx([0.7311, 0.2689], abs=5e-5)
        assert got[0] == pytest.approx(1 / (1 + math.exp(-1.0)), abs=1e-6)
        # Cutting after the softmax without renormalising would give these instead.
        assert probabilities(SamplingParams())[:2] == pytest.approx([0.5529, 0.2034], abs=5e-5)

    def test_top_p_works_on_what_top_k_left(self):
        # Alone, 0.7 needs A and B (0.5529 + 0.2034); of the renormalised top 2, A is enough.
        assert np.count_nonzero(probabilities(SamplingParams(top_p=0.7))) == 2
        assert np.count_nonzero(probabilities(SamplingParams(top_p=0.7, top_k=2))) == 1

    def test_min_p_is_relative_to_the_likeliest_at_the_temperature(self):
        # exp(1 - 2) = 0.368 of the likeliest; at temperature 0.5 it is 0.135.
        assert np.count_nonzero(probabilities(SamplingParams(min_p=0.36))) == 2
        assert np.count_nonzero(probabilities(SamplingParams(min_p=0.36, temperature=0.5))) == 1

    def test_repetition_penalty_divides_positive_and_multiplies_negative(self):
        got = probabilities(SamplingParams(repetition_penalty=2.0), output=(0, 4))
        assert got == pytest.approx(softmax([1.0, 1.0, 0.5, 0.1, -2.0, -2.0]), abs=1e-6)

    def test_typical_keeps_what_surprises_as_much_as_the_mean(self):
        # Surprise 0.916, 1.204, 1.609, 2.303; their mean is 1.280: the second is nearest.
        logits = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
        assert probabilities(SamplingParams(typical_p=0.2), logits) == [0, 1, 0, 0]
        # Next are 0.2 (off by 0.330) and 0.4 (off by 0.364).
        kept = probabilities(SamplingParams(typical_p=0.45), logits)
        assert kept == pytest.approx([0, 0.6, 0.4, 0], abs=1e-6)
        assert np.count_nonzero(probabilities(SamplingParams(typical_p=0.6), logits)) == 3

    def test_only_allowed_tokens_are_drawn_and_bad_words_are_not_finished(self):
        got = probabilities(SamplingParams(allowed_token_ids=(1, 3, 3)))
        likely, unlikely = softmax([1.0, 0.1])
        assert got == pytest.approx([0, likely, 0, unlikely, 0, 0], abs=1e-6)
        bad = SamplingParams(bad_words=((5, 0), (2,)))
        assert np.flatnonzero(probabilities(bad, output=(5,))).tolist() == [1, 3, 4, 5]
        assert np.flatnonzero(probabilities(bad, output=(5, 1))).tolist() == [0, 1, 3, 4, 5]


def test_ties_with_the_last_kept_token_are_kept():
    tied = [1.0, 3.0, 1.0, 1.0, 0.0]
    assert np.count_nonzero(probabilities(SamplingParams(top_k=2), tied)) == 4
    assert np.count_nonzero(probabilities(SamplingParams(top_p=0.75), tied)) == 4


def test_tiny_temperature_is_greedy_without_overflow():
    assert probabilities(SamplingParams(temperature=1e-30)) == [1.0, 0, 0, 0, 0, 0]


def test_largest_uniform_never_draws_a_token_without_mass():
    logits = torch.tensor([[0.0, 1.0, -1.0, float("-inf"), -200.0]])
    batch = make_batch([SamplingParams()], [1.0 - 2.0**-53])
    draws = pipeline.sample(logits, batch)
    assert draws.tokens_R.tolist() == [2]
    assert math.isfinite(draws.logprobs_R[0])


@st.composite
def requests(draw):
    return SamplingParams(
        temperature=draw(st.sampled_from([0.0, 0.3, 1.0, 1.7])),
        top_k=draw(st.sampled_from([None, 1, 3, 10, 1000])),
        top_p=draw(st.sampled_from([1.0, 0.95, 0.5, 0.05])),
        min_p=draw(st.sampled_from([0.0, 0.1, 0.6])),
        presence_penalty=draw(st.sampled_from([0.0, 0.7])),
        frequency_penalty=draw(st.sampled_from([0.0, -0.4])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.3])),
        min_tokens=draw(st.sampled_from([0, 4])),
        logprobs=draw(st.sampled_from([None, 0, 4])),
        typical_p=draw(st.sampled_from([1.0, 0.9, 0.3])),
        logit_bias=draw(st.sampled_from([(), ((3, 2.5), (9, -100.0)), ((0, -1.0),)])),
        allowed_token_ids=draw(st.sampled_from([(), (), tuple(range(5, 30))])),
        bad_words=draw(st.sampled_from([(), ((7,), (4, 5)), ((11, 12, 13),)])),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.data())
def test_vectorised_chain_equals_the_plain_reference(params, seed, data):
    num_candidates = data.draw(st.sampled_from([2, 8, 128]))
    rng = np.random.default_rng(seed)
    vocab_size = 37
    logits = (rng.standard_normal((len(params), vocab_size)) * 3).astype(np.float32)
    uniforms = rng.random(len(params))
    prompts = [rng.integers(0, vocab_size, 5).tolist() for _ in params]
    outputs = [rng.integers(0, vocab_size, rng.integers(0, 8)).tolist() for _ in params]
    batch = make_batch(params, uniforms, prompts=prompts, outputs=outputs, end_tokens=(1, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "NUM_CANDIDATES", num_candidates)
        draws = pipeline.sample(torch.from_numpy(logits.copy()), batch)
    tops = alternatives(draws, batch)
    for row, row_params in enumerate(params):
        expected = reference.distribution(
            logits[row].tolist(),
            row_params,
            prompt=prompts[row],
            output=outputs[row],
            end_tokens=(1, 2),
        )
        token = int(draws.tokens_R[row])
        if row_params.greedy:
            assert token == int(np.argmax(expected))
        else:
            before = sum(expected[:token])
            assert before - 1e-5 <= uniforms[row] <= before + expected[token] + 1e-5
        assert float(draws.logprobs_R[row]) == pytest.approx(math.log(expected[token]), abs=1e-4)
        likeliest = sorted((p for p in expected if p > 0), reverse=True)[: row_params.logprobs or 0]
        assert [math.exp(logprob) for _, logprob in tops[row]] == pytest.approx(likeliest, abs=1e-5)
        for alternative, logprob in tops[row]:
            assert math.exp(logprob) == pytest.approx(expected[alternative], abs=1e-5)


MIXED = [
    SamplingParams(temperature=0.0, logprobs=3),
    SamplingParams(),
    SamplingParams(temperature=0.7, top_k=5, logprobs=2),
    SamplingParams(top_p=0.9),
    SamplingParams(top_p=0.99, min_p=0.01, frequency_penalty=0.5),
    SamplingParams(temperature=0.0, repetition_penalty=1.5),
    SamplingParams(top_k=40, top_p=0.5),
]


@pytest.fixture(params=[1, 2])
def num_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("num_threads")
def test_row_gives_the_same_bits_alone_and_in_any_batch():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.standard_normal((len(MIXED), 50_000)).astype(np.float32) * 4)
    uniforms = rng.random(len(MIXED)).tolist()
    outputs = [rng.integers(0, 50_000, 6).tolist() for _ in MIXED]
    together = pipeline.sample(logits.clone(), make_batch(MIXED, uniforms, outputs=outputs))
    for row, params in enumerate(MIXED):
        batch = make_batch([params], [uniforms[row]], outputs=[outputs[row]])
        alone = pipeline.sample(logits[row : row + 1].clone(), batch)
        assert torch.equal(alone.tokens_R[0], together.tokens_R[row])
        # Without the C kernels a wide row is summed by several threads, a narrow batch by fewer.
        tolerance = 0.0 if load_library() is not None else 1e-6
        torch.testing.assert_close(
            alone.logprobs_R[0], together.logprobs_R[row], atol=tolerance, rtol=0.0
        )


def test_draw_frequencies_follow_the_distribution():
    num = 20_000
    params = SamplingParams(temperature=0.8, top_k=4)
    expected = reference.distribution(LOGITS, params)
    uniforms = (np.arange(num) + 0.5) / num
    draws = pipeline.sample(
        torch.tensor([LOGITS]).repeat(num, 1), make_batch([params] * num, uniforms)
    )
    shares = torch.bincount(draws.tokens_R, minlength=6) / num
    assert shares.tolist() == pytest.approx(expected, abs=2e-4)


class _Counted(torch.overrides.TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(getattr(func, "__name__", str(func)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("params", "unused"),
    [
        (SamplingParams(temperature=0.0), {"topk", "sort", "cumsum_", "exp", "masked_fill_"}),
        (SamplingParams(), {"topk", "sort", "div_", "masked_fill_"}),
        (SamplingParams(temperature=0.5), {"topk", "sort", "masked_fill_"}),
        (SamplingParams(top_k=3), {"sort"}),
    ],
)
def test_rows_pay_only_for_what_they_ask(params, unused):
    batch = make_batch([params] * 3)
    with _Counted() as counted:
        pipeline.sample(torch.randn(3, 200), batch)
    assert not unused & set(counted.names)


def test_only_rows_with_a_wide_nucleus_look_at_the_whole_vocabulary():
    logits = torch.zeros(3, 1000)
    logits[:2, 7] = 20.0
    batch = make_batch([SamplingParams(top_p=0.9)] * 3)
    sizes = []
    original = torch.Tensor.topk

    class Recorded(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is original:
                sizes.append((args[0].shape[0], args[1]))
            return func(*args, **(kwargs or {}))

    with Recorded():
        pipeline.sample(logits, batch)
    assert sizes == [(3, 128), (1, 1000)]


@pytest.mark.parametrize("vocab_size", [6, 8, 70])
def test_masked_rows_draw_as_if_only_the_masked_tokens_were_allowed(vocab_size):
    draws = np.random.default_rng(vocab_size)
    logits_RV = torch.from_numpy(draws.normal(size=(4, vocab_size)).astype(np.float32))
    allowed = {1: (0, 3, vocab_size - 1), 3: (2,)}
    plain = [SamplingParams(temperature=0.8, top_k=3), SamplingParams(), SamplingParams()]
    plain.append(SamplingParams(temperature=0.0))
    bits_GW = np.zeros((2, vocab_size // 8 + 5), dtype=np.uint8)
    for bits_W, tokens in zip(bits_GW, allowed.values(), strict=True):
        for token in tokens:
            bits_W[token // 8] |= 1 << token % 8
    uniforms = [0.3, 0.9, 0.1, 0.5]
    masked = dataclasses.replace(
        make_batch(plain, uniforms), masks=(np.array(list(allowed)), bits_GW)
    )
    listed = [
        dataclasses.replace(params, allowed_token_ids=allowed.get(row, ()))
        for row, params in enumerate(plain)
    ]
    got = pipeline.sample(logits_RV.clone(), masked)
    expected = pipeline.sample(logits_RV.clone(), make_batch(listed, uniforms))
    assert got.tokens_R.tolist() == expected.tokens_R.tolist()
    assert got.logprobs_R.tolist() == expected.logprobs_R.tolist()
    assert got.tokens_R[3] == 2
    assert float(got.logprobs_R[3]) == 0.0
