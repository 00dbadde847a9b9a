"""C kernels without a build step: compiled on first use, loaded with ctypes, never required.

- ``*.c kernels.h``  the kernels; no header of torch, so nothing is tied to its version.
- ``build.py``       source to shared library: compiler, flags, cache by hash.
- ``bindings.py``     the loaded library with argument types, and what to say in ``weft doctor``.

A kernel exists only if it beats torch in ``benchmarks/ops_cpu.py``.
"""

from weft.ops.native.bindings import native_status

__all__ = ["native_status"]
