"""Sharding plans as data: which tensor of a model is cut how among the ranks of a group.

The scheme is Megatron's (Shoeybi et al. 2019, arXiv:1909.08053, section 3): projections into heads
or inner width are cut by rows and need nothing, projections out of them by columns, and what the
ranks then have are addends of the whole. Embedding and output projection are cut by tokens of the
vocabulary. What each kind of layer does is in ``sharding_rules.py``; ``sharded.py`` makes the
modules of one rank. Nothing here holds a weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from weft.core.errors import ConfigError
from weft.models.cuts import WHOLE, Cut, Sharding, prefixed, rows
from weft.models.sharding_rules import ExpertSplit, plan_ffn, plan_mixer
from weft.spec import AttentionSpec, ModelSpec


@dataclass(frozen=True)
class ShardingPlan:
    """How a model is spread over ``num_ranks`` ranks.

    Attributes:
        whole: The model.
        local: What one rank computes. The vocabulary is still whole: it is what callers see.
        num_ranks: Ranks that share each layer.
        tensors: How tensors are cut, by full name; those not named stay whole.
        sums: Modules whose outputs are addends of the ranks.
        norms: Norms over a width that is cut.
        experts: Modules that hold experts of which a rank has only some.
    """

    whole: ModelSpec
    local: ModelSpec
    num_ranks: int
    tensors: Mapping[str, Sharding] = field(default_factory=dict)
    sums: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()
    experts: tuple[str, ...] = ()

    def sharding(self, name: str) -> Sharding:
        """Return how the tensor of this name is cut."""
        return self.tensors.get(name, WHOLE)

    def local_name(self, name: str) -> str | None:
        """Return the name that a tensor of the model has on a rank: the same."""
        return name

    def take(self, name: str, tensor: Tensor, rank: int) -> Tensor:
        """Return a rank's part of the tensor of this name."""
        return self.sharding(name).take(tensor, rank, self.num_ranks)

    def vocabulary(self, rank: int) -> tuple[int, int]:
        """Return the first token of a rank and how many it has; the last ranks may have fewer."""
        return Cut(self.whole.vocab_size, self.whole.vocab_size).share(rank, self.num_ranks)

    @property
    def rows_per_rank(self) -> int:
        """Tokens of the vocabulary that every rank but perhaps the last ones has."""
        return -(-self.whole.vocab_size // self.num_ranks)


def plan_sharding(
    spec: ModelSpec, num_ranks: int, *, expert_split: ExpertSplit = "width"
) -> ShardingPlan:
    """Return how a model is spread over ``num_ranks`` ranks.

    Args:
        spec: The whole model.
        num_ranks: How many ranks share each layer.
        expert_split: Mixtures cut the "width" of every expert, or deal out whole "experts"
            (expert parallelism); each rank adds up what its own experts say of all tokens.

    Raises:
        ConfigError: a number does not divide; the message says which.
        UnsupportedError: a layer that cannot be shared, with the reason.
    """
    if num_ranks < 1:
        raise ConfigError(f"{num_ranks} ranks", fix="use at least 1")
    if num_ranks == 1:
        return ShardingPlan(spec, spec, 1)
    layers, tensors = [], _stack_tensors(spec)
    names: dict[str, list[str]] = {"sums": [], "norms": [], "experts": []}
    for index, layer in enumerate(spec.layers):
        mixer = plan_mixer(spec, index, num_ranks)
        ffn = plan_ffn(spec, index, num_ranks, expert_split)
        for prefix in _prefixes(spec, index):
            for part, plan in (("mixer", mixer), ("ffn", ffn)):
                if plan is not None:
                    tensors |= prefixed(f"{prefix}.{part}.", plan.tensors)
                    for kind, found in names.items():
                        found += _full_names(f"{prefix}.{part}", getattr(plan, kind))
        layers.append(replace(layer, mixer=mixer.local, ffn=None if ffn is None else ffn.local))
    local = replace(spec, layers=tuple(layers))
    found = {kind: tuple(entries) for kind, entries in names.items()}
    return ShardingPlan(spec, local, num_ranks, tensors, **found)


def local_spec(
    spec: ModelSpec, num_ranks: int, *, expert_split: ExpertSplit = "width"
) -> ModelSpec:
    """Return what one of ``num_ranks`` ranks computes; see ``plan_sharding``."""
    return plan_sharding(spec, num_ranks, expert_split=expert_split).local


def _stack_tensors(spec: ModelSpec) -> dict[str, Sharding]:
    """Return how the tensors are cut that belong to no layer."""
    cut = Cut(spec.vocab_size, spec.vocab_size)
    names = ("embed",) if spec.tie_embeddings else ("embed", "head")
    tensors = {key: value for name in names for key, value in rows(name, cut).items()}
    for layer in spec.layers:
        if isinstance(layer.mixer, AttentionSpec) and layer.mixer.relative is not None:
            heads = Cut(layer.mixer.num_heads, layer.mixer.num_heads)
            tensors["relative_bias.weight"] = Sharding(1, (heads,))
    return tensors


def _prefixes(spec: ModelSpec, index: int) -> list[str]:
    """Return the blocks built as layer ``index`` is: prediction modules are built as the last."""
    if index < spec.num_layers - 1:
        return [f"layers.{index}"]
    return [f"layers.{index}", *(f"mtp.{module}.block" for module in range(spec.num_mtp_layers))]


def _full_names(prefix: str, names: tuple[str, ...]) -> list[str]:
    return [f"{prefix}.{name}" if name else prefix for name in names]
