"""``weft plan scaling``: fit a loss law, spend a budget by it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from weft.cli.plan.inputs import count_of
from weft.cli.plan.options import Output
from weft.cli.plan.output import emit
from weft.core.errors import ConfigError, InputFileError
from weft.plan.answer import Answer, Curve, Item, Plot, listing
from weft.plan.scaling import CHINCHILLA, CHINCHILLA_REFIT, LossLaw, fit_loss
from weft.plan.scaling_bootstrap import bootstrap

_LAWS = {"chinchilla": CHINCHILLA, "chinchilla-refit": CHINCHILLA_REFIT}
_COLUMNS = ("parameters", "tokens", "loss")
_FIELDS = (
    ("irreducible", "E"), ("size_scale", "A"), ("data_scale", "B"), ("size_exponent", "alpha"),
    ("data_exponent", "beta"),
)  # fmt: skip
_OVER = tuple(2.0**power for power in range(-2, 7))


def fit(
    runs: Path,
    *,
    resamples: int = 20,
    seed: int = 0,
    output: Output = Output(),  # noqa: B008
) -> None:
    """Fit L(N, D) = E + A/N^alpha + B/D^beta to runs, with bootstrap intervals.

    Parameters
    ----------
    runs
        A CSV file with the columns parameters, tokens, loss.
    resamples
        Fits to resampled runs behind the intervals.
    seed
        Of the resampling.
    """
    columns = _read(runs)
    law = fit_loss(*columns)
    intervals = bootstrap(*columns, num_resamples=resamples, seed=seed)
    items = tuple(
        Item(symbol, getattr(law, name), "", "fit", "Huber loss on log loss (arXiv:2203.15556)",
             *intervals[name])
        for name, symbol in _FIELDS
    )  # fmt: skip
    predicted = [law.loss(n, d) for n, d in zip(*columns[:2], strict=True)]
    errors = [p / measured - 1.0 for p, measured in zip(predicted, columns[2], strict=True)]
    worst = Item("largest error", max(map(abs, errors)), "share", "fit", "predicted / measured - 1")
    order = tuple(sorted(columns[0]))
    tokens = max(columns[1])
    curve = Curve(f"at {tokens:.2g} tokens", order, tuple(law.loss(n, tokens) for n in order))
    plots = (Plot("loss by size", "parameters", "nats per token", (curve,)),)
    emit(Answer(f"loss law of {len(errors)} runs", items=(*items, worst), plots=plots), output)


def optimal(
    *,
    flops: str = "1e24",
    served: str | None = None,
    law: str = "chinchilla",
    output: Output = Output(),  # noqa: B008
) -> None:
    """Choose parameters and tokens for a budget of FLOPs.

    Parameters
    ----------
    flops
        Of training, such as 3.8e25.
    served
        Tokens the model will serve; it is then made smaller and trained longer.
    law
        chinchilla or chinchilla-refit.
    """
    if law not in _LAWS:
        raise ConfigError(f"no law is called {law!r}", fix=f"one of {', '.join(_LAWS)}")
    chosen, budget = _LAWS[law], count_of(flops)
    num_parameters, num_tokens = chosen.optimal(budget)
    loss = chosen.loss(num_parameters, num_tokens)
    items = [
        Item("parameters", num_parameters, "", "fit", "least loss at 6 N D = FLOPs"),
        Item("tokens", num_tokens, "", "fit", "FLOPs / 6 N"),
        Item("tokens per parameter", num_tokens / num_parameters, "", "fit"),
        Item("loss", loss, "nats", "fit", "E + A/N^alpha + B/D^beta"),
    ]
    if served is not None:
        smaller, longer = chosen.optimal_with_inference(loss, count_of(served))
        items += [
            Item("parameters with serving", smaller, "", "fit", "least 6 N D + 2 N served"),
            Item("tokens with serving", longer, "", "fit", "same loss (arXiv:2401.00448)"),
        ]
    title = f"{budget:.3g} FLOPs by {law}"
    emit(_answer(title, chosen, tuple(items), num_parameters, loss, budget), output)


def _answer(
    title: str,
    law: LossLaw,
    items: tuple[Item, ...],
    num_parameters: float,
    loss: float,
    budget: float,
) -> Answer:
    rows = []
    for factor in _OVER:
        size = num_parameters / factor
        tokens = law.tokens_for(size, loss)
        if tokens == math.inf:
            break
        extra = 6.0 * size * tokens / budget
        rows.append((f"{size:.3g}", f"{tokens:.3g}", f"{tokens / size:.0f}", f"{extra:.2f}x"))
    sizes = tuple(num_parameters * 2.0 ** (power / 4) for power in range(-16, 17))
    losses = tuple(law.loss(size, budget / (6.0 * size)) for size in sizes)
    columns = ("parameters", "tokens", "tokens per parameter", "training FLOPs")
    return Answer(
        title,
        items=items,
        listings=(listing("the same loss from smaller models", columns, rows),),
        plots=(Plot("loss at this budget", "parameters", "nats", (Curve("", sizes, losses),)),),
    )


def _read(path: Path) -> tuple[list[float], list[float], list[float]]:
    """Read runs.

    Raises:
        InputFileError: no such file or column; a line that is not three numbers is named.
    """
    columns: tuple[list[float], ...] = ([], [], [])
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if set(_COLUMNS) - set(reader.fieldnames or ()):
                raise InputFileError(f"{path} needs the columns {', '.join(_COLUMNS)}")
            for number, row in enumerate(reader, start=2):
                try:
                    for column, name in zip(columns, _COLUMNS, strict=True):
                        column.append(float(row[name]))
                except (TypeError, ValueError) as error:
                    raise InputFileError(f"{path}:{number}: {error}") from error
    except OSError as error:
        raise InputFileError(f"{path} cannot be read: {error.strerror}") from error
    return columns  # type: ignore[return-value]
