"""Machine translation: an encoder-decoder, or a decoder that reads the source first.

S source tokens, T target tokens, D model width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from weft.checkpoint.encoders import save_encoder_decoder
from weft.checkpoint.hf import save_model
from weft.core.errors import ConfigError
from weft.core.events import Events
from weft.data.batch import Batch
from weft.data.parallel import PairBatch, PairLoader, TokenPair
from weft.models.decoder import Decoder
from weft.models.encoder_decoder import EncoderDecoder
from weft.models.fold_scale import fold_scale
from weft.models.heads import cross_entropy_sum
from weft.models.translator import Translator
from weft.nn.context import StepContext
from weft.spec import (
    AttentionSpec,
    EncoderDecoderSpec,
    EncoderSpec,
    LayerSpec,
    MLPSpec,
    ModelShape,
    ModelSpec,
    RelativeBiasSpec,
)
from weft.text.tokenizer import Tokenizer
from weft.train.dropout import dropout
from weft.train.loop_config import LoopConfig, resolve_device
from weft.train.objective import LossSum, to_device
from weft.train.optim import OptimizerConfig
from weft.train.schedule import ScheduleConfig
from weft.train.smoothing import smoothing_sum
from weft.train.trainer import Hook, Trainer, TrainResult


@dataclass(frozen=True)
class TranslationShape:
    """Size of a translation model.

    Attributes:
        kind: encoder_decoder (T5 v1.1, trained with a factor on its scores), or decoder_only
            (Llama), which reads source, separator and target as one text.
        dim: Width of the residual stream.
        num_layers: Layers of the decoder, and of the encoder where there is one.
        num_heads: Attention heads.
        hidden_dim: Width of the feed-forward part.
    """

    kind: Literal["encoder_decoder", "decoder_only"] = "encoder_decoder"
    dim: int = 256
    num_layers: int = 3
    num_heads: int = 4
    hidden_dim: int = 512

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ConfigError(
                f"dim {self.dim} is not a multiple of num_heads {self.num_heads}",
                fix="choose a dim that the heads divide",
            )

    def build(self, tokenizer: Tokenizer) -> EncoderDecoderSpec | ModelSpec:
        """Return the specification for a tokenizer's vocabulary and end token."""
        if self.kind == "decoder_only":
            return self._decoder_only(tokenizer)
        relative = RelativeBiasSpec(num_buckets=32, max_distance=128)
        head_dim = self.dim // self.num_heads
        heads = AttentionSpec(
            self.num_heads, self.num_heads, head_dim, rotary=None, relative=relative
        )
        both_ways = dataclasses.replace(heads, causal=False)
        cross = dataclasses.replace(both_ways, relative=None)
        mlp = MLPSpec(self.hidden_dim, "gelu_tanh", gated=True)
        sizes = {"family": "t5", "vocab_size": tokenizer.vocab_size, "dim": self.dim}
        encoder = EncoderSpec(
            **sizes, layers=(LayerSpec(both_ways, mlp),) * self.num_layers, pad_id=tokenizer.pad_id
        )
        decoder = ModelSpec(
            **sizes,
            layers=(LayerSpec(heads, mlp, cross=cross),) * self.num_layers,
            tie_embeddings=True,
            context_length=encoder.context_length,
            eos_ids=tokenizer.eos_ids,
            pad_id=tokenizer.pad_id,
        )
        return EncoderDecoderSpec(encoder, decoder, start_id=tokenizer.eos_ids[0])

    def _decoder_only(self, tokenizer: Tokenizer) -> ModelSpec:
        shape = ModelShape(
            dim=self.dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            num_kv_heads=self.num_heads,
            ffn_dim=self.hidden_dim,
            context_length=512,
            tie_embeddings=True,
        )
        return shape.build(
            tokenizer.vocab_size,
            bos_id=tokenizer.bos_id,
            eos_ids=tokenizer.eos_ids,
            pad_id=tokenizer.pad_id,
        )


