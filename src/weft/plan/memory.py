"""The memory ledger: one list of what takes room, read by planner, trainer and engine."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from weft.core.console import format_bytes
from weft.core.errors import ConfigError, ResourceError, did_you_mean
from weft.plan.activations import ffn_activations, mixer_activations, rotary_width
from weft.plan.matrices import layer_matrices
from weft.plan.parameters import count_parameters
from weft.spec import AttentionSpec, MixerSpec, ModelSpec, StateSpec

Precision = Literal["float32", "bfloat16"]
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1}
# Quantised index keys have one float32 factor per this many numbers (DeepSeek-V3.2-Exp).
INDEX_BLOCK = 128

# Numbers kept per parameter besides weight and gradient.
OPTIMIZER_STATES = {"sgd": 1, "muon_adamw": 1, "adamw": 2}
# Rows of logits the chunked loss holds, with their gradient (weft.models.heads.CHUNK_SIZE).
LOGIT_ROWS = 512


@dataclass(frozen=True)
class Ledger:
    """Bytes by purpose.

    Attributes:
        weights: Parameters.
        gradients: One per parameter.
        optimizer: Moments or momentum.
        activations: What the backward pass needs of the forward pass.
        logits: The loss's chunk of scores.
        kv_cache: Keys and values of the engine.
    """

    weights: int
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    logits: int = 0
    kv_cache: int = 0

    @property
    def total(self) -> int:
        return (
            self.weights
            + self.gradients
            + self.optimizer
            + self.activations
            + self.logits
            + self.kv_cache
        )

    def require(self, available_bytes: int, *, fix: str) -> None:
        """Refuse what cannot fit.

        Raises:
            ResourceError: by how much it does not fit, what takes most, and ``fix``.
        """
        if self.total <= available_bytes:
            return
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        largest = max(parts, key=lambda name: parts[name])
        raise ResourceError(
            f"this needs about {format_bytes(self.total)}, {format_bytes(available_bytes)} are "
            f"there; {largest} alone takes {format_bytes(parts[largest])}",
            fix=fix,
        )


def training_memory(
    spec: ModelSpec,
    *,
    micro_batch_tokens: int,
    optimizer: str = "muon_adamw",
    precision: Precision = "float32",
) -> Ledger:
    """Predict the peak of a training step with float32 weights.

    Args:
        spec: The model.
        micro_batch_tokens: Tokens in one forward and backward pass.
        optimizer: A key of ``OPTIMIZER_STATES``.
        precision: Element type of matrix products; "bfloat16" means autocast.
    """
    counts = count_parameters(spec)
    states = OPTIMIZER_STATES[optimizer] * counts.total
    if optimizer == "muon_adamw":  # embeddings, head and norms are AdamW's: two moments
        states += counts.total - counts.matmul
    return Ledger(
        weights=4 * counts.total,
        gradients=4 * counts.total,
        optimizer=4 * states,
        activations=activation_bytes(spec, precision) * micro_batch_tokens,
        # A chunk's scores and their gradient, and the gradient of the projection.
        logits=4 * (2 * min(micro_batch_tokens, LOGIT_ROWS) + spec.dim) * spec.vocab_size,
    )


def activation_bytes(spec: ModelSpec, precision: Precision, *, adapter_rank: int = 0) -> int:
    """Return the bytes per token that the backward pass keeps, without recomputation.

    Per layer: the inputs of the norms (float32) and one number of statistics each; their outputs;
    what the mixer and the feed-forward part keep (``weft.plan.activations``). In bfloat16
    everything but the residual stream and the statistics takes two bytes. Counted for the C
    kernels; where torch's own formulas run in their place, they keep 1.3 to 1.6 times as much.

    Adapters of width ``adapter_rank`` beside every matrix (LoRA, arXiv:2106.09685) keep their inner
    numbers besides; freezing the weights saves nothing here, as adapters read the same inputs.
    """
    small = BYTES[precision]
    rotary_dims = {rotary_width(layer.mixer) for layer in spec.layers}
    # The final norm's input, statistics and output, positions, one pair of tables per width.
    total = (4 + small) * spec.dim + 4 + 8 + sum(4 * dim for dim in rotary_dims)
    for layer, count in Counter(spec.layers).items():
        kept = mixer_activations(layer.mixer, spec.dim)
        branches = 1 + (layer.ffn is not None)
        if layer.ffn is not None:
            kept += ffn_activations(layer.ffn, spec.dim)
        wide = kept.float32 + branches * (spec.dim + 1)
        total += count * (4 * wide + small * (kept.model + branches * spec.dim))
        if adapter_rank:
            total += count * small * adapter_rank * len(layer_matrices(layer, spec.dim))
    return total


def kv_bytes_per_token(
    spec: ModelSpec, *, dtype: str = "float32", index_dtype: str | None = None
) -> int:
    """Return the cache bytes one token takes over all layers.

    Args:
        spec: The model.
        dtype: Of keys, values and latents.
        index_dtype: Of an indexer's keys; none means ``dtype``. Keys of one byte have a float32
            factor per 128 numbers.
    """
    layers = Counter(layer.mixer for layer in spec.layers)
    return sum(
        count * mixer_kv_bytes(mixer, dtype=dtype, index_dtype=index_dtype)
        for mixer, count in layers.items()
    )


def quantized_kv_bytes_per_token(spec: ModelSpec, *, model_dtype: str = "bfloat16") -> int:
    """Return the cache bytes of one token where weft's engine keeps codes of one byte.

    Every head's key and value, every latent and every index key has a float32 factor; the rotated
    key behind a latent stays in the model's type (``EngineConfig.kv_dtype``).
    """
    total = 0
    for layer in spec.layers:
        for name, shape in layer.mixer.token_cache.items():
            exact = layer.mixer.rotated_cache.get(name, 0)
            total += math.prod(shape) + 4 * math.prod(shape[:-1])
            total += exact * (element_bytes(model_dtype) - 1)
    return total


def mixer_kv_bytes(
    mixer: MixerSpec,
    *,
    dtype: str = "float32",
    index_dtype: str | None = None,
    tensor_parallel: int = 1,
) -> int:
    """Return the cache bytes one token takes in one layer on one device.

    Heads are divided between ``tensor_parallel`` devices, each of which has at least one; a latent
    has none and is held by all.
    """
    total = 0
    for name, shape in mixer.token_cache.items():
        values = math.prod(shape)
        if isinstance(mixer, AttentionSpec):
            values = values // shape[0] * max(1, shape[0] // tensor_parallel)
        kind = (index_dtype or dtype) if name == "index_keys" else dtype
        total += values * element_bytes(kind)
        if name == "index_keys" and element_bytes(kind) == 1:
            total += 4 * -(-values // INDEX_BLOCK)
    return total


def state_bytes_per_sequence(
    spec: ModelSpec, *, dtype: str = "float32", state_dtype: str | None = None
) -> int:
    """Return the bytes of one sequence's recurrent states over all layers, whatever its length.

    Args:
        spec: The model.
        dtype: Of the model.
        state_dtype: Of states that the engine keeps in float32; none means float32.
    """
    states = [state for layer in spec.layers for state in layer.states.values()]
    return sum(_state_bytes(state, dtype, state_dtype) for state in states)


def mixer_state_bytes(
    mixer: MixerSpec,
    *,
    dtype: str = "float32",
    state_dtype: str | None = None,
    tensor_parallel: int = 1,
) -> int:
    """Return the bytes of one sequence's states in one layer on one device, heads divided."""
    states = mixer.states.values()
    return sum(_state_bytes(state, dtype, state_dtype) for state in states) // tensor_parallel


