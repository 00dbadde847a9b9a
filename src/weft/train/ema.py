"""An exponential moving average of the weights, kept beside them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from weft.train.parameters import learnt_parameters


class WeightAverage:
    """Averages learnt parameters: ``average = decay * average + (1 - decay) * weight``.

    Source: Polyak and Juditsky 1992; in this form Tarvainen and Valpola 2017, arXiv:1703.01780.
    It is never used unless a configuration asks for it.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights: dict[str, Tensor] = dict(learnt_parameters(model))
        self.averages = {name: w.detach().clone() for name, w in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the current weights."""
        torch._foreach_lerp_(
            list(self.averages.values()), list(self._weights.values()), 1 - self.decay
        )

    @torch.no_grad()
    def write_to_model(self) -> None:
        """Replace the model's weights by the averages."""
        for name, parameter in self._weights.items():
            parameter.copy_(self.averages[name])

    def load(self, averages: Mapping[str, Tensor]) -> None:
        """Take over saved averages, copied."""
        for name, value in averages.items():
            self.averages[name].copy_(value)
