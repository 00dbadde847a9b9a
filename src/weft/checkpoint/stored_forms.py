"""Packed forms in which a file may hold a tensor under other names, as data.

A tensor that Hugging Face's unpacked checkpoint calls ``NAME`` is stored in a form when the files
have every ``NAME + suffix`` of it. The key maps of families know nothing of forms: they name and
lay out the unpacked tensor. Saving always writes it unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import NamedTuple

import torch
from torch import Tensor

from weft.core.errors import CheckpointError

FP8_BLOCK = 128
# E2M1: sign, two bits of exponent, one of mantissa (OCP Microscaling Formats 1.0, table 5).
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
E8M0_BIAS = 127


def dequantise_fp8_blocks(weight_RC: Tensor, scales_IJ: Tensor, dtype: torch.dtype) -> Tensor:
    """Return e4m3 numbers times the scale of their 128 x 128 block (DeepSeek-V3, arXiv:2412.19437).

    Args:
        weight_RC: float8_e4m3fn.
        scales_IJ: One factor per block; blocks at the right and bottom edge may be smaller.
        dtype: Of the result.

    Raises:
        CheckpointError: the number of scales is not that of the blocks.
    """
    rows, columns = weight_RC.shape
    expected = (-(-rows // FP8_BLOCK), -(-columns // FP8_BLOCK))
    if tuple(scales_IJ.shape) != expected:
        raise CheckpointError(
            f"a {rows} x {columns} FP8 tensor needs {expected} block scales, not "
            f"{tuple(scales_IJ.shape)}",
            fix="only blocks of 128 x 128 are supported",
        )
    scales_IC = scales_IJ.float().repeat_interleave(FP8_BLOCK, dim=1)[:, :columns]
    result_RC = torch.empty(rows, columns, dtype=dtype)
    for block, scales_C in enumerate(scales_IC):
        part = slice(block * FP8_BLOCK, (block + 1) * FP8_BLOCK)
        result_RC[part] = weight_RC[part].float() * scales_C
    return result_RC


def dequantise_mxfp4(blocks_ERGB: Tensor, scales_ERG: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the unpacked [E, C, R] of MXFP4 rows (gpt-oss, arXiv:2508.10925).

    Args:
        blocks_ERGB: Two 4-bit numbers per byte, the low half first; G groups of B bytes lie along
            the C = 2 G B columns that the product sums over.
        scales_ERG: Biased exponent of two per group (E8M0).
        dtype: Of the result, which is transposed as gpt-oss's unpacked tensors are.
    """
    values = torch.tensor(E2M1, dtype=torch.float32)
    result_ECR = torch.empty(
        blocks_ERGB.shape[0],
        2 * blocks_ERGB.shape[2] * blocks_ERGB.shape[3],
        blocks_ERGB.shape[1],
        dtype=dtype,
    )
    for expert, blocks_RGB in enumerate(blocks_ERGB):
        low, high = (blocks_RGB & 0xF).int(), (blocks_RGB >> 4).int()
        numbers_RGN = values[torch.stack((low, high), dim=-1)].flatten(-2)
        exponents_RG = scales_ERG[expert].int() - E8M0_BIAS
        result_ECR[expert] = torch.ldexp(numbers_RGN, exponents_RG.unsqueeze(-1)).flatten(1).T
    return result_ECR


class StoredForm(NamedTuple):
    """A way to store one tensor as several.

    Attributes:
        name: For people.
        suffixes: What follows the tensor's name in the names of the stored ones.
        decode: From the stored tensors, in that order, and an element type to the tensor.
    """

    name: str
    suffixes: tuple[str, ...]
    decode: Callable[[Tensor, Tensor, torch.dtype], Tensor]

    def names(self, name: str) -> tuple[str, ...]:
        """Return the names under which the files have the tensor ``name``."""
        return tuple(name + suffix for suffix in self.suffixes)


STORED_FORMS = (
    StoredForm("FP8 in blocks", ("", "_scale_inv"), dequantise_fp8_blocks),
    StoredForm("MXFP4", ("_blocks", "_scales"), dequantise_mxfp4),
)


def find_form(name: str, stored: Container[str]) -> StoredForm | None:
    """Return the form in which ``name`` is among the stored names; none means unpacked."""
    for form in STORED_FORMS:
        if all(part in stored for part in form.names(name)):
            return form
    return None
