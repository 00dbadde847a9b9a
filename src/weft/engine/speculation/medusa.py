"""Drafting with Medusa heads: guesses for several depths from one hidden state, no cache.

The guesses of a depth do not depend on those before it, so a tree is the product of every depth's
likeliest tokens, of which the likeliest branches are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.core.errors import UnsupportedError
from weft.engine.speculation.best_first import likeliest_product
from weft.engine.speculation.config import TreeShape
from weft.engine.speculation.proposer import HistoryProposer
from weft.engine.step_view import StepView
from weft.models import heads
from weft.models.decoder import Decoder
from weft.models.medusa import MedusaHeads
from weft.sched.plan import Draft


class MedusaProposer(HistoryProposer):
    """Asks the heads what follows the last hidden state of each sequence.

    Args:
        module: Heads trained with the model.
        model: The target.
        max_draft: Most guesses per step.
        tree: Shape of the draft; heads beyond its depth are not asked.

    Raises:
        UnsupportedError: the heads belong to a model of another width.
    """

    def __init__(
        self, module: MedusaHeads, model: Decoder, *, max_draft: int, tree: TreeShape
    ) -> None:
        if module.dim != model.spec.dim:
            raise UnsupportedError(
                f"the Medusa heads are {module.dim} wide, the model {model.spec.dim}",
                fix="use heads trained for this model",
            )
        self.heads = module
        self.model = model
        self._max_draft = max_draft
        self._tree = tree
        self._depth = min(max_draft, tree.depth or max_draft, len(module.heads))

    def take_in(self, view: StepView) -> None:
        """Keep nothing: a step's hidden states say it all."""

    def propose(self, view: StepView) -> dict[int, Draft]:
        """Guess from the hidden state before the token each sequence has drawn last."""
        items = [item for item in view.items if view.drawn(item.id)]
        if not items:
            return {}
        hidden_RD = view.hidden_TD[[view.kept_rows(item)[-1] for item in items]]
        levels = []
        for ahead_RD in self.heads(hidden_RD)[: self._depth]:
            logprobs_RV = heads.logits(self.model, ahead_RD).log_softmax(dim=-1)
            best = logprobs_RV.topk(min(self._tree.branching, logprobs_RV.shape[-1]), dim=-1)
            levels.append((best.indices.tolist(), best.values.tolist()))
        return {item.id: self._draft(levels, row) for row, item in enumerate(items)}

    def _draft(self, levels: list[tuple[list, list]], row: int) -> Draft:
        of_row = [list(zip(tokens[row], values[row], strict=True)) for tokens, values in levels]
        if self._tree.branching == 1:
            return Draft(tuple(level[0][0] for level in of_row))
        return likeliest_product(of_row, self._max_draft)

    def forget(self, ids: Sequence[int]) -> None:
        """Drop nothing."""
