"""The selective scan of Mamba (Gu and Dao 2023, arXiv:2312.00752) and S4D's convolution.

T tokens of one sequence, D channels, S numbers of state per channel.
"""

from __future__ import annotations

import torch
from torch import Tensor


def selective_scan(
    log_decay_TDS: Tensor, inputs_TDS: Tensor, c_TS: Tensor, initial_DS: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return y_t = h_t c_t for h_t = exp(log_decay_t) h_{t-1} + inputs_t, [T, D], and the last h.

    A prefix scan of log2(T) passes (Hillis and Steele 1986): (a, b) then (a', b') is
    (a a', a' b + b'). Log-decays are at most 0.
    """
    decays_TDS, states_TDS = log_decay_TDS.exp(), inputs_TDS
    distance = 1
    while distance < len(states_TDS):
        later = decays_TDS[distance:] * states_TDS[:-distance] + states_TDS[distance:]
        states_TDS = torch.cat([states_TDS[:distance], later])
        decays_TDS = torch.cat(
            [decays_TDS[:distance], decays_TDS[distance:] * decays_TDS[:-distance]]
        )
        distance *= 2
    if initial_DS is not None:
        states_TDS = states_TDS + decays_TDS * initial_DS
    return torch.einsum("tds,ts->td", states_TDS, c_TS), states_TDS[-1]


def state_space_kernel(decay_DS: Tensor, b_DS: Tensor, c_DS: Tensor, length: int) -> Tensor:
    """Return the taps c A^t b of a system that does not change with time, [length, D]."""
    steps_T11 = torch.arange(length, device=decay_DS.device)[:, None, None]
    return (decay_DS**steps_T11 * b_DS * c_DS).sum(-1)


def long_convolution(u_TD: Tensor, kernel_TD: Tensor) -> Tensor:
    """Return the causal convolution of inputs with a kernel as long as they are, [T, D], by FFT.

    With ``state_space_kernel`` it is the recurrence of a fixed system (S4, arXiv:2111.00396).
    """
    size = 2 * len(u_TD)  # room enough that nothing wraps around
    product = torch.fft.rfft(u_TD, size, dim=0) * torch.fft.rfft(kernel_TD, size, dim=0)
    return torch.fft.irfft(product, size, dim=0)[: len(u_TD)]
