"""Optimizers by name, and several of them as one object with named state tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weft.core.errors import CheckpointError, ConfigError
from weft.train.muon import Muon
from weft.train.parameters import merged_rows, sort_parameters

OptimizerName = Literal[
    "muon_adamw",
    "adamw",
    "adam",
    "nadam",
    "radam",
    "adagrad",
    "adadelta",
    "rmsprop",
    "rprop",
    "asgd",
    "sgd",
    "momentum",
    "nesterov",
]


@dataclass(frozen=True)
class OptimizerConfig:
    """Which update rule and its rates.

    Attributes:
        name: muon_adamw (Muon for matrices, AdamW for the rest), or one rule for all: adamw, adam,
            nadam, radam, adagrad, adadelta, rmsprop, rprop, asgd, sgd, momentum, nesterov.
        lr: Peak learning rate.
        matrix_lr: Peak learning rate of the matrices; none means lr.
        weight_decay: On matrices only; decoupled for muon_adamw and adamw, L2 for the others.
        beta1: Decay of the average gradient (Adam family).
        beta2: Decay of the average squared gradient (Adam family, RMSprop; AdaDelta's rho).
        eps: Added to the root of the average squared gradient.
        momentum: Of Muon, momentum and nesterov.
        muon_iterations: Newton-Schulz iterations of Muon.
    """

    name: OptimizerName = "muon_adamw"
    lr: float = 3e-3
    matrix_lr: float | None = None
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    momentum: float = 0.95
    muon_iterations: int = 5

    def __post_init__(self) -> None:
        if self.lr <= 0 or (self.matrix_lr is not None and self.matrix_lr <= 0):
            raise ConfigError(f"lr is {self.lr} and matrix_lr {self.matrix_lr}; both must be > 0")
        for name in ("beta1", "beta2", "momentum"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be in [0, 1)")
        if min(self.weight_decay, self.eps) < 0 or self.muon_iterations < 1:
            raise ConfigError(
                f"weight_decay {self.weight_decay} and eps {self.eps} must be at least 0, "
                f"muon_iterations {self.muon_iterations} at least 1"
            )


class Optimizers:
    """Several torch optimizers over disjoint named parameters, stepped as one.

    Args:
        parts: The optimizers; each group's ``lr`` is its peak rate.
        names: The name of every parameter.
    """

    def __init__(
        self, parts: Sequence[torch.optim.Optimizer], names: Mapping[nn.Parameter, str]
    ) -> None:
        self.parts = list(parts)
        self._names: dict[Tensor, str] = {**names}
        self._peak_lrs = [[group["lr"] for group in part.param_groups] for part in self.parts]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Every parameter of every part."""
        groups = [group for part in self.parts for group in part.param_groups]
        return [parameter for group in groups for parameter in group["params"]]

    @property
    def lr(self) -> float:
        """The current learning rate of the first group."""
        return self.parts[0].param_groups[0]["lr"]

    def set_lr_factor(self, factor: float) -> None:
        """Set every group's rate to its peak times ``factor``."""
        for part, peaks in zip(self.parts, self._peak_lrs, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * factor

    def step(self, found_inf: Tensor | None = None) -> None:
        """Update the parameters, or nothing at all when ``found_inf`` is not 0.

        Muon and torch's fused rules look at the tensor on its device; for the other rules the
        host reads it, which waits for the device.
        """
        for part in self.parts:
            if found_inf is None:
                part.step()
            elif isinstance(part, Muon) or part.defaults.get("fused"):
                part.found_inf = found_inf  # type: ignore[attr-defined]
                part.step()
            elif not found_inf.item():
                part.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all state as flat tensors named ``parameter/key``; they share storage."""
        state: dict[str, Tensor] = {}
        for part in self.parts:
            for parameter, values in part.state.items():
                for key, value in values.items():
                    if value is not None:
                        state[f"{self._names[parameter]}/{key}"] = torch.as_tensor(value)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state_dict`` returned, copied.

        Raises:
            CheckpointError: state of a parameter that is not optimized here or has another shape.
        """
        owners = {
            self._names[parameter]: (part, parameter)
            for part in self.parts
            for group in part.param_groups
            for parameter in group["params"]
        }
        for part in self.parts:
            part.state.clear()
        for name, value in state.items():
            parameter_name, _, key = name.rpartition("/")
            if parameter_name not in owners:
                raise CheckpointError(
                    f"the optimizer state holds {name!r}, which this model does not learn",
                    fix="continue with the configuration the run was started with",
                )
            part, parameter = owners[parameter_name]
            if value.ndim and value.shape != parameter.shape:
                raise CheckpointError(
                    f"optimizer state {name!r} has shape {tuple(value.shape)}; the parameter has "
                    f"{tuple(parameter.shape)}",
                    fix="continue with the configuration the run was started with",
                )
            # torch keeps step counters on the CPU unless a fused device kernel reads them.
            on_host = value.ndim == 0 and not part.defaults.get("fused")
            device = "cpu" if on_host else parameter.device
            part.state[parameter][key] = value.to(device, copy=True)


def build_optimizer(
    model: nn.Module,
    config: OptimizerConfig,
    *,
    orthogonalize_dtype: torch.dtype = torch.float32,
) -> Optimizers:
    """Return the optimizers of a configuration over the model's learnt parameters.

    ``orthogonalize_dtype`` is the element type of Muon's matmuls: bfloat16 where that is fast.

    Raises:
        ConfigError: the model has nothing to learn.
    """
    kinds = sort_parameters(model)
    named = {**kinds.matrices, **kinds.tables, **kinds.vectors}
    if not named:
        raise ConfigError("no parameter of the model requires a gradient")
    names = {parameter: name for name, parameter in named.items()}
    matrix_lr = config.lr if config.matrix_lr is None else config.matrix_lr
    matrices = _group(kinds.matrices.values(), matrix_lr, config.weight_decay)
    others = [
        _group(kinds.tables.values(), config.lr, 0.0),
        _group(kinds.vectors.values(), config.lr, 0.0),
    ]
    if config.name != "muon_adamw":
        return Optimizers([_build_torch(config.name, [matrices, *others], config)], names)
    muon = (
        Muon(
            kinds.matrices,
            lr=matrix_lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            num_iterations=config.muon_iterations,
            merged_rows=merged_rows(model),
            dtype=orthogonalize_dtype,
        )
        if kinds.matrices
        else None
    )
    adamw = _build_torch("adamw", others, config) if any(g["params"] for g in others) else None
    return Optimizers([part for part in (muon, adamw) if part is not None], names)


def _group(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> dict[str, Any]:
    return {"params": list(parameters), "lr": lr, "weight_decay": weight_decay}


def _build_torch(
    name: str, groups: list[dict[str, Any]], config: OptimizerConfig
) -> torch.optim.Optimizer:
    groups = [group for group in groups if group["params"]]
    return _TORCH_RULES[name](groups, config)


def _rprop(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    # Rprop looks at signs only, so a decay folded into the gradient has no meaning.
    bare = [{key: group[key] for key in ("params", "lr")} for group in groups]
    return torch.optim.Rprop(bare, lr=config.lr)


# fused=True is one pass over the state; on CPU it is 3 to 5 times faster than the loop.
_TORCH_RULES: dict[
    str, Callable[[list[dict[str, Any]], OptimizerConfig], torch.optim.Optimizer]
] = {
    "adamw": lambda g, c: torch.optim.AdamW(g, betas=(c.beta1, c.beta2), eps=c.eps, fused=True),
    "adam": lambda g, c: torch.optim.Adam(g, betas=(c.beta1, c.beta2), eps=c.eps, fused=True),
    "nadam": lambda g, c: torch.optim.NAdam(g, betas=(c.beta1, c.beta2), eps=c.eps),
    "radam": lambda g, c: torch.optim.RAdam(g, betas=(c.beta1, c.beta2), eps=c.eps),
    "adagrad": lambda g, c: torch.optim.Adagrad(g, eps=c.eps, fused=True),
    "adadelta": lambda g, c: torch.optim.Adadelta(g, rho=c.beta2, eps=c.eps),
    "rmsprop": lambda g, c: torch.optim.RMSprop(g, alpha=c.beta2, eps=c.eps),
    "rprop": _rprop,
    "asgd": lambda g, c: torch.optim.ASGD(g),
    "sgd": lambda g, c: torch.optim.SGD(g, fused=True),
    "momentum": lambda g, c: torch.optim.SGD(g, momentum=c.momentum, fused=True),
    "nesterov": lambda g, c: torch.optim.SGD(g, momentum=c.momentum, nesterov=True, fused=True),
}
