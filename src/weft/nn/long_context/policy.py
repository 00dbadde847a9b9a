"""Which policies there are, which models they fit, and what is kept under each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from weft.core.errors import ConfigError, UnsupportedError
from weft.spec import AttentionSpec, LayerSpec, MixerSpec, ModelSpec, StateSpec

# Positions are kept as float32 beside the scores; beyond this they are not exact.
MAX_POSITION = 2**24


@dataclass(frozen=True)
class SinkWindow:
    """See the first tokens and the last ones (StreamingLLM, Xiao et al. 2023, arXiv:2309.17453).

    Softmax puts what it has no use for on the first tokens; without them it fails. A sequence
    holds the blocks of the first tokens and a ring of the window and one chunk, at any length.

    Attributes:
        num_sinks: First tokens that every token sees. The paper uses 4.
        window: A token sees this many positions including its own, and the sinks.
        positions: "absolute": distances are those of the text, so a sink is ever further away;
            no longer than the model's context. "cache": as in the paper, distances are counted
            among what is kept, none longer than ``num_sinks + window``; any length.
    """

    num_sinks: int = 4
    window: int = 1024
    positions: Literal["absolute", "cache"] = "absolute"

    def __post_init__(self) -> None:
        if self.num_sinks < 0 or self.window < 1:
            raise ConfigError(
                f"num_sinks is {self.num_sinks} and window {self.window}",
                fix="num_sinks must be at least 0 and window at least 1",
            )

    @property
    def num_kept(self) -> int:
        """Most positions a token sees."""
        return self.num_sinks + self.window


@dataclass(frozen=True)
class HeavyHitter:
    """Keep what was attended to most (H2O, Zhang et al. 2023, arXiv:2306.14048).

    Every key-value head has ``budget`` places. A token that finds them full takes the place of
    the one with the smallest sum of softmax weights so far, the ``recent`` last tokens excepted.
    Distances are those of the text. Prompts, too, are taken in token by token, which is slow, but
    what is kept then does not depend on how a prompt is cut.

    Attributes:
        budget: Tokens each head keeps, the newest included.
        recent: Newest tokens before a token that it may not evict. The paper uses half the budget.
    """

    budget: int
    recent: int

    def __post_init__(self) -> None:
        if not 0 <= self.recent < self.budget:
            raise ConfigError(
                f"recent is {self.recent} of a budget of {self.budget}",
                fix="recent must be at least 0 and below budget",
            )


LongContext = SinkWindow | HeavyHitter


@dataclass(frozen=True)
class HeavyHitterSpec(AttentionSpec):
    """Attention whose keys and values are a state of constant size."""

    budget: int = 0

    @property
    def token_cache(self) -> Mapping[str, tuple[int, ...]]:
        """Nothing grows with the sequence."""
        return {}

    @property
    def states(self) -> Mapping[str, StateSpec]:
        """Keys and values of each head's places, their sums of weights and their positions."""
        heads = (self.num_kv_heads, self.budget)
        return {
            "keys": StateSpec((*heads, self.head_dim)),
            "values": StateSpec((*heads, self.head_dim)),
            "scores": StateSpec(heads, "float32"),
            "positions": StateSpec(heads, "float32"),
        }


def cache_spec(policy: LongContext | None, spec: ModelSpec) -> ModelSpec:
    """Return the model as its cache sees it: every layer with the policy's window or states."""
    if policy is None:
        return spec
    layers = tuple(replace(layer, mixer=_bounded(layer.mixer, policy)) for layer in spec.layers)
    return replace(spec, layers=layers)


def check_policy(policy: LongContext, spec: ModelSpec, max_context: int) -> None:
    """Refuse a model that a policy does not fit.

    Raises:
        UnsupportedError: with the layer and the reason.
        ConfigError: sequences longer than the model's positions or the policy's numbers reach.
    """
    for index, layer in enumerate(spec.layers):
        reason = _misfit(policy, layer)
        if reason is not None:
            raise UnsupportedError(
                f"{type(policy).__name__} does not fit layer {index}: {reason}",
                fix="set engine.long_context to none for this model",
            )
    if spec.positions is not None:
        raise UnsupportedError(
            f"{type(policy).__name__} needs rotary positions, and this model has a table of them",
            fix="set engine.long_context to none for this model",
        )
    endless = isinstance(policy, SinkWindow) and policy.positions == "cache"
    limit = MAX_POSITION if endless else min(spec.context_length, MAX_POSITION)
    if max_context > limit:
        raise ConfigError(
            f"max_context is {max_context}; with distances in the text it reaches {limit}",
            fix='lower it, or use SinkWindow(positions="cache")',
        )


def _misfit(policy: LongContext, layer: LayerSpec) -> str | None:
    mixer = layer.mixer
    if not isinstance(mixer, AttentionSpec):
        return f"{type(mixer).__name__} keeps no keys of single heads"
    if mixer.alibi or mixer.relative is not None:
        return "scores that fall with distance hide what is kept"
    if isinstance(policy, HeavyHitter):
        return _misfit_of_heavy_hitters(mixer)
    if mixer.window is not None and mixer.window > policy.window:
        return f"its window of {mixer.window} is wider than the policy's {policy.window}"
    if policy.positions == "cache":
        return _misfit_of_turning(mixer)
    return None


def _misfit_of_heavy_hitters(mixer: AttentionSpec) -> str | None:
    if mixer.window is not None:
        return "its window already forgets"
    if mixer.kv_source is not None:
        return "it reads the keys of another layer, which evicts by its own scores"
    return None


def _misfit_of_turning(mixer: AttentionSpec) -> str | None:
    rotary = mixer.rotary
    if rotary is None:
        return None
    if rotary.sections is not None:
        return "its positions have several axes"
    if rotary.scaling is not None and rotary.scaling.table_factor != 1.0:
        return "its rotation also scales, so it cannot be done in two steps"
    return None


def _bounded(mixer: MixerSpec, policy: LongContext) -> MixerSpec:
    if not isinstance(mixer, AttentionSpec):
        return mixer  # refused by ``check_policy``
    if isinstance(policy, SinkWindow):
        return replace(mixer, window=min(mixer.window or policy.window, policy.window))
    values = {field.name: getattr(mixer, field.name) for field in fields(AttentionSpec)}
    return HeavyHitterSpec(**values, budget=policy.budget)
