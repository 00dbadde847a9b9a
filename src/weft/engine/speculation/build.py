"""From a ``SpeculationConfig`` and a model to a ``Speculator``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

from torch import nn

from weft.checkpoint.hf import load_model
from weft.checkpoint.speculator import load_speculator
from weft.core.errors import ConfigError, UnsupportedError
from weft.engine.speculation.block import BlockProposer
from weft.engine.speculation.config import KINDS_WITH_A_NETWORK, SpeculationConfig
from weft.engine.speculation.medusa import MedusaProposer
from weft.engine.speculation.mtp import MTPProposer
from weft.engine.speculation.network import NetworkProposer
from weft.engine.speculation.networks import DecoderNetwork, HeadNetwork, Network
from weft.engine.speculation.ngram import NgramProposer
from weft.engine.speculation.proposer import Proposer
from weft.engine.speculation.speculator import Speculator
from weft.engine.speculation.suffix import SuffixProposer
from weft.models.block_draft import BlockHead
from weft.models.decoder import Decoder
from weft.models.eagle import LAYER_INDEX, EagleHead
from weft.models.medusa import MedusaHeads
from weft.models.mtp import MTPModule
from weft.nn.kv_cache import bytes_per_block
from weft.sched.loop import Clock
from weft.spec import LayerSpec

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class BlockSpace:
    """The blocks of the target that a drafting network's cache is laid over.

    Attributes:
        num_blocks: How many.
        block_size: Positions per block.
        max_num_sequences: Most sequences of one step.
    """

    num_blocks: int
    block_size: int
    max_num_sequences: int


def build_speculator(
    config: SpeculationConfig,
    model: Decoder,
    space: BlockSpace,
    clock: Clock,
    *,
    drafter: nn.Module | None = None,
) -> Speculator:
    """Return what the runner asks for guesses.

    Args:
        config: What to draft with.
        model: The target.
        space: Its blocks.
        clock: The engine's.
        drafter: The drafting network of kinds that need one; see ``load_drafter``.

    Raises:
        ConfigError: the kind needs a network of another type.
        UnsupportedError: the network or the model cannot draft this way.
    """
    proposer = _proposer(config, model, space, drafter)
    return Speculator(
        proposer,
        acceptance=config.acceptance,
        switch=config.switch,
        clock=clock,
        step_time=config.step_time,
    )


def load_drafter(config: SpeculationConfig | None, model: Decoder) -> nn.Module | None:
    """Return the network of ``config.path``; none for kinds without one.

    Raises:
        ConfigError: the kind needs a network and no folder is named.
        CheckpointError: the folder does not hold one for this model.
    """
    if config is None or config.kind not in KINDS_WITH_A_NETWORK:
        return None
    if config.path is None:
        raise ConfigError(
            f"speculation of kind {config.kind!r} has no network to draft with",
            fix="set speculation.path to its folder, or pass drafter=",
        )
    if config.kind == "draft":
        return load_model(Path(config.path), dtype=model.dtype, device=model.device)
    return load_speculator(Path(config.path), model.spec, device=model.device).to(model.dtype)


def draft_block_bytes(
    config: SpeculationConfig | None, model: Decoder, drafter: nn.Module | None, block_size: int
) -> int:
    """Return the bytes that drafting keeps per block, beside the target's."""
    if isinstance(drafter, Decoder):
        return bytes_per_block(drafter.spec, block_size, drafter.dtype)
    layers: tuple[LayerSpec, ...] = ()
    if isinstance(drafter, EagleHead):
        layers = (drafter.layer,)
    elif isinstance(drafter, BlockHead):
        layers = drafter.spec.layers
    elif config is not None and config.kind == "mtp":
        layers = (model.spec.layers[-1],) * min(len(model.mtp), config.depth)
    if not layers:
        return 0
    spec = replace(model.spec, layers=layers, num_mtp_layers=0)
    return bytes_per_block(spec, block_size, model.dtype)


def draft_scratch_bytes(
    config: SpeculationConfig | None, model: Decoder, drafter: nn.Module | None, block_size: int
) -> int:
    """Return the bytes of the blocks for guesses that drafting keeps per sequence."""
    if config is None or not (drafts_ahead(config, model) or isinstance(drafter, BlockHead)):
        return 0
    block_bytes = draft_block_bytes(config, model, drafter, block_size)
    return config.num_scratch_blocks(block_size) * block_bytes


def drafts_ahead(config: SpeculationConfig, model: Decoder) -> bool:
    """Return whether a network with a cache of its own guesses one token after another."""
    if config.kind == "mtp":
        # One module runs ahead on its own answers, as an EAGLE head does.
        return len(model.mtp) == 1 and config.depth > 1
    return config.kind in ("draft", "eagle")


def _proposer(
    config: SpeculationConfig, model: Decoder, space: BlockSpace, drafter: nn.Module | None
) -> Proposer:
    if config.kind == "ngram":
        return NgramProposer(config.ngram, config.max_draft)
    if config.kind == "suffix":
        return SuffixProposer(config.suffix, config.max_draft, config.tree)
    if config.kind == "mtp":
        return _mtp(config, model, space)
    if config.kind == "medusa":
        heads = _expect(drafter, MedusaHeads, config)
        return MedusaProposer(heads, model, max_draft=config.max_draft, tree=config.tree)
    if config.kind == "eagle":
        head = _expect(drafter, EagleHead, config)
        return _networked(config, HeadNetwork(head, head.layer, LAYER_INDEX, model), space)
    if config.kind == "block":
        return BlockProposer(
            _expect(drafter, BlockHead, config),
            model,
            num_blocks=space.num_blocks,
            block_size=space.block_size,
            max_num_sequences=space.max_num_sequences,
            max_draft=config.max_draft,
            num_scratch_blocks=config.num_scratch_blocks(space.block_size),
            acceptance=config.acceptance,
        )
    decoder = _expect(drafter, Decoder, config)
    return _networked(config, DecoderNetwork(decoder, model.spec), space)


def _mtp(config: SpeculationConfig, model: Decoder, space: BlockSpace) -> Proposer:
    if not len(model.mtp):
        raise UnsupportedError(
            "this model has no prediction modules (they may have been left out when it was loaded)",
            fix="load it with mtp=True, or draft with another kind of speculation",
        )
    if drafts_ahead(config, model):
        layer, index = model.spec.layers[-1], model.spec.num_layers
        module = cast(MTPModule, model.mtp[0])
        return _networked(config, HeadNetwork(module, layer, index, model), space)
    return MTPProposer(
        model,
        num_blocks=space.num_blocks,
        block_size=space.block_size,
        max_draft=config.depth,
        acceptance=config.acceptance,
    )


def _networked(config: SpeculationConfig, network: Network, space: BlockSpace) -> NetworkProposer:
    return NetworkProposer(
        network,
        num_blocks=space.num_blocks,
        block_size=space.block_size,
        max_num_sequences=space.max_num_sequences,
        max_draft=config.max_draft,
        num_scratch_blocks=config.num_scratch_blocks(space.block_size),
        tree=config.tree,
        acceptance=config.acceptance,
    )


def _expect(drafter: nn.Module | None, kind: type[ModuleT], config: SpeculationConfig) -> ModuleT:
    if not isinstance(drafter, kind):
        raise ConfigError(
            f"speculation of kind {config.kind!r} drafts with a {kind.__name__}, "
            f"not a {type(drafter).__name__}",
            fix="pass the right module, or change speculation.kind",
        )
    return drafter
