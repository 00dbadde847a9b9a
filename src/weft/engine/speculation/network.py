"""``NetworkProposer``: drafts token by token with a network that has its own keys and values.

Its cache is indexed by the blocks of the target, so prefixes that are found in the target's cache
are found in this one too, and whoever moves blocks moves both. The keys of guesses that run beyond
the sequence's blocks go to scratch blocks, which nobody reads in the next step.

One pass computes what the last step has kept of every sequence, and with it the token drawn last.
Then a chain grows by one guess per pass. A tree grows by one depth per pass: of all candidates the
likeliest are followed further, and at the end the likeliest of all are the draft (EAGLE-2, Li et
al. 2024, arXiv:2406.16858).

A chain's guesses are drawn as the sequence itself draws, from the same random numbers where guesses
must equal the target's draw, so a network that agrees with the target guesses its very tokens.

Shapes: R sequences that draft, T tokens of one pass, D target width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from weft.engine.batch import build_batch
from weft.engine.speculation.best_first import Candidate, likeliest
from weft.engine.speculation.config import Acceptance, TreeShape
from weft.engine.speculation.networks import Network
from weft.engine.speculation.trailing import TrailingProposer
from weft.engine.speculation.trails import known_item
from weft.engine.step_view import StepView
from weft.nn.context import StepContext
from weft.sched.plan import Draft, StepItem


@dataclass
class _Drafting:
    """One sequence whose draft is being made.

    Attributes:
        root: Computes its last token, whose row the first guess is drawn from.
        position: Of the first guess.
        depth: Most guesses behind one another.
        tokens: The chain so far.
        nodes: Candidates of a tree.
        followed: Indices of the candidates that are computed, in the order of their places.
        frontier: Those of the deepest level.
    """

    root: StepItem
    position: int
    depth: int
    tokens: list[int] = field(default_factory=list)
    nodes: list[Candidate] = field(default_factory=list)
    followed: list[int] = field(default_factory=list)
    frontier: list[int] = field(default_factory=lambda: [-1])

    @property
    def tree_item(self) -> StepItem:
        """Computes the root and all nodes that are followed."""
        place = {-1: -1} | {node: rank for rank, node in enumerate(self.followed)}
        tokens = tuple(self.nodes[node].token for node in self.followed)
        parents = tuple(place[self.nodes[node].parent] for node in self.followed)
        return self.root._replace(draft=Draft(tokens, parents))


class NetworkProposer(TrailingProposer):
    """Drafts with a network.

    Args:
        network: Computes guesses.
        num_blocks: Blocks of the target's cache.
        block_size: Positions per block.
        max_num_sequences: Most sequences of one step.
        max_draft: Most guesses per sequence and step.
        num_scratch_blocks: Blocks of each sequence for guesses; see ``SpeculationConfig``.
        tree: Shape of the draft.
        acceptance: How guesses will be judged.
    """

    def __init__(
        self,
        network: Network,
        *,
        num_blocks: int,
        block_size: int,
        max_num_sequences: int,
        max_draft: int,
        num_scratch_blocks: int,
        tree: TreeShape,
        acceptance: Acceptance,
    ) -> None:
        self.network = network
        self._num_blocks = num_blocks
        self._tree = tree
        self._max_draft = max_draft
        self._depth = min(max_draft, tree.depth or max_draft)
        self._num_scratch_blocks = num_scratch_blocks
        num_scratch = max_num_sequences * self._num_scratch_blocks
        cache = network.cache(num_blocks + num_scratch, block_size)
        super().__init__(cache, acceptance, keeps_hidden=network.lag > 0)
        # What the roots of the drafts being made are computed from, for networks that lag.
        self._root_features = torch.empty(0)

    def propose(self, view: StepView) -> dict[int, Draft]:
        """Compute what is waiting, and draft for every sequence that has drawn."""
        last = {
            id: view.drawn(id)[-1] for id in view.walks if id in self._drawer and view.drawn(id)
        }
        drafting, hidden_RD = self._catch_up([item.id for item in view.items], last)
        if not drafting:
            return {}
        if self._tree.branching > 1:
            return self._grow_trees(drafting, hidden_RD)
        return self._grow_chains(drafting, hidden_RD)

    def _catch_up(
        self, ids: Sequence[int], last: Mapping[int, int]
    ) -> tuple[list[_Drafting], Tensor]:
        """Compute the trails of sequences, and of some their last tokens.

        Returns:
            Those that can draft, and the network's hidden states their first guesses come from.
        """
        lag = self.network.lag
        items, inputs, drafting, rows, num_rows = [], [], [], [], 0
        for id in ids:
            trail = self._trails[id]
            tokens = (*trail.tokens[lag:], *((last[id],) if id in last else ()))
            if not tokens:
                continue
            item = known_item(id, trail, tokens, self._scratch(len(items)) if id in last else ())
            items.append(item)
            num_rows += len(tokens)
            if lag:
                inputs.append(trail.hidden_TD()[: len(tokens)])
            if id in last:
                one = self._drafting(item)
                if one.depth > 0:
                    drafting.append(one)
                    rows.append(num_rows - 1)
            trail.keep_last(0 if id in last else lag)
        if not items:
            return [], torch.empty(0)
        features_TD = torch.cat(inputs) if inputs else None
        hidden_TD = self._run(items, features_TD)
        if features_TD is not None:
            self._root_features = features_TD[rows]
        return drafting, hidden_TD[rows]

    def _drafting(self, item: StepItem) -> _Drafting:
        """Return the draft that begins behind the last token of an item."""
        place = item.start + len(item.tokens) - 1
        position = place + 1 + self.network.lag
        root = item._replace(tokens=item.tokens[-1:], start=place)
        return _Drafting(root, position, min(self._depth, self.network.max_context - position))

    def _scratch(self, row: int) -> tuple[int, ...]:
        first = self._num_blocks + row * self._num_scratch_blocks
        return tuple(range(first, first + self._num_scratch_blocks))

    def _run(self, items: Sequence[StepItem], features_TD: Tensor | None) -> Tensor:
        batch = build_batch(items, self._cache.block_size, self._device)
        ctx = StepContext.paged(self._cache, batch.paged)
        return self.network(batch.tokens_T, features_TD, ctx)

    @property
    def _device(self) -> torch.device:
        return next(iter(self._cache.tokens[0].values())).device

    # Chains.

    def _grow_chains(self, drafting: list[_Drafting], hidden_RD: Tensor) -> dict[int, Draft]:
        self._drawer.begin([one.root.id for one in drafting])
        growing = drafting
        for depth in range(self._depth):
            self._draw(growing, depth, self.network.logits(hidden_RD))
            goes_on = [row for row, one in enumerate(growing) if depth + 1 < one.depth]
            if not goes_on:
                break
            growing = [growing[row] for row in goes_on]
            items = [
                one.root._replace(tokens=(one.tokens[-1],), start=one.root.start + depth + 1)
                for one in growing
            ]
            hidden_RD = self._run(items, hidden_RD[goes_on] if self.network.lag else None)
        return {one.root.id: Draft(tuple(one.tokens)) for one in drafting}

    def _draw(self, growing: Sequence[_Drafting], depth: int, logits_RV: Tensor) -> None:
        """Append one guess to each chain."""
        positions_R = np.array([one.position + depth for one in growing])
        ids = [one.root.id for one in growing]
        for one, token in zip(growing, self._drawer.draw(ids, positions_R, logits_RV), strict=True):
            one.tokens.append(token)

    # Trees.

    def _grow_trees(self, drafting: list[_Drafting], hidden_RD: Tensor) -> dict[int, Draft]:
        # By sequence and node, what its followers are computed from; -1 is the root.
        features = [{-1: hidden_D} for hidden_D in hidden_RD]
        growing = list(range(len(drafting)))
        for depth in range(1, self._depth + 1):
            growing = [index for index in growing if depth <= drafting[index].depth]
            self._branch([drafting[index] for index in growing], [features[i] for i in growing])
            growing = [index for index in growing if depth < drafting[index].depth]
            if not growing:
                break
            self._follow(growing, drafting, features)
        return {one.root.id: likeliest(one.nodes, self._max_draft) for one in drafting}

    def _branch(self, growing: Sequence[_Drafting], features: Sequence[dict[int, Tensor]]) -> None:
        """Give each node of the frontier its likeliest followers; they are the next frontier."""
        rows = [known[node] for one, known in zip(growing, features, strict=True)
                for node in one.frontier]  # fmt: skip
        if not rows:
            return
        logprobs_RV = self.network.logits(torch.stack(rows)).log_softmax(dim=-1)
        best = logprobs_RV.topk(min(self._tree.branching, logprobs_RV.shape[-1]), dim=-1)
        found = iter(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        for one in growing:
            first = len(one.nodes)
            for node in one.frontier:
                before = one.nodes[node] if node >= 0 else Candidate(-1, -1, 0.0, 0)
                for token, logprob in zip(*next(found), strict=True):
                    one.nodes.append(
                        Candidate(token, node, before.logprob + logprob, before.depth + 1)
                    )
            new = sorted(range(first, len(one.nodes)), key=lambda node: -one.nodes[node].logprob)
            one.frontier = sorted(new[: self._tree.branching])

    def _follow(
        self,
        growing: Sequence[int],
        drafting: Sequence[_Drafting],
        features: Sequence[dict[int, Tensor]],
    ) -> None:
        """Compute the frontier of each tree, and with it the tree above it once more."""
        items, inputs = [], []
        for index in growing:
            one = drafting[index]
            one.followed += one.frontier
            items.append(one.tree_item)
            if self.network.lag:
                inputs.append(self._root_features[index])
                inputs += [features[index][one.nodes[node].parent] for node in one.followed]
        hidden_TD = self._run(items, torch.stack(inputs) if inputs else None)
        pieces = hidden_TD.split([1 + len(drafting[index].followed) for index in growing])
        for index, piece_TD in zip(growing, pieces, strict=True):
            features[index].update(zip(drafting[index].followed, piece_TD[1:], strict=True))
