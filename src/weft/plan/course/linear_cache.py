"""Caches of linear attention against key-value caches, in two-byte elements (InfraTech)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LinearCache:
    """State and convolution of one gated delta layer; defaults are Kimi Linear's (KDA).

    Attributes:
        num_key_heads: Query and key heads.
        num_value_heads: Value heads, one matrix each.
        key_dim: Width of a key head.
        value_dim: Width of a value head.
        conv_kernel: Taps of the short convolution.
        tensor: Devices that share the heads.
        state_bytes_each: Bytes per number of the matrices; kernels keep them in four.
        element_bytes: Bytes per number of the convolution.
    """

    num_key_heads: int = 32
    num_value_heads: int = 32
    key_dim: int = 128
    value_dim: int = 128
    conv_kernel: int = 4
    tensor: int = 1
    state_bytes_each: int = 2
    element_bytes: int = 2

    @property
    def num_bytes(self) -> int:
        """Bytes per sequence and layer on one device.

        >>> LinearCache().num_bytes, LinearCache(num_key_heads=16).num_bytes
        (1122304, 1097728)
        """
        matrices = self.num_value_heads * self.key_dim * self.value_dim
        channels = 2 * self.key_dim * self.num_key_heads + self.value_dim * self.num_value_heads
        total = self.state_bytes_each * matrices
        total += self.element_bytes * channels * (self.conv_kernel - 1)
        return total // self.tensor

    def crossover_tokens(self, cache_bytes_per_token: int) -> int:
        """Return the least context at which a growing cache is as large.

        >>> LinearCache().crossover_tokens(1152)
        975
        """
        return math.ceil(self.num_bytes / cache_bytes_per_token)

    def snapshot_bytes_per_token(self, tokens_per_snapshot: int = 128) -> int:
        """Return the price of a prefix cache that keeps the state every so many tokens."""
        return self.num_bytes // tokens_per_snapshot

    @property
    def gates_bytes_per_token(self) -> int:
        """Keys, values and one decay and one write strength, as needed to run forward again.

        The course counts one gate per value head in place of two.
        """
        values = self.key_dim * self.num_key_heads + self.value_dim * self.num_value_heads
        return self.element_bytes * (values + self.num_value_heads) // self.tensor


def latent_bytes_per_token(kv_rank: int = 512, rope_dim: int = 64) -> int:
    """Return a latent cache's bytes per token and layer."""
    return 2 * (kv_rank + rope_dim)


def grouped_bytes_per_token(num_kv_heads: int = 2, head_dim: int = 256) -> int:
    """Return a grouped-query cache's bytes per token and layer."""
    return 4 * num_kv_heads * head_dim


def hidden_bytes_per_token(dim: int = 2048) -> int:
    """Return the price of keeping each layer's input."""
    return 2 * dim
