from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from weft.ops import (
    linear,
    linear_cross_entropy,
    linear_log_probs,
    pad_rows,
    row_log_probs,
    soft_cap,
)
from weft.ops.loss import rows
from weft.ops.native.bindings import load_library


def head(tokens=40, width=16, vocab=50, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    hidden = torch.randn(tokens, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocab, width, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(0, vocab, (tokens,))


def test_loss_is_minus_the_sum_of_log_probs():
    hidden, weight, targets = head()
    loss, count = linear_cross_entropy(hidden, weight, targets, chunk_size=7)
    torch.testing.assert_close(loss, -linear_log_probs(hidden, weight, targets).sum())
    assert count.item() == 40


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary():
    loss, count = linear_cross_entropy(
        torch.zeros(3, 4), torch.randn(50, 4), torch.tensor([0, 1, 2])
    )
    assert (loss / count).item() == pytest.approx(3.912023, abs=1e-6)


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
def test_chunks_do_not_change_the_result(chunk):
    hidden, weight, targets = head(dtype=torch.float64)
    whole, _ = linear_cross_entropy(hidden, weight, targets, chunk_size=40)
    loss, _ = linear_cross_entropy(hidden, weight, targets, chunk_size=chunk)
    torch.testing.assert_close(loss, whole)


def test_ignored_labels_have_neither_loss_nor_gradient():
    hidden, weight, targets = head()
    targets[5:] = -100
    loss, count = linear_cross_entropy(hidden, weight, targets, chunk_size=8)
    loss.backward()
    assert count.item() == 5
    assert hidden.grad[5:].abs().sum() == 0
    assert hidden.grad[:5].abs().sum() > 0


@pytest.mark.parametrize("labels", [[], [-100, -100]])
def test_a_batch_without_labels_has_loss_zero_and_zero_gradients(labels):
    hidden = torch.randn(len(labels), 4, requires_grad=True)
    weight = torch.randn(9, 4, requires_grad=True)
    loss, count = linear_cross_entropy(hidden, weight, torch.tensor(labels, dtype=torch.int64))
    loss.backward()
    assert (loss.item(), count.item()) == (0.0, 0)
    assert weight.grad.abs().sum() == 0


@pytest.mark.parametrize("bad", [-1, 50, -101])
def test_a_target_outside_the_vocabulary_is_refused(bad):
    hidden, weight, targets = head()
    targets[3] = bad
    with pytest.raises((IndexError, RuntimeError)):
        linear_cross_entropy(hidden, weight, targets)


def test_gradient_scales_with_the_upstream_gradient_and_survives_a_second_pass():
    hidden, weight, targets = head()
    loss, _ = linear_cross_entropy(hidden, weight, targets, chunk_size=16)
    (loss / 8).backward(retain_graph=True)
    first = hidden.grad.clone()
    hidden.grad = None
    (loss / 2).backward()
    torch.testing.assert_close(hidden.grad, 4 * first)


@pytest.mark.parametrize("chunk", [16, 64])
def test_log_probs_survive_a_second_backward_pass(chunk):
    hidden, weight, targets = head()
    logp = linear_log_probs(hidden, weight, targets, chunk_size=chunk)
    one = torch.autograd.grad(logp.sum(), (hidden, weight), retain_graph=True)
    two = torch.autograd.grad(logp.sum(), (hidden, weight))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_only_what_needs_a_gradient_gets_one():
    hidden, weight, targets = head()
    loss, _ = linear_cross_entropy(hidden, weight.detach(), targets, chunk_size=16)
    loss.backward()
    assert hidden.grad is not None
    frozen = linear_cross_entropy(hidden.detach(), weight.detach(), targets)[0]
    assert not frozen.requires_grad


def test_whole_logits_are_never_kept():
    hidden, weight, targets = head(tokens=512, vocab=1000)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        linear_cross_entropy(hidden, weight, targets, chunk_size=32)
        linear_log_probs(hidden, weight, targets, chunk_size=32)
    assert max(kept) < 32 * 1000


def test_autocast_computes_in_bfloat16_and_adds_weight_gradients_in_float32():
    hidden, weight, targets = head(tokens=400, width=32, vocab=300)
    exact = torch.autograd.grad(
        linear_cross_entropy(hidden, weight, targets, chunk_size=16)[0], (hidden, weight)
    )
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = linear_cross_entropy(hidden, weight, targets, chunk_size=16)
        expected = F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-3)
    for got, want in zip(torch.autograd.grad(loss, (hidden, weight)), exact, strict=True):
        assert got.dtype == torch.float32
        assert (got - want).norm() / want.norm() < 2e-2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_numbers_reach_the_loss(bad):
    hidden, weight, targets = head()
    with torch.no_grad():
        hidden[3, 0] = bad
    assert not linear_cross_entropy(hidden, weight, targets)[0].isfinite()
    finite = linear_log_probs(hidden, weight, targets).isfinite()
    assert (~finite).nonzero().flatten().tolist() == [3]


@pytest.mark.skipif(load_library() is None, reason="no C compiler")
@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_row_passes_in_c_equal_those_in_torch(scale, monkeypatch):
    torch.manual_seed(4)
    logits, targets = torch.randn(30, 1300) * 30, torch.randint(0, 1300, (30,))
    logits[:, 700:] -= 200.0
    targets[4] = -100
    row_grad = torch.randn(30)
    results = []
    for native in (True, False):
        if not native:
            monkeypatch.setattr(rows, "load_library", lambda: None)
        lse, logp = rows.softmax_stats(logits, targets, -100, scale)
        grad = rows.softmax_gradient_(logits.clone(), targets, -100, scale, lse, row_grad)
        results.append((lse, logp, grad))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(load_library() is None, reason="no C compiler")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("num_sampled", [1, 2, 3, 17, 65])
def test_rows_of_logits_have_the_bits_of_the_chunked_head(num_sampled, temperature):
    hidden, weight, targets = head(tokens=65, width=48, vocab=1025)
    trained = linear_log_probs(hidden, weight, targets, temperature=temperature, chunk_size=64)
    rows = slice(65 - num_sampled, 65)
    with torch.inference_mode():
        logits = linear(pad_rows(hidden[rows]), weight)[:num_sampled]
        scales = torch.full((num_sampled,), 1.0 / temperature)
        sampled = row_log_probs(logits, targets[rows], scales)
    assert torch.equal(sampled, trained[rows])


def test_each_row_has_its_own_scale():
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 700) * 4, torch.randint(0, 700, (5,))
    scales = torch.tensor([0.2, 1.0, 1.5, 1.0, 30.0])
    expected = (logits.double() * scales[:, None]).log_softmax(-1)
    got = row_log_probs(logits, targets, scales)
    torch.testing.assert_close(got.double(), expected.gather(1, targets[:, None])[:, 0])
    alone = [
        row_log_probs(logits[i : i + 1], targets[i : i + 1], scales[i : i + 1]) for i in (4, 0)
    ]
    torch.testing.assert_close(torch.cat(alone), got[[4, 0]], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("native", [True, False])
def test_large_logits_cost_log_probabilities_no_digits(native, monkeypatch):
    if not native:
        monkeypatch.setattr(rows, "load_library", lambda: None)
    torch.manual_seed(0)
    logits, targets = torch.randn(40, 300) + 5000.0, torch.randint(0, 300, (40,))
    expected = logits.double().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    got = row_log_probs(logits, targets, torch.ones(40))
    torch.testing.assert_close(got.double(), expected, rtol=0.0, atol=2e-6)


@pytest.mark.parametrize("chunk", [7, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_capped_losses_are_those_of_the_capped_logits(dtype, chunk):
    hidden, weight, targets = head(dtype=dtype)
    logits = soft_cap(linear(hidden, weight).float(), 1.5)
    assert logits.abs().max() <= 1.5
    expected = (logits / 0.7).log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    kwargs = {"chunk_size": chunk, "softcap": 1.5}
    logp = linear_log_probs(hidden, weight, targets, temperature=0.7, **kwargs)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(logp, expected, atol=tolerance, rtol=tolerance)
    scale = torch.full((len(targets),), 1 / 0.7)
    drawn = row_log_probs(logits.detach(), targets, scale)
    torch.testing.assert_close(logp, drawn, atol=tolerance, rtol=tolerance)
    loss, count = linear_cross_entropy(hidden, weight, targets, **kwargs)
    nll = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(loss, nll, atol=tolerance, rtol=tolerance)
    assert count.item() == len(targets)
    for actual, reference in ((logp.sum(), expected.sum()), (loss, nll)):
        grads = torch.autograd.grad(actual, (hidden, weight), retain_graph=True)
        references = torch.autograd.grad(reference, (hidden, weight), retain_graph=True)
        for one, other in zip(grads, references, strict=True):
            largest = float(other.abs().max())
            torch.testing.assert_close(one, other, atol=tolerance * largest, rtol=tolerance)


def test_no_cap_leaves_the_logits_alone():
    logits = torch.randn(3, 5)
    assert soft_cap(logits, None) is logits
    torch.testing.assert_close(soft_cap(logits, 1e6), logits)
