"""The loaded C library, or the reason why there is none."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from weft.ops.native.build import BuildError, build_library

_POINTER = ctypes.c_void_p
_SIZE = ctypes.c_int64
_FLOAT = ctypes.c_float
_INT = ctypes.c_int

# Argument types in the order of the C declarations.
_SIGNATURES: dict[str, tuple[type, ...]] = {
    "weft_rms_norm_forward": (*(_POINTER,) * 4, *(_SIZE,) * 5, _FLOAT, *(_INT,) * 4),
    "weft_rms_norm_backward": (*(_POINTER,) * 7, *(_SIZE,) * 5, *(_INT,) * 4),
    "weft_rms_norm_num_parts": (_SIZE,),
    "weft_swiglu_forward": (_POINTER, _POINTER, _SIZE, _SIZE, _INT, _INT),
    "weft_swiglu_backward": (*(_POINTER,) * 3, _SIZE, _SIZE, _INT, _INT),
    "weft_rotary": (*(_POINTER,) * 4, *(_SIZE,) * 6, _FLOAT, *(_INT,) * 3),
    "weft_softmax_stats": (
        *(_POINTER, _INT, _POINTER, _SIZE, _POINTER, _SIZE),
        *(_SIZE, _SIZE, _POINTER, _POINTER, _INT),
    ),
    "weft_softmax_gradient": (
        *(_POINTER, _INT, _POINTER, _SIZE, _FLOAT),
        *(_SIZE, _SIZE, _POINTER, _POINTER, _INT),
    ),
    "weft_packed_attention_forward": (*(_POINTER,) * 6, *(_SIZE,) * 5, _FLOAT, _INT),
    "weft_packed_attention_backward": (*(_POINTER,) * 10, *(_SIZE,) * 5, _FLOAT, _INT),
    "weft_has_wide_registers": (),
    "weft_paged_attention": (*(_POINTER,) * 10, *(_SIZE,) * 9, _FLOAT, *(_INT,) * 3),
}
_RETURNS: dict[str, type] = {
    "weft_rms_norm_num_parts": _SIZE,
    "weft_softmax_stats": _SIZE,
    "weft_packed_attention_forward": _INT,
    "weft_packed_attention_backward": _INT,
    "weft_has_wide_registers": _INT,
}

# The element types of kernels.h.
TYPE_CODES: dict[torch.dtype, int] = {torch.float32: 0, torch.bfloat16: 1}
# The one-byte codes of codes.h.
CODE_TYPES: dict[torch.dtype, int] = {
    torch.int8: 2,
    torch.float8_e4m3fn: 3,
    torch.float8_e5m2: 4,
}

# Elements a second thread must have to be worth waking.
ELEMENTS_PER_THREAD = 32_768


@dataclass(frozen=True)
class Library:
    """The C functions, and how they came to be loaded.

    Attributes:
        functions: The library with argument types set.
        path: Its file.
        threads: Whether loops run on torch's OpenMP threads.
        wide_registers: Whether sixteen floats fit one register (AVX-512).
    """

    functions: ctypes.CDLL
    path: Path
    threads: bool
    wide_registers: bool


@functools.cache
def load_library() -> Library | None:
    """Return the library, built on the first call of a machine's life, or none."""
    return _load()[0]


def native_status() -> str:
    """Return one line for ``weft doctor``: which kernels run and why."""
    library, reason = _load()
    if library is None:
        return f"C kernels off, torch runs instead: {reason}"
    threads = "torch's OpenMP threads" if library.threads else "one thread"
    return f"C kernels on ({threads}): {library.path}"


def is_plain(tensor: Tensor) -> bool:
    """Return whether a C kernel may read the tensor's memory.

    Fake, meta, distributed and functional tensors are not plain, nor is anything being
    compiled: there the traceable torch path runs.
    """
    return (
        type(tensor) in _PLAIN_TYPES
        and tensor.is_cpu
        and tensor.dtype in TYPE_CODES
        and not torch.compiler.is_compiling()
    )


_PLAIN_TYPES = (Tensor, torch.nn.Parameter)


def num_threads(num_elements: int) -> int:
    """Return how many threads to use for this many elements; results do not depend on it."""
    return max(1, min(torch.get_num_threads(), num_elements // ELEMENTS_PER_THREAD))


@functools.cache
def _load() -> tuple[Library | None, str]:
    has_runtime = _share_openmp()
    reason = ""
    for threads in (True, False) if has_runtime else (False,):
        try:
            path = build_library(threads=threads)
            functions = _open(path)
            wide = bool(functions.weft_has_wide_registers())
            return Library(functions, path, threads, wide), ""
        except (BuildError, OSError, AttributeError) as error:
            reason = str(error)
    return None, reason


def _share_openmp() -> bool:
    """Make the OpenMP runtime that torch loaded visible to libraries loaded from now on."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    path = next((line.split(maxsplit=5)[5] for line in maps if "libgomp" in line), None)
    if path is None:
        return False
    ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    return True


def _open(path: Path) -> ctypes.CDLL:
    functions = ctypes.CDLL(str(path))
    for name, argtypes in _SIGNATURES.items():
        function = getattr(functions, name)
        function.argtypes = argtypes
        function.restype = _RETURNS.get(name)
    return functions
