from __future__ import annotations

import pytest

from weft.core.errors import ResourceError
from weft.sched.sizing import kv_block_bytes, kv_pool_bytes, num_kv_blocks

GIB = 2**30


def test_pool_of_row_g06():
    pool_bytes = kv_pool_bytes(
        total_bytes=80 * GIB,
        utilization=0.95,
        used_bytes=10 * GIB,
        peak_bytes=40 * GIB,
        current_bytes=5 * GIB,
    )
    # Qwen3-0.6B in bf16.
    block_bytes = kv_block_bytes(
        num_layers=28, num_kv_heads=8, head_dim=128, block_size=4, dtype_bytes=2
    )
    assert pool_bytes == pytest.approx(31.0 * GIB)
    assert block_bytes == 458_752
    assert num_kv_blocks(pool_bytes, block_bytes) == 72_557


def test_too_little_memory_says_how_little_and_what_to_do():
    with pytest.raises(ResourceError, match=r"0.00 GiB are left.*\n.*fix: raise the memory limit"):
        num_kv_blocks(1000, 458_752)
    with pytest.raises(ResourceError, match=r"-1.00 GiB"):
        num_kv_blocks(-GIB, 458_752)
