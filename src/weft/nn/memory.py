"""What decoders attend to besides themselves: the output of an encoder.

S source tokens of all texts, D width, K key-value heads, H head width, B source texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

KeysAndValues = tuple[Tensor, Tensor]


@dataclass
class Memory:
    """Encoded texts, and the keys and values that layers made of them.

    A layer's keys and values are computed when it first asks and kept as long as the memory lives:
    for one pass in training, for all steps of a search. Sequences belong to texts in order, so
    many at a time as ``num_sequences`` says.

    Attributes:
        hidden_SD: Output of the encoder.
        lengths: Tokens of each text.
        num_sequences: Sequences that read each text; none means one.
    """

    hidden_SD: Tensor
    lengths: tuple[int, ...]
    num_sequences: tuple[int, ...] | None = None
    _layers: dict[int, KeysAndValues] = field(default_factory=dict)

    def keys_values(self, layer: int, project: Callable[[Tensor], KeysAndValues]) -> KeysAndValues:
        """Return a layer's keys and values of every source token, each [S, K, H]."""
        if layer not in self._layers:
            self._layers[layer] = project(self.hidden_SD)
        return self._layers[layer]

    def query_lengths(self, lengths: Sequence[int]) -> tuple[int, ...]:
        """Return how many tokens read each text when the sequences have these lengths."""
        if self.num_sequences is None:
            return tuple(lengths)
        left = iter(lengths)
        return tuple(sum(next(left) for _ in range(count)) for count in self.num_sequences)

    def read_by(self, num_sequences: Sequence[int]) -> Memory:
        """Return the memory for other numbers of sequences; texts that nobody reads are dropped."""
        kept = [row for row, count in enumerate(num_sequences) if count]
        counts = tuple(num_sequences[row] for row in kept)
        if len(kept) == len(self.lengths):
            return Memory(self.hidden_SD, self.lengths, counts, self._layers)
        rows_S = self._rows_of(kept)
        layers = {i: (k[rows_S], v[rows_S]) for i, (k, v) in self._layers.items()}
        lengths = tuple(self.lengths[row] for row in kept)
        return Memory(self.hidden_SD[rows_S], lengths, counts, layers)

    def _rows_of(self, texts: Sequence[int]) -> Tensor:
        """Return the source tokens of some texts."""
        spans = torch.arange(self.hidden_SD.shape[0]).split(self.lengths)
        rows_S = torch.cat([spans[text] for text in texts]) if texts else torch.arange(0)
        return rows_S.to(self.hidden_SD.device)
