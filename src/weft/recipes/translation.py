"""Machine translation: what `weft translate` runs, and the course's Transformer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from weft.models.search import BeamConfig
from weft.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec, NormSpec, SinusoidalPositions
from weft.train.translation import TranslationConfig


@dataclass(frozen=True)
class TranslationJob(TranslationConfig):
    """Train a translation model on two files whose lines belong together.

    Attributes:
        train_source: Sentences to translate, one a line; plain text or .gz.
        train_target: Their translations.
        val_source: Sentences to measure on while training; none measures nothing.
        val_target: Their translations.
        test_source: Sentences to measure on at the end, or none.
        test_target: Their translations.
        vocab_size: Tokens of the vocabulary of both languages, learnt from the training files.
        eval_pairs: Sentences translated at each measurement while training.
        beam: The search at the end.
        tensorboard: Write metrics for TensorBoard too (extra: weft[tensorboard]).
    """

    train_source: Path = Path("train.de")
    train_target: Path = Path("train.en")
    val_source: Path | None = None
    val_target: Path | None = None
    test_source: Path | None = None
    test_target: Path | None = None
    vocab_size: int = 8000
    eval_pairs: int = 200
    beam: BeamConfig = field(default_factory=BeamConfig)
    tensorboard: bool = False


def translation() -> TranslationJob:
    """Return the recipe of a 6.8M-parameter encoder-decoder: half an hour with its evaluation."""
    return TranslationJob(minutes=27.0, eval_interval_s=180.0)


def course_transformer(vocab_size: int = 32_000) -> ModelSpec:
    """Return the mini Transformer of the course: 57,950,208 parameters with its vocabulary.

    Post-norm blocks of the original paper (arXiv:1706.03762) used as a decoder: eight heads and a
    relu of four times the width without biases, LayerNorms with biases, sinusoidal positions,
    embeddings scaled by the root of the width, a head of its own and no norm behind the last
    block.
    """
    dim = 512
    attention = AttentionSpec(num_heads=8, num_kv_heads=8, head_dim=dim // 8, rotary=None)
    mlp = MLPSpec(4 * dim, activation="relu", gated=False)
    return ModelSpec(
        family="transformer",
        vocab_size=vocab_size,
        dim=dim,
        layers=(LayerSpec(attention, mlp, norms="post"),) * 8,
        norm=NormSpec(eps=1e-5, kind="layer", bias=True),
        positions=SinusoidalPositions(),
        embedding_scale=dim**0.5,
        final_norm=False,
    )
