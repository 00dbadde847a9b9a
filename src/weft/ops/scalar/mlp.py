"""A multilayer perceptron made of scalars, and its training on two classes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from weft.core.errors import ConfigError
from weft.ops.scalar.tape import Scalar

Point = Sequence[float]


class Neuron:
    """w · x + b, then max(0, ·) unless it is linear."""

    def __init__(self, num_inputs: int, *, linear: bool, generator: random.Random) -> None:
        self.weights = [Scalar(generator.uniform(-1.0, 1.0)) for _ in range(num_inputs)]
        self.bias = Scalar(0.0)
        self.linear = linear

    def __call__(self, inputs: Sequence[Scalar | float]) -> Scalar:
        total = self.bias
        for weight, value in zip(self.weights, inputs, strict=True):
            total = total + weight * value
        return total if self.linear else total.relu()


class MLP:
    """Layers of neurons; the last is linear.

    >>> MLP(2, [90, 1]).num_parameters
    361
    """

    def __init__(self, num_inputs: int, sizes: Sequence[int], *, seed: int = 0) -> None:
        if num_inputs < 1 or not sizes or min(sizes) < 1:
            raise ConfigError(f"an MLP needs inputs and layers; got {num_inputs}, {list(sizes)}")
        generator = random.Random(seed)
        widths = [num_inputs, *sizes]
        self.layers = [
            [
                Neuron(width, linear=index == len(sizes) - 1, generator=generator)
                for _ in range(widths[index + 1])
            ]
            for index, width in enumerate(widths[:-1])
        ]

    def __call__(self, inputs: Sequence[Scalar | float]) -> list[Scalar]:
        outputs: list[Scalar | float] = list(inputs)
        for layer in self.layers:
            outputs = [neuron(outputs) for neuron in layer]
        return [output for output in outputs if isinstance(output, Scalar)]

    def parameters(self) -> Iterator[Scalar]:
        """Yield every weight and bias."""
        for layer in self.layers:
            for neuron in layer:
                yield from neuron.weights
                yield neuron.bias

    @property
    def num_parameters(self) -> int:
        return sum(1 for _ in self.parameters())


@dataclass(frozen=True)
class FitConfig:
    """How ``fit`` trains.

    Attributes:
        num_steps: Gradient steps over all points.
        first_lr: Step size at the start.
        last_lr: Step size at the end; linear in between.
        decay: Factor on the sum of squared parameters in the loss.
    """

    num_steps: int = 200
    first_lr: float = 1.0
    last_lr: float = 0.1
    decay: float = 1e-4


def fit(
    model: MLP,
    points: Sequence[Point],
    labels: Sequence[int],
    config: FitConfig,
    on_step: Callable[[int, float, float], None] | None = None,
) -> float:
    """Train by gradient descent on the hinge loss; returns the final accuracy.

    Args:
        model: Changed in place.
        points: The inputs.
        labels: -1 or 1 for each.
        config: Steps and step sizes.
        on_step: Called with step, loss and accuracy.
    """
    for step in range(config.num_steps):
        loss, score = hinge_loss(model, points, labels, decay=config.decay)
        for parameter in model.parameters():
            parameter.grad = 0.0
        loss.backward()
        progress = step / max(1, config.num_steps - 1)
        lr = config.first_lr + (config.last_lr - config.first_lr) * progress
        for parameter in model.parameters():
            parameter.value -= lr * parameter.grad
        if on_step is not None:
            on_step(step, loss.value, score)
    return accuracy(model, points, labels)


def hinge_loss(
    model: MLP, points: Sequence[Point], labels: Sequence[int], *, decay: float
) -> tuple[Scalar, float]:
    """Return mean max(0, 1 - y f(x)) + decay · sum of squares, and the accuracy."""
    scores = [model(point)[0] for point in points]
    total = Scalar(0.0)
    for score, label in zip(scores, labels, strict=True):
        total = total + (1.0 - label * score).relu()
    squares = Scalar(0.0)
    for parameter in model.parameters():
        squares = squares + parameter * parameter
    num_right = sum((s.value > 0) == (y > 0) for s, y in zip(scores, labels, strict=True))
    return total * (1.0 / len(points)) + decay * squares, num_right / len(points)


def accuracy(model: MLP, points: Sequence[Point], labels: Sequence[int]) -> float:
    """Return the share of points on the right side."""
    pairs = zip(points, labels, strict=True)
    return sum((model(point)[0].value > 0) == (label > 0) for point, label in pairs) / len(points)


def blobs(num_points: int, *, spread: float = 0.8, seed: int = 0) -> tuple[list[Point], list[int]]:
    """Return points around (-2, 0) with label -1 and around (2, 0) with label 1."""
    generator = random.Random(seed)
    labels = [2 * (index % 2) - 1 for index in range(num_points)]
    return [(generator.gauss(2 * y, spread), generator.gauss(0, spread)) for y in labels], labels


def circles(
    num_points: int, *, spread: float = 0.06, seed: int = 0
) -> tuple[list[Point], list[int]]:
    """Return points on a circle of radius 1 with label -1 and of radius 0.8 with label 1."""
    generator = random.Random(seed)
    points: list[Point] = []
    labels = [2 * (index % 2) - 1 for index in range(num_points)]
    for label in labels:
        radius = 1.0 if label < 0 else 0.8
        direction = (generator.gauss(0, 1), generator.gauss(0, 1))
        scale = radius / (direction[0] ** 2 + direction[1] ** 2) ** 0.5
        points.append(tuple(part * scale + generator.gauss(0, spread) for part in direction))
    return points, labels
