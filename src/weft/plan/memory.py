"""The memory ledger: one list of what takes room, read by planner, trainer and engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weft.core.console import format_bytes
from weft.core.errors import ResourceError
from weft.plan.parameters import count_parameters
from weft.spec import ModelSpec

Precision = Literal["float32", "bfloat16"]
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

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


def activation_bytes(spec: ModelSpec, precision: Precision) -> int:
    """Return the bytes per token that the backward pass keeps, without recomputation.

    Per layer: the inputs of both norms (float32) and one number of statistics each; their outputs;
    queries, keys and values before and keys and queries after rotation; the attention's output and
    log-sum-exp per head; gate, up and their product. In bfloat16 everything but the residual
    stream and the statistics takes two bytes. Counted for the C kernels; where torch's own
    formulas run in their place, they keep 1.3 to 1.6 times as much.
    """
    small = BYTES[precision]
    rotary_dims = {layer.mixer.rotary_dim for layer in spec.layers}
    # The final norm's input, statistics and output, positions, one pair of tables per width.
    total = (4 + small) * spec.dim + 4 + 8 + sum(4 * dim for dim in rotary_dims)
    for layer in spec.layers:
        mixer, ffn = layer.mixer, layer.ffn
        inner = ffn.hidden_dim * (2 if ffn.gated else 1)
        rotated = mixer.query_dim + mixer.kv_dim if mixer.rotary is not None else 0
        total += 4 * (2 * spec.dim + 2 + mixer.num_heads)
        total += small * 2 * spec.dim
        total += small * (2 * mixer.query_dim + 2 * mixer.kv_dim + rotated)
        total += small * (inner + ffn.hidden_dim)
    return total


def kv_bytes_per_token(spec: ModelSpec, *, dtype: str = "float32") -> int:
    """Return the cache bytes one token takes over all layers."""
    return spec.cache_values_per_token * BYTES[dtype]


def num_kv_blocks(spec: ModelSpec, *, memory_bytes: int, block_size: int, dtype: str) -> int:
    """Return how many whole blocks of the cache fit into ``memory_bytes``."""
    return memory_bytes // (kv_bytes_per_token(spec, dtype=dtype) * block_size)