def crossover_tokens(state_bytes: int, bytes_per_token: int) -> int:
    """Return the length from which a cache that grows takes at least as much as a state.

    >>> crossover_tokens(1_097_728, 2_048)
    536
    """
    return -(-state_bytes // bytes_per_token)


def element_bytes(dtype: str) -> int:
    """Return the bytes of one number.

    Raises:
        ConfigError: an unknown element type.
    """
    if dtype not in BYTES:
        raise ConfigError(f"there is no element type {dtype!r}", fix=did_you_mean(dtype, BYTES))
    return BYTES[dtype]


def _state_bytes(state: StateSpec, dtype: str, state_dtype: str | None) -> int:
    kind = dtype if state.dtype == "model" else (state_dtype or "float32")
    return state.num_values * element_bytes(kind)


def num_kv_blocks(spec: ModelSpec, *, memory_bytes: int, block_size: int, dtype: str) -> int:
    """Return how many whole blocks of the cache fit into ``memory_bytes``.

    Raises:
        ConfigError: the model keeps nothing per token.
    """
    per_token = kv_bytes_per_token(spec, dtype=dtype)
    if per_token == 0:
        raise ConfigError(
            f"a {spec.family} model of recurrent layers keeps nothing per token",
            fix="size its states instead (state_bytes_per_sequence)",
        )
    return memory_bytes // (per_token * block_size)
