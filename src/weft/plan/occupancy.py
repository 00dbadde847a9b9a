"""What limits a GPU kernel: occupancy, shared-memory banks, coalescing.

The rules are those of NVIDIA's occupancy calculator and programming guide: a multiprocessor holds
as many blocks as its threads, registers and shared memory allow; 32 banks of four bytes serve a
warp at once unless two lanes want different words of one bank; global memory moves whole sectors
of 32 bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from weft.core.errors import ConfigError

WARP = 32
_BANKS = 32
_BANK_BYTES = 4
_SECTOR_BYTES = 32


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one streaming multiprocessor; the defaults are an A100's.

    Attributes:
        max_threads: Threads at once.
        max_blocks: Blocks at once.
        registers: 32-bit registers.
        register_unit: Registers are handed out per warp in units of this many.
        shared_bytes: Shared memory for blocks.
        shared_unit: Shared memory is handed out in units of this many bytes.
        reserved_shared_bytes: Taken by the system per block.
    """

    max_threads: int = 2048
    max_blocks: int = 32
    registers: int = 65_536
    register_unit: int = 256
    shared_bytes: int = 167_936
    shared_unit: int = 128
    reserved_shared_bytes: int = 1024


A100 = Multiprocessor()
H100 = Multiprocessor(shared_bytes=233_472)


@dataclass(frozen=True)
class Occupancy:
    """How many blocks run at once, and why no more.

    Attributes:
        num_blocks: Blocks per multiprocessor.
        share: Resident warps over the most possible.
        limited_by: "threads", "blocks", "registers" or "shared memory".
    """

    num_blocks: int
    share: float
    limited_by: str


def occupancy(
    threads: int,
    registers_per_thread: int,
    shared_bytes: int = 0,
    processor: Multiprocessor = A100,
) -> Occupancy:
    """Return the occupancy of a kernel.

    >>> occupancy(256, 64).num_blocks, occupancy(256, 64).limited_by
    (4, 'registers')

    Raises:
        ConfigError: a block that can never run.
    """
    if not 1 <= threads <= 1024 or registers_per_thread < 1 or shared_bytes < 0:
        raise ConfigError(
            f"{threads} threads with {registers_per_thread} registers and {shared_bytes} bytes",
            fix="a block has 1 to 1024 threads and at least a register each",
        )
    warps = -(-threads // WARP)
    per_warp = _round_up(registers_per_thread * WARP, processor.register_unit)
    per_block = _round_up(shared_bytes + processor.reserved_shared_bytes, processor.shared_unit)
    limits = {
        "threads": processor.max_threads // (warps * WARP),
        "blocks": processor.max_blocks,
        "registers": processor.registers // per_warp // warps,
        "shared memory": processor.shared_bytes // per_block,
    }
    limited_by = min(limits, key=lambda name: limits[name])
    blocks = limits[limited_by]
    if blocks == 0:
        raise ConfigError(
            f"no block fits: {limited_by} are too few", fix="use fewer threads or less of it"
        )
    return Occupancy(blocks, blocks * warps * WARP / processor.max_threads, limited_by)


def bank_conflicts(addresses: Sequence[int]) -> int:
    """Return how often a warp's access to shared memory is replayed; 1 is free of conflicts.

    Lanes that read the same word share one access.

    >>> bank_conflicts([4 * lane for lane in range(32)])
    1
    >>> bank_conflicts([128 * lane for lane in range(32)])
    32
    """
    words: dict[int, set[int]] = defaultdict(set)
    for address in addresses:
        word = address // _BANK_BYTES
        words[word % _BANKS].add(word)
    return max((len(found) for found in words.values()), default=0)


def swizzle(row: int, column: int, num_columns: int) -> int:
    """Return the word of (row, column) when columns are exchanged by row: column XOR row.

    Rows and columns of a tile are then both read without conflicts, and no memory is padded.
    """
    return row * num_columns + (column ^ (row % num_columns))


def sectors(addresses: Sequence[int], element_bytes: int) -> int:
    """Return how many 32-byte sectors a warp's access to global memory moves.

    >>> sectors([4 * lane for lane in range(32)], 4), sectors([32 * i for i in range(32)], 4)
    (4, 32)
    """
    touched = set()
    for address in addresses:
        first, last = address // _SECTOR_BYTES, (address + element_bytes - 1) // _SECTOR_BYTES
        touched.update(range(first, last + 1))
    return len(touched)


def coalescing(addresses: Sequence[int], element_bytes: int) -> float:
    """Return the share of moved bytes that the warp asked for."""
    wanted = len(set(addresses)) * element_bytes
    return wanted / (sectors(addresses, element_bytes) * _SECTOR_BYTES)


def fits_in_cache(window_bytes: int, cache_bytes: int, share: float = 0.75) -> float:
    """Return the hit ratio to ask of a persisting L2 window so that it does not thrash."""
    return min(1.0, share * cache_bytes / window_bytes)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
