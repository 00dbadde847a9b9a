"""How many KV blocks fit into a device's memory."""

from __future__ import annotations

from weft.core.errors import ResourceError

_GIB = 2**30


def kv_block_bytes(
    *, num_layers: int, num_kv_heads: int, head_dim: int, block_size: int, dtype_bytes: int
) -> int:
    """Return the size of one block: keys and values of `block_size` positions in every layer.

    >>> kv_block_bytes(num_layers=28, num_kv_heads=8, head_dim=128, block_size=4, dtype_bytes=2)
    458752
    """
    return 2 * num_layers * num_kv_heads * head_dim * block_size * dtype_bytes


def kv_pool_bytes(
    *,
    total_bytes: float,
    utilization: float,
    used_bytes: float,
    peak_bytes: float,
    current_bytes: float,
) -> int:
    """Return the bytes left for the KV pool: total × utilization − used − peak + current.

    Args:
        total_bytes: Memory of the device.
        utilization: Fraction of it that may be used at all.
        used_bytes: In use now, by everyone.
        peak_bytes: The most this process had allocated during a trial step.
        current_bytes: What this process has allocated now; it is part of both `used_bytes` and
            `peak_bytes`, hence added back.
    """
    return int(total_bytes * utilization - used_bytes - peak_bytes + current_bytes)


def num_ring_blocks(window: int, max_chunk: int, block_size: int) -> int:
    """Return the blocks a sequence needs at any length, if no layer looks back further.

    What the first of `max_chunk` tokens of a step still sees must outlive the last one's write.

    >>> num_ring_blocks(window=4096, max_chunk=2048, block_size=16)
    384
    """
    return -(-(window - 1 + max_chunk) // block_size)


def num_kv_blocks(pool_bytes: int, block_bytes: int) -> int:
    """Return how many whole blocks fit.

    Raises:
        ResourceError: not even one does.
    """
    if pool_bytes < block_bytes:
        raise ResourceError(
            f"{pool_bytes / _GIB:.2f} GiB are left for the KV cache, less than one block of "
            f"{block_bytes / _GIB:.4f} GiB",
            fix="raise the memory limit, or lower block_size or max_tokens_per_step",
        )
    return pool_bytes // block_bytes
