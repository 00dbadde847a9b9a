"""A table of vectors by id, quick to build without memory."""

from __future__ import annotations

from torch import nn


class Embedding(nn.Embedding):
    """``torch.nn.Embedding``, but on the meta device nothing is drawn.

    Drawing normal numbers there computes nothing, yet imports torch's compiler: over a second
    before the first model description can be looked at.
    """

    def reset_parameters(self) -> None:
        """Draw normal numbers; nothing on the meta device."""
        if not self.weight.is_meta:
            super().reset_parameters()
