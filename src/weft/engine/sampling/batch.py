"""``SamplingBatch``: the parameters of the rows that sample in one step, one array each.

Shapes: R rows that sample, E entries of a sparse (row, token) list, G rows with a grammar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Smaller ones would overflow float32; they are greedy all the same.
MIN_TEMPERATURE = 1e-20


@dataclass(frozen=True)
class Penalties:
    """Sparse list of (row, token) pairs a penalty may change.

    Attributes:
        rows_E: Row of each entry.
        tokens_E: Token of each entry; a (row, token) pair occurs once.
        counts_E: How often the row has generated the token; 0 when only the prompt has it.
        repetition_R: Repetition penalty per row; 1 changes nothing.
        frequency_R: Frequency penalty per row.
        presence_R: Presence penalty per row.
    """

    rows_E: NDArray[np.int64]
    tokens_E: NDArray[np.int64]
    counts_E: NDArray[np.int64]
    repetition_R: NDArray[np.float32]
    frequency_R: NDArray[np.float32]
    presence_R: NDArray[np.float32]


@dataclass(frozen=True)
class SamplingBatch:
    """What each of R rows asks of the sampler.

    Attributes:
        temperature_R: 0 is greedy; a greedy row ignores top_k, top_p and min_p.
        top_k_R: 0 keeps all.
        top_p_R: 1 keeps all.
        min_p_R: 0 keeps all.
        typical_p_R: 1 keeps all.
        uniform_R: The row's random number in [0, 1).
        num_top_R: How many alternatives to report.
        penalties: Penalties, or none when no row has one.
        banned: (rows_E, tokens_E) that cannot be drawn, or none.
        allowed: (rows_E, tokens_E): a row that occurs draws only these; or none.
        biases: (rows_E, tokens_E, values_E) added to logits, or none; a pair occurs once.
        masks: (rows_G, bits_GW): a row that occurs draws only tokens whose bit is set, lowest bit
            of the first byte first; or none.
    """

    temperature_R: NDArray[np.float64]
    top_k_R: NDArray[np.int64]
    top_p_R: NDArray[np.float64]
    min_p_R: NDArray[np.float64]
    typical_p_R: NDArray[np.float64]
    uniform_R: NDArray[np.float64]
    num_top_R: NDArray[np.int64]
    penalties: Penalties | None = None
    banned: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    allowed: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    biases: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]] | None = None
    masks: tuple[NDArray[np.int64], NDArray[np.uint8]] | None = None

    @property
    def num_rows(self) -> int:
        return len(self.temperature_R)

    @property
    def truncated_R(self) -> NDArray[np.bool_]:
        """Rows whose distribution loses its unlikely tokens."""
        nucleus_R = (self.top_p_R < 1.0) | (self.typical_p_R < 1.0)
        return (self.top_k_R > 0) | nucleus_R | (self.min_p_R > 0.0)

    @property
    def scale_R(self) -> NDArray[np.float32]:
        """What logits are multiplied with: one over the temperature, 1 for a greedy row.

        Rounded once from double precision, as training does.
        """
        temperature_R = np.where(self.temperature_R == 0.0, 1.0, self.temperature_R)
        return (1.0 / np.maximum(temperature_R, MIN_TEMPERATURE)).astype(np.float32)

    def select(self, rows: NDArray[np.int64]) -> SamplingBatch:
        """Return the batch of some rows, for shaping and drawing only.

        What acts on the whole batch before rows are split is left out: penalties, biases, bans and
        masks.
        """
        names = (
            "temperature_R", "top_k_R", "top_p_R", "min_p_R", "typical_p_R", "uniform_R",
            "num_top_R",
        )  # fmt: skip
        arrays: dict[str, Any] = {name: getattr(self, name)[rows] for name in names}
        return SamplingBatch(**arrays)
