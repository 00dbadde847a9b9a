"""The scalar tape against torch, and the perceptron made of it."""

from __future__ import annotations

import operator
import random

import pytest
import torch

from weft.core.errors import ConfigError
from weft.ops.scalar.graph import to_dot
from weft.ops.scalar.mlp import MLP, FitConfig, blobs, circles, fit, hinge_loss
from weft.ops.scalar.tape import Scalar


def test_worked_example() -> None:
    x = Scalar(-2.0)
    z = 2 * x
    y1 = z + 5
    y2 = (z * z).relu() + x + 3
    loss = y1 - y2 + y2 * x
    loss.backward()
    assert (x.grad, z.grad, y1.grad, y2.grad) == (64.0, 25.0, 1.0, -3.0)


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_have_the_gradients_of_torch(seed: int) -> None:
    generator = random.Random(seed)
    ours = [Scalar(generator.uniform(-2, 2)) for _ in range(4)]
    theirs = [torch.tensor(s.value, dtype=torch.float64, requires_grad=True) for s in ours]
    inputs = list(zip(ours, theirs, strict=True))
    nodes = list(inputs)
    operations = (operator.add, operator.sub, operator.mul)
    for _ in range(30):
        left, right = generator.choice(nodes), generator.choice(nodes)
        choice = generator.randrange(4)
        if choice == 3:
            nodes.append((left[0].relu(), left[1].relu()))
        elif abs(left[0].value * right[0].value) < 1e3:
            nodes.append(tuple(operations[choice](a, b) for a, b in zip(left, right, strict=True)))
    total, expected = Scalar(0.0), torch.zeros((), dtype=torch.float64)
    for node, reference in nodes:
        total, expected = total + node, expected + reference
    total.backward()
    expected.backward()
    for scalar, tensor in inputs:
        assert scalar.grad == pytest.approx(float(tensor.grad), rel=1e-9, abs=1e-6)


def test_gradients_add_up_over_calls_and_constants_on_the_left() -> None:
    x = Scalar(3.0)
    (1.0 - 2.0 * x).backward()
    (4.0 + -x).backward()
    assert x.grad == -3.0


def test_long_chains_do_not_exhaust_the_stack() -> None:
    total = x = Scalar(1.0)
    for _ in range(5000):
        total = total + x
    total.backward()
    assert x.grad == 5001.0


def test_graph_names_every_node_and_edge() -> None:
    a, b = Scalar(2.0), Scalar(3.0)
    c = a * b
    c.backward()
    dot = to_dot(c, {"a": a, "c": c})
    assert dot.count("->") == 2
    assert 'label="a: 2 | grad 3"' in dot
    assert 'label="c: 6 = × | grad 1"' in dot


def test_parameter_count() -> None:
    assert MLP(2, [90, 1]).num_parameters == 361
    with pytest.raises(ConfigError, match="layers"):
        MLP(2, [])


def test_loss_is_hinge_plus_decay() -> None:
    model = MLP(1, [1])
    (neuron,) = model.layers[0]
    neuron.weights[0].value, neuron.bias.value = 2.0, 0.5
    loss, score = hinge_loss(model, [(1.0,), (0.0,)], [1, -1], decay=0.1)
    assert loss.value == pytest.approx((0 + 1.5) / 2 + 0.1 * (4 + 0.25))
    assert score == 0.5


def test_a_small_perceptron_separates_blobs() -> None:
    points, labels = blobs(40, seed=1)
    losses: list[float] = []
    config = FitConfig(num_steps=30)
    score = fit(MLP(2, [6, 1]), points, labels, config, lambda _, loss, __: losses.append(loss))
    assert score >= 0.97
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_blobs_in_200_steps() -> None:
    points, labels = blobs(100)
    assert fit(MLP(2, [90, 1]), points, labels, FitConfig(num_steps=200)) >= 0.99


@pytest.mark.slow
def test_circles_in_180_steps() -> None:
    points, labels = circles(100)
    assert fit(MLP(2, [15, 20, 1]), points, labels, FitConfig(num_steps=180)) >= 0.9
