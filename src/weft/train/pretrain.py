"""Pre-training: a model from nothing, on token shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft.checkpoint.hf import save_model
from weft.core.events import Events
from weft.data.loader import Loader, Packing
from weft.data.mix import Mixture
from weft.data.shards import TokenShards
from weft.models.decoder import Decoder
from weft.spec import HardwareSpec, ModelShape
from weft.text.tokenizer import Tokenizer
from weft.train.evaluate import heldout_metrics
from weft.train.loop_config import LoopConfig, resolve_device
from weft.train.objective import NextTokenObjective
from weft.train.trainer import Hook, Trainer, TrainResult

OnSample = Callable[[Decoder], str]


@dataclass(frozen=True)
class PretrainConfig(LoopConfig):
    """Train a model from random weights.

    Attributes:
        model: The shape of the model.
        packing: concat fills every sequence and cuts documents; best_fit keeps them whole.
        eval_tokens: Held-out tokens per evaluation while training.
        final_eval_tokens: Held-out tokens of the evaluation at the end.
    """

    model: ModelShape = field(default_factory=ModelShape)
    packing: Packing = "concat"
    eval_tokens: int = 16_384
    final_eval_tokens: int = 65_536


def run_pretrain(
    config: PretrainConfig,
    *,
    folder: Path,
    tokenizer: Tokenizer,
    train: TokenShards | Mixture,
    heldout: TokenShards | None,
    events: Events,
    on_sample: OnSample | None = None,
    hardware: HardwareSpec | None = None,
) -> TrainResult:
    """Train to the end of the budget and write ``folder/model``; continues what is there.

    Args:
        config: Everything that decides the result.
        folder: Run folder; training state goes to ``folder/checkpoints``.
        tokenizer: The one the shards were made with; saved beside the weights.
        train: Shards to learn from, or several with weights.
        heldout: Shards to measure on, or none.
        events: Where metrics go.
        on_sample: Returns a text the model wrote, called every ``sample_interval_s``.
        hardware: Measured peaks of this machine, for MFU.

    Raises:
        Interrupted: Ctrl-C; the same call continues.
        DataError: shards and tokenizer do not belong together.
    """
    sources = train.sources if isinstance(train, Mixture) else (train,)
    for shards in (*sources, heldout):
        if shards is not None:
            shards.check_tokenizer(tokenizer.fingerprint)
    spec = config.model.build(
        tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        eos_ids=tokenizer.eos_ids,
        pad_id=tokenizer.pad_id,
    )
    model = Decoder(spec, seed=config.seed, device=resolve_device(config.device))
    loader = _loader(config, train, config.tokens_per_micro_batch)
    trainer = Trainer(
        model,
        NextTokenObjective(),
        loader,
        config,
        folder=folder / "checkpoints",
        title="pretrain",
        hardware=hardware,
        bytes_per_token=bytes_per_token(train),
        hooks=_hooks(config, heldout, on_sample),
    )
    result = trainer.run(events)
    if heldout is not None:
        metrics = evaluate_heldout(
            model, config, heldout, config.final_eval_tokens, result.precision
        )
        events.emit("eval", step=result.steps, final=True, **metrics)
        result = dataclasses.replace(result, metrics=metrics)
    save_model(model, folder / "model", tokenizer=tokenizer)
    return result


def evaluate_heldout(
    model: Decoder,
    config: PretrainConfig,
    heldout: TokenShards,
    num_tokens: int,
    precision: str = "fp32",
) -> dict[str, float]:
    """Return the loss and bits per byte of a fixed sample of held-out sequences."""
    length = min(config.sequence_length, heldout.num_tokens)
    loader = Loader(heldout, sequence_length=length, tokens_per_batch=length, seed=0)
    num_batches = max(1, min(num_tokens // length, loader.batches_per_epoch))
    batches = (loader.batch(index) for index in range(num_batches))
    return heldout_metrics(
        model,
        batches,
        bytes_per_token=heldout.num_bytes / heldout.num_tokens,
        precision=precision,
    )


def bytes_per_token(shards: TokenShards | Mixture) -> float:
    """Return the bytes of text behind a token, on average over what is drawn."""
    if isinstance(shards, TokenShards):
        return shards.num_bytes / shards.num_tokens
    pairs = zip(shards.sources, shards.weights, strict=True)
    return sum(weight * source.num_bytes / source.num_tokens for source, weight in pairs)


def _loader(config: PretrainConfig, shards: TokenShards | Mixture, tokens_per_batch: int) -> Loader:
    return Loader(
        shards,
        sequence_length=config.sequence_length,
        tokens_per_batch=tokens_per_batch,
        seed=config.seed,
        packing=config.packing,
    )


def _hooks(
    config: PretrainConfig, heldout: TokenShards | None, on_sample: OnSample | None
) -> list[Hook]:
    hooks = []
    if on_sample is not None and config.sample_interval_s is not None:
        hooks.append(sample_hook(on_sample, config.sample_interval_s))
    if heldout is not None and config.eval_interval_s is not None:

        def evaluate(model: Decoder) -> Mapping[str, Any]:
            return evaluate_heldout(model, config, heldout, config.eval_tokens)

        hooks.append(Hook("eval", config.eval_interval_s, evaluate))
    return hooks


def sample_hook(on_sample: OnSample, interval_s: float) -> Hook:
    """Return the hook that shows what the model writes."""
    return Hook("sample", interval_s, lambda model: {"text": on_sample(model)})