@dataclass(frozen=True)
class TranslationConfig(LoopConfig):
    """Train a translation model.

    Attributes:
        model: The size of the model.
        label_smoothing: Share of each target that is spread over the whole vocabulary.
        dropout: Probability with which numbers in the residual branches are dropped.
        sequence_length: Longest sentence in tokens; pairs with a longer one are left out.
        tokens_per_step: Source and target tokens between two updates, about.
        optimizer: The update rule.
        schedule: The learning rate over the run.
    """

    model: TranslationShape = field(default_factory=TranslationShape)
    label_smoothing: float = 0.1
    dropout: float = 0.1
    sequence_length: int = 128
    tokens_per_step: int = 4096
    sample_interval_s: float | None = None
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=1.5e-3, matrix_lr=5e-3)
    )
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(kind="linear", warmup_steps=100)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("label_smoothing", "dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be in [0, 1)")


class TranslationObjective:
    """Label-smoothed cross-entropy of every target token.

    The metric "nll" is the part without smoothing, which compares runs of other strengths.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, model: EncoderDecoder | Decoder, batch: PairBatch | Batch) -> LossSum:
        """Return the summed loss of a batch's targets."""
        hidden_TD = target_hidden(model, batch)
        labels_T = to_device(batch.labels_T, model.device)
        head = model.decoder if isinstance(model, EncoderDecoder) else model
        nll, count = cross_entropy_sum(head, hidden_TD, labels_T)
        loss = nll
        if self.label_smoothing:
            added = smoothing_sum(hidden_TD, model.head_weight, labels_T)
            loss = nll + self.label_smoothing * added
        return LossSum(loss, count, {"nll": nll.detach()})


def target_hidden(model: EncoderDecoder | Decoder, batch: PairBatch | Batch) -> Tensor:
    """Return what the head sees at each position of a batch's labels, [T, D]."""
    device = model.device
    tokens_T = to_device(batch.tokens_T, device)
    if isinstance(model, EncoderDecoder):
        assert isinstance(batch, PairBatch)
        source_S = to_device(batch.source_S, device)
        return model(source_S, batch.source_lengths, tokens_T, batch.target_lengths)
    return model(tokens_T, StepContext.packed(batch.lengths, device=device))


def run_translation(
    config: TranslationConfig,
    pairs: Sequence[TokenPair],
    *,
    folder: Path,
    tokenizer: Tokenizer,
    events: Events,
    hooks: Sequence[Hook] = (),
) -> TrainResult:
    """Train a translation model and write ``folder/model``; continues what is there.

    Args:
        config: Everything that decides the result.
        pairs: Tokens of the training sentences.
        folder: Run folder; training state goes to ``folder/checkpoints``.
        tokenizer: Saved beside the weights; of ``weft.models.translator.train_tokenizer``.
        events: Where metrics go.
        hooks: Called while training, with the model.

    Raises:
        Interrupted: Ctrl-C; the same call continues.
        DataError: no pair is short enough.
    """
    spec = config.model.build(tokenizer)
    device = resolve_device(config.device)
    build: Any = EncoderDecoder if isinstance(spec, EncoderDecoderSpec) else Decoder
    model = build(spec, seed=config.seed, device=device)
    collate = Translator(model, tokenizer).collate
    limit = config.sequence_length
    kept = [pair for pair in pairs if max(map(len, pair)) < limit]
    loader = PairLoader(
        kept, collate, tokens_per_batch=config.tokens_per_micro_batch, seed=config.seed
    )
    events.emit(
        "note",
        text=f"{len(kept)} of {len(pairs)} pairs have fewer than {limit} tokens a side; "
        f"{loader.batches_per_epoch} batches an epoch; {model.num_parameters} parameters",
    )
    trainer = Trainer(
        model,
        TranslationObjective(config.label_smoothing),
        loader,
        config,
        folder=folder / "checkpoints",
        title="translation",
        hooks=hooks,
    )
    with dropout(model, config.dropout):
        result = trainer.run(events)
    if isinstance(model, EncoderDecoder):
        save_encoder_decoder(fold_scale(model), folder / "model", tokenizer=tokenizer)
    else:
        save_model(model, folder / "model", tokenizer=tokenizer)
    return result
