"""From a Hugging Face folder to what an engine is built from, on one process or on several."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from weft.engine.config import EngineConfig
from weft.engine.parallel.ranks import Ranks
from weft.engine.parallel.start import load_ranks, with_tensor_parallel
from weft.engine.weights import LoadFormat, WeightSource, open_weights
from weft.models.decoder import Decoder
from weft.text.tokenizer import Tokenizer


class Opened(NamedTuple):
    """What an engine is built from.

    Attributes:
        model: The module, or this rank's part of it.
        tokenizer: The folder's.
        config: What was asked for, with the sizes that all ranks have agreed on.
        ranks: The other processes that have a part of the model, if there are any.
        source: Where the weights can be loaded from again; none for ranks.
    """

    model: Decoder
    tokenizer: Tokenizer
    config: EngineConfig
    ranks: Ranks | None
    source: WeightSource | None


def open_folder(
    path: str | Path,
    *,
    config: EngineConfig | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    load_format: LoadFormat = "auto",
    tensor_parallel: int | None = None,
) -> Opened:
    """Load config.json, safetensors and tokenizer.json.

    Args:
        path: The folder.
        config: Sizes and limits.
        dtype: Element type of the weights; none keeps the checkpoint's.
        device: Where the weights go.
        load_format: "dummy" draws random weights and needs no weight files, to measure speed and
            memory.
        tensor_parallel: Processes that share every layer; see ``EngineConfig.parallel``.

    Raises:
        CheckpointError, InputFileError, UnsupportedError: the folder cannot be used.
        ConfigError: the model does not divide among the ranks.
    """
    path = Path(path)
    tokenizer = Tokenizer.load(path)
    config = with_tensor_parallel(config, tensor_parallel)
    if config.parallel.num_ranks > 1:
        loaded = load_ranks(path, config, load_format=load_format, dtype=dtype, device=device)
        return Opened(loaded.model, tokenizer, loaded.config, loaded.ranks, None)
    speculation = config.speculation
    model, source = open_weights(
        path,
        load_format=load_format,
        dtype=dtype,
        device=device,
        mtp=speculation is not None and speculation.kind == "mtp",
    )
    return Opened(model, tokenizer, config, None, source)
