"""The tiny models of every family, by kind of architecture."""

from __future__ import annotations

from tests.parity.cases import dense, latent, moe, recurrent
from tests.parity.harness import Case

CASES: dict[str, Case] = {
    **dense.CASES,
    **latent.CASES,
    **moe.CASES,
    **recurrent.CASES,
}
