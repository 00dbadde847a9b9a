"""Which rows of which of our layers a layer of a Hugging Face model is.

PEFT names layers as transformers does (``model.layers.0.self_attn.q_proj``); ours may hold several
of them one below the other (``layers.0.mixer.qkv``). The families' key maps say which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from weft.core.errors import UnsupportedError, did_you_mean
from weft.models.families import key_map, rules
from weft.models.hf_keys import Part, parts
from weft.models.hf_layouts import Alternating, Chain, GroupedRows, Layout, Transposed
from weft.spec import ModelSpec

_WEIGHT = ".weight"


@dataclass(frozen=True)
class Target:
    """A layer of theirs inside one of ours.

    Attributes:
        theirs: Its name in transformers.
        ours: Name of our layer.
        start: Its first row there.
        num_rows: Its rows.
        width: Numbers it maps from.
        layout: How its weight lies in their files; none means as in ours.
    """

    theirs: str
    ours: str
    start: int
    num_rows: int
    width: int
    layout: Layout | None

    @property
    def rows(self) -> slice:
        """Its rows in our layer."""
        return slice(self.start, self.start + self.num_rows)

    @property
    def is_transposed(self) -> bool:
        """Whether their weight has inputs first (GPT-2's Conv1D)."""
        return any(isinstance(layout, Transposed) for layout in _steps(self.layout))

    def rows_to_ours(self, b_OR: Tensor) -> Tensor:
        """Bring the rows of a factor B into our order."""
        for layout in _row_layouts(self.layout):
            b_OR = layout.to_ours(b_OR)
        return b_OR

    def rows_to_theirs(self, b_OR: Tensor) -> Tensor:
        """Bring the rows of a factor B into their order."""
        for layout in reversed(_row_layouts(self.layout)):
            b_OR = layout.to_theirs(b_OR)
        return b_OR


class Targets:
    """Every layer of theirs that a low-rank pair can change.

    Args:
        spec: The model.
        shapes: (rows, input width) of our layers, by name.
    """

    def __init__(self, spec: ModelSpec, shapes: Mapping[str, tuple[int, int]]) -> None:
        self._aliases = key_map(spec).aliases
        self.by_theirs: dict[str, Target] = {}
        self._experts: set[str] = set()
        for part in parts(rules(spec)):
            if part.index is not None:
                self._experts.add(part.theirs.removesuffix(_WEIGHT))
            elif (target := _target(part, shapes)) is not None:
                self.by_theirs[target.theirs] = target

    def find(self, name: str) -> Target:
        """Return the layer that transformers calls ``name``.

        Raises:
            UnsupportedError: the model has no such layer, or it takes no adapter.
        """
        weight = name + _WEIGHT
        for pattern, replacement in self._aliases:
            weight = re.sub(pattern, replacement, weight)
        found = self.by_theirs.get(weight.removesuffix(_WEIGHT))
        if found is not None:
            return found
        if name in self._experts:
            raise UnsupportedError(
                f"the adapter changes {name!r}; experts that a router chooses take no adapter",
                fix="train it on attention and shared layers only",
            )
        raise UnsupportedError(
            f"the adapter changes {name!r}, which is no linear layer of this model",
            fix=did_you_mean(name, self.by_theirs, otherwise="use an adapter of this model"),
        )

    def inside(self, ours: str) -> list[Target]:
        """Return the layers of theirs that make up one of ours, by rising rows.

        Raises:
            UnsupportedError: transformers has no such layer.
        """
        found = [target for target in self.by_theirs.values() if target.ours == ours]
        if not found:
            raise UnsupportedError(
                f"the adapter changes {ours!r}, which transformers keeps in another form",
                fix="leave that layer out of lora.targets, or merge the adapter and save a model",
            )
        return sorted(found, key=lambda target: target.start)


def _target(part: Part, shapes: Mapping[str, tuple[int, int]]) -> Target | None:
    ours = part.ours.removesuffix(_WEIGHT)
    if ours not in shapes or not part.ours.endswith(_WEIGHT) or part.axis != 0:
        return None
    if any(
        not isinstance(layout, Transposed | Alternating | GroupedRows) or _axis(layout) != 0
        for layout in _steps(part.layout)
    ):
        return None
    num_rows, width = shapes[ours]
    size = num_rows if part.size is None else part.size
    theirs = part.theirs.removesuffix(_WEIGHT)
    return Target(theirs, ours, part.start, size, width, part.layout)


def _axis(layout: Layout) -> int:
    return layout.axis if isinstance(layout, Alternating) else 0


def _steps(layout: Layout | None) -> tuple[Layout, ...]:
    if isinstance(layout, Chain):
        return layout.layouts
    return () if layout is None else (layout,)


def _row_layouts(layout: Layout | None) -> list[Layout]:
    # PEFT keeps A and B of a transposed weight as those of a plain one.
    return [step for step in _steps(layout) if not isinstance(step, Transposed)]
