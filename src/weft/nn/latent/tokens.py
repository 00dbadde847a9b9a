"""What latent attention hands to a backend.

T tokens, N heads, H query-key head width (P without position, R rotated), V value head width,
C latent width, E = C + R, I index heads, J index head width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class IndexTokens:
    """What the indexer knows of each token.

    Attributes:
        q_TIJ: Index queries, rotated.
        key_TJ: The index key, rotated.
        weights_TI: Factor on each head's score, float32.
    """

    q_TIJ: Tensor
    key_TJ: Tensor
    weights_TI: Tensor


@dataclass(frozen=True)
class LatentTokens:
    """What latent attention knows of each token.

    Attributes:
        q_TNH: Queries: P dimensions without position, then R rotated ones.
        latent_TE: The normalised latent, then the rotated key part that all heads share.
        up_NMC: From latents to P key and V value dimensions of each head, M = P + V.
        index: For sparse selection.
    """

    q_TNH: Tensor
    latent_TE: Tensor
    up_NMC: Tensor
    index: IndexTokens | None = None

    @property
    def cached(self) -> dict[str, Tensor]:
        """What later tokens read again, by its name in ``MLASpec.token_cache``."""
        cached = {"latent": self.latent_TE}
        if self.index is not None:
            cached["index_keys"] = self.index.key_TJ
        return cached
