"""Key maps of the families: which tensors a checkpoint of a specification has.

Qwen3 and others whose names are Llama's, but for parts that the specification switches on, use
Llama's map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from weft.core.errors import UnsupportedError, did_you_mean
from weft.models.families import (
    deepseek,
    experts,
    fused,
    gemma,
    gpt2,
    hybrid,
    llama,
    olmo,
    recurrent,
)
from weft.models.hf_keys import Rule
from weft.spec import ModelSpec

# More than any published model has.
MAX_MTP_LAYERS = 8


class KeyMap(NamedTuple):
    """The tensors of a family's checkpoints.

    Attributes:
        rules: Our tensors and theirs, from the specification.
        ignored: Patterns (``fnmatch``) of names that files may have and nobody needs.
        mtp: Layers behind the last one are multi-token prediction modules, which a model may lack.
        aliases: Patterns (``re.sub``) and replacements that turn names some files use into those of
            the rules.
    """

    rules: Callable[[ModelSpec], tuple[Rule, ...]]
    ignored: tuple[str, ...] = ()
    mtp: bool = False
    aliases: tuple[tuple[str, str], ...] = ()


KEY_MAPS: dict[str, KeyMap] = {
    "deepseek_v2": KeyMap(deepseek.rules, ("*rotary_emb.inv_freq",)),
    **dict.fromkeys(
        ("deepseek_v3", "deepseek_v32", "kimi_k2", "glm4_moe_lite", "glm_moe_dsa"),
        KeyMap(deepseek.rules, ("*rotary_emb.inv_freq",), mtp=True),
    ),
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "smollm3"),
        KeyMap(llama.rules, ("*rotary_emb.inv_freq",)),
    ),
    **dict.fromkeys(("gemma2", "gemma3_text"), KeyMap(gemma.rules)),
    "gemma3": KeyMap(gemma.text_part_rules, ("vision_tower.*", "multi_modal_projector.*")),
    "glm": KeyMap(fused.glm_rules),
    "glm4": KeyMap(fused.glm4_rules),
    "glm4_moe": KeyMap(experts.glm4_moe, mtp=True),
    "gpt_oss": KeyMap(experts.gpt_oss),
    **dict.fromkeys(
        ("mixtral", "minimax_m2"), KeyMap(experts.mixtral, ("*rotary_emb.inv_freq", "model.mtp.*"))
    ),
    **dict.fromkeys(("qwen2_moe", "qwen3_moe"), KeyMap(experts.qwen, ("*rotary_emb.inv_freq",))),
    "gpt2": KeyMap(gpt2.rules, ("*.attn.bias", "*.attn.masked_bias")),
    **dict.fromkeys(("olmo2", "olmo3"), KeyMap(olmo.rules)),
    "phi3": KeyMap(fused.phi3_rules),
    "qwen3_next": KeyMap(hybrid.qwen3_next, ("mtp.*",)),
    **dict.fromkeys(
        ("qwen3_5_text", "qwen3_5_moe_text"),
        KeyMap(
            hybrid.qwen3_5,
            ("mtp.*", "model.visual.*"),
            # The text part of a model that also sees.
            aliases=((r"^model\.language_model\.", "model."),),
        ),
    ),
    "kimi_linear": KeyMap(
        hybrid.kimi_linear,
        # transformers writes dense layers under the name of the sparse ones.
        aliases=((r"\.block_sparse_moe\.(gate|up|down)_proj\.", r".mlp.\1_proj."),),
    ),
    "lfm2": KeyMap(hybrid.lfm2),
    **dict.fromkeys(("mamba", "falcon_mamba"), KeyMap(recurrent.mamba)),
    "mamba2": KeyMap(recurrent.mamba2),
    "rwkv": KeyMap(recurrent.rwkv),
}


def key_map(spec: ModelSpec) -> KeyMap:
    """Return the key map of a specification's family."""
    if spec.family not in KEY_MAPS:
        raise UnsupportedError(
            f"there is no key map for family {spec.family!r}",
            fix=did_you_mean(spec.family, KEY_MAPS),
        )
    found = KEY_MAPS[spec.family]
    if spec.num_mtp_layers and not found.mtp:
        raise UnsupportedError(
            f"checkpoints of family {spec.family!r} have no place for multi-token prediction",
            fix="set num_mtp_layers=0",
        )
    return found._replace(ignored=found.ignored + _extra_layers(spec)) if found.mtp else found


def _extra_layers(spec: ModelSpec) -> tuple[str, ...]:
    """Return patterns of the names of layers that the specification does not count."""
    last = spec.num_layers + MAX_MTP_LAYERS
    return tuple(f"model.layers.{index}.*" for index in range(spec.num_layers, last))


def rules(spec: ModelSpec) -> tuple[Rule, ...]:
    """Return the rules of a specification's family."""
    return key_map(spec).rules(spec)
