"""``SpeculationConfig``: how tokens are guessed and how guesses are judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from weft.core.errors import ConfigError
from weft.sched.budget import StepTime

Kind = Literal["ngram", "suffix", "draft", "mtp", "eagle", "medusa", "block"]
Acceptance = Literal["same_draw", "rejection"]

KINDS: tuple[Kind, ...] = ("ngram", "suffix", "draft", "mtp", "eagle", "medusa", "block")
# Kinds whose network is not part of the model that is served.
KINDS_WITH_A_NETWORK: tuple[Kind, ...] = ("draft", "eagle", "medusa", "block")
_KINDS_WITH_TREES: tuple[Kind, ...] = ("suffix", "draft", "eagle", "medusa")


def _check(name: str, value: float, low: float, high: float = float("inf")) -> None:
    if not low <= value <= high:
        limits = f"at least {low:g}" + ("" if high == float("inf") else f" and at most {high:g}")
        raise ConfigError(f"{name} is {value:g}", fix=f"{name} must be {limits}")


@dataclass(frozen=True)
class NgramConfig:
    """Prompt lookup.

    Attributes:
        max_lookup: Longest suffix that is looked for.
        min_lookup: Shortest one that counts.
    """

    max_lookup: int = 4
    min_lookup: int = 1

    def __post_init__(self) -> None:
        _check("ngram.min_lookup", self.min_lookup, 1)
        _check("ngram.max_lookup", self.max_lookup, self.min_lookup)


@dataclass(frozen=True)
class SuffixConfig:
    """Suffix decoding.

    Attributes:
        max_depth: Longest repeated suffix that is told apart.
        factor: Most guesses per token of the suffix that matched; long matches are trusted more.
        min_probability: Least estimated probability of a guess.
        max_past_tokens: Tokens of past answers that are remembered; 0 remembers none.
    """

    max_depth: int = 24
    factor: float = 2.0
    min_probability: float = 0.1
    max_past_tokens: int = 200_000

    def __post_init__(self) -> None:
        _check("suffix.max_depth", self.max_depth, 2)
        _check("suffix.factor", self.factor, 0.1)
        _check("suffix.min_probability", self.min_probability, 0.0, 1.0)
        _check("suffix.max_past_tokens", self.max_past_tokens, 0)


@dataclass(frozen=True)
class TreeShape:
    """The shape of trees of guesses.

    Attributes:
        branching: Most guesses that follow the same token; 1 is a chain.
        depth: Most guesses behind one another; none is ``max_draft``.
    """

    branching: int = 1
    depth: int | None = None

    def __post_init__(self) -> None:
        _check("tree.branching", self.branching, 1)
        if self.depth is not None:
            _check("tree.depth", self.depth, 1)


@dataclass(frozen=True)
class SwitchConfig:
    """When drafting stops because it does not pay.

    Both ways of stepping are timed, so either is tried now and then while the other one runs.

    Attributes:
        min_speedup: Draft while the measured speed-up is at least this.
        cycle_steps: Decoding steps between two tries of what does not run.
        probe_steps: Steps of one try.
        decay: Weight of the past in the moving estimates.
    """

    min_speedup: float = 1.0
    cycle_steps: int = 256
    probe_steps: int = 4
    decay: float = 0.9

    def __post_init__(self) -> None:
        _check("switch.min_speedup", self.min_speedup, 0.0)
        _check("switch.probe_steps", self.probe_steps, 2)
        _check("switch.cycle_steps", self.cycle_steps, 2 * self.probe_steps)
        _check("switch.decay", self.decay, 0.0, 0.9999)


@dataclass(frozen=True)
class SpeculationConfig:
    """Speculative decoding.

    Attributes:
        kind: Where guesses come from: "ngram" and "suffix" look at earlier text, "draft" is a
            smaller model of the same vocabulary, "mtp" the model's own prediction modules, "eagle"
            and "medusa" heads trained on its hidden states one that fills a block at once.
        max_draft: Most guesses per sequence and step.
        path: Folder of the network of kinds that need one ("draft", "eagle", "medusa");
            none where the engine is given the module.
        acceptance: "same_draw" accepts a guess that equals what is drawn without it, so tokens do
            not change. "rejection" accepts more guesses of networks that sample, and keeps the
            distribution only: a seed gives other tokens with other guesses.
        tree: Shape of the draft.
        switch: When drafting stops because it does not pay; none always drafts.
        step_time: What a step takes. With it, chains of networks are cut to the lengths that give
            most tokens per second, by the network's own confidence; none verifies all guesses.
        ngram: Settings of that kind.
        suffix: Settings of that kind.
    """

    kind: Kind = "ngram"
    max_draft: int = 5
    path: str | None = None
    acceptance: Acceptance = "same_draw"
    tree: TreeShape = field(default_factory=TreeShape)
    switch: SwitchConfig | None = field(default_factory=SwitchConfig)
    step_time: StepTime | None = None
    ngram: NgramConfig = field(default_factory=NgramConfig)
    suffix: SuffixConfig = field(default_factory=SuffixConfig)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind is {self.kind!r}", fix=f"use one of {', '.join(KINDS)}")
        if self.acceptance not in ("same_draw", "rejection"):
            raise ConfigError(
                f"acceptance is {self.acceptance!r}", fix="use 'same_draw' or 'rejection'"
            )
        _check("max_draft", self.max_draft, 1)
        if self.tree.branching > 1 and self.kind not in _KINDS_WITH_TREES:
            raise ConfigError(
                f"speculation of kind {self.kind!r} guesses chains, not trees",
                fix=f"set tree.branching to 1, or use one of {', '.join(_KINDS_WITH_TREES)}",
            )

    @property
    def depth(self) -> int:
        """Most guesses behind one another."""
        return min(self.max_draft, self.tree.depth or self.max_draft)

    def num_scratch_blocks(self, block_size: int) -> int:
        """Return the blocks a drafting network needs for guesses of one sequence, beside its own.

        They hold what runs beyond the sequence's last block: the token drawn last and the guesses
        that are followed (all of a block head's).
        """
        num_places = 1 + self.tree.branching * self.depth
        if self.kind == "block":
            num_places = self.max_draft
        return -(-num_places // block_size) + 1
