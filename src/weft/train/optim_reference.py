"""Each update rule as one plain function, to read and to hold ``torch.optim`` against.

A rule takes a parameter, its gradient, a dictionary of state (empty before the first step) and
the rates, and returns the new parameter. ``t`` counts steps from 1. No rule decays weights but
``adamw``.
"""

from __future__ import annotations

import torch
from torch import Tensor

State = dict[str, Tensor]


def sgd(p: Tensor, g: Tensor, state: State, t: int, *, lr: float) -> Tensor:
    """Follow the gradient (Robbins and Monro 1951)."""
    return p - lr * g


def momentum(p: Tensor, g: Tensor, state: State, t: int, *, lr: float, mu: float) -> Tensor:
    """Follow a decaying sum of gradients, the heavy ball (Polyak 1964)."""
    state["v"] = mu * state["v"] + g if state else g
    return p - lr * state["v"]


def nesterov(p: Tensor, g: Tensor, state: State, t: int, *, lr: float, mu: float) -> Tensor:
    """Look ahead along the momentum (Nesterov 1983; form of Sutskever et al. 2013)."""
    state["v"] = mu * state["v"] + g if state else g
    return p - lr * (g + mu * state["v"])


def asgd(p: Tensor, g: Tensor, state: State, t: int, *, lr: float) -> Tensor:
    """Follow the gradient with a slowly falling rate; the average is kept apart as ``mean``.

    Polyak and Juditsky 1992, rates of Bottou: lambd = 1e-4, alpha = 0.75, t0 = 1e6.
    """
    lambd, alpha, t0 = 1e-4, 0.75, 1e6
    eta = lr / (1 + lambd * lr * (t - 1)) ** alpha
    p = p * (1 - lambd * eta) - eta * g
    mu = 1 / max(1.0, (t - 1) - t0)
    mean = state.get("mean", torch.zeros_like(p))
    state["mean"] = mean + mu * (p - mean)
    return p


def rprop(p: Tensor, g: Tensor, state: State, t: int, *, lr: float) -> Tensor:
    """Give each weight its own step, grown while the gradient keeps its sign.

    Riedmiller and Braun 1993, with factors 0.5 and 1.2 and steps in [1e-6, 50]; after a change of
    sign the weight rests for one step.
    """
    step = state.get("step", torch.full_like(p, lr))
    sign = (g * state.get("g", torch.zeros_like(g))).sign()
    grown, shrunk = step * 1.2, step * 0.5
    step = torch.where(sign > 0, grown, torch.where(sign < 0, shrunk, step))
    state["step"] = step.clamp(1e-6, 50.0)
    state["g"] = torch.where(sign < 0, 0.0, g)
    return p - state["g"].sign() * state["step"]


def adagrad(p: Tensor, g: Tensor, state: State, t: int, *, lr: float, eps: float) -> Tensor:
    """Divide by the root of the summed squares (Duchi et al. 2011)."""
    state["sum"] = state.get("sum", torch.zeros_like(p)) + g.square()
    return p - lr * g / (state["sum"].sqrt() + eps)


def adadelta(
    p: Tensor, g: Tensor, state: State, t: int, *, lr: float, rho: float, eps: float
) -> Tensor:
    """Divide by recent gradients, multiply by recent updates (Zeiler 2012, arXiv:1212.5701)."""
    zeros = torch.zeros_like(p)
    state["g2"] = rho * state.get("g2", zeros) + (1 - rho) * g.square()
    update = ((state.get("u2", zeros) + eps) / (state["g2"] + eps)).sqrt() * g
    state["u2"] = rho * state.get("u2", zeros) + (1 - rho) * update.square()
    return p - lr * update


def rmsprop(
    p: Tensor, g: Tensor, state: State, t: int, *, lr: float, alpha: float, eps: float
) -> Tensor:
    """Divide by the root of the average square (Hinton 2012, lecture 6e)."""
    state["v"] = alpha * state.get("v", torch.zeros_like(p)) + (1 - alpha) * g.square()
    return p - lr * g / (state["v"].sqrt() + eps)


def adam(
    p: Tensor,
    g: Tensor,
    state: State,
    t: int,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> Tensor:
    """Average gradient over root average square, both unbiased (arXiv:1412.6980)."""
    m, v = _moments(g, state, beta1, beta2)
    return p - lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)


def adamw(
    p: Tensor,
    g: Tensor,
    state: State,
    t: int,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> Tensor:
    """Adam after shrinking the weight (Loshchilov and Hutter 2019, arXiv:1711.05101)."""
    shrunk = p * (1 - lr * weight_decay)
    return adam(shrunk, g, state, t, lr=lr, beta1=beta1, beta2=beta2, eps=eps)


def nadam(
    p: Tensor,
    g: Tensor,
    state: State,
    t: int,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> Tensor:
    """Adam with Nesterov's look-ahead (Dozat 2016), momentum decay 0.004."""
    m, v = _moments(g, state, beta1, beta2)
    mu = beta1 * (1 - 0.5 * 0.96 ** (t * 0.004))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * 0.004))
    product = state.get("mu_product", torch.ones((), dtype=p.dtype)) * mu
    state["mu_product"] = product
    ahead = mu_next * m / (1 - product * mu_next) + (1 - mu) * g / (1 - product)
    return p - lr * ahead / ((v / (1 - beta2**t)).sqrt() + eps)


def radam(
    p: Tensor,
    g: Tensor,
    state: State,
    t: int,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> Tensor:
    """Adam whose adaptive part waits until its variance is bounded (arXiv:1908.03265)."""
    m, v = _moments(g, state, beta1, beta2)
    unbiased = m / (1 - beta1**t)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    if rho <= 5:
        return p - lr * unbiased
    numerator = (rho - 4) * (rho - 2) * rho_inf
    rectifier = (numerator / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5
    return p - lr * unbiased * rectifier * (1 - beta2**t) ** 0.5 / (v.sqrt() + eps)


def _moments(g: Tensor, state: State, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
    zeros = torch.zeros_like(g)
    state["m"] = beta1 * state.get("m", zeros) + (1 - beta1) * g
    state["v"] = beta2 * state.get("v", zeros) + (1 - beta2) * g.square()
    return state["m"], state["v"]
