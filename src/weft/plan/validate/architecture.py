"""Read the short architecture strings of published measurements into ``ModelSpec``.

``L61(3 dense) h7168 MLA a128 qlr1536 kvlr512 rope64 nope128 v128 f18432 E256 k8 shared1 mf2048
v129280 mtp1``: layers, width, heads, feed-forward and expert widths, vocabulary. Words: ``swiglu``
or ``gelu``, ``tied``, ``bias``, ``qkvbias``, ``qknorm``, ``learnedN`` positions, ``SWAn alt``
(every second layer sees n tokens), ``MLA``; what stands in brackets after a space is a remark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from weft.core.errors import DataError
from weft.spec import (
    AttentionSpec,
    LayerSpec,
    LearnedPositions,
    MLASpec,
    MLPSpec,
    ModelSpec,
    MoESpec,
    NormSpec,
    RotarySpec,
    RouterSpec,
)

_NUMBER = re.compile(r"^(?P<key>[A-Za-z]+)(?P<value>\d+)(?P<kilo>k?)(?:\((?P<dense>\d+) dense\))?$")
_WORDS = frozenset(
    {"swiglu", "gelu", "tied", "bias", "qkvbias", "qknorm", "alt", "MLA", "SWA", "parallel-block",
     "routerbias"}
)  # fmt: skip
_KEYS = frozenset(
    {"L", "h", "a", "kv", "d", "f", "v", "E", "k", "mf", "shared", "mtp", "qlr", "kvlr", "rope",
     "nope", "SWA", "learned"}
)  # fmt: skip
# "v250k" of the BLOOM prequel is the padded vocabulary of the published model.
_KILO_VOCABULARY = {250: 250_880}


@dataclass
class _Text:
    """The parts of a string: numbers by key, in order, and words."""

    numbers: dict[str, list[int]] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)
    num_dense: int = 0

    def get(self, key: str, default: int = 0) -> int:
        values = self.numbers.get(key)
        return default if values is None else values[-1]


@lru_cache(maxsize=512)
def parse_architecture(text: str) -> ModelSpec:
    """Return the model an architecture string describes.

    Raises:
        DataError: a word it does not know, or a size that is missing.
    """
    parts = _split(text)
    for key in ("L", "h", "a", "v"):
        if key not in parts.numbers:
            raise DataError(
                f"architecture {text!r} has no {key!r}", fix="such as L32 h4096 a32 v32000"
            )
    num_layers, gated = parts.get("L"), "gelu" not in parts.words
    mixers = [_mixer(parts, index, gated) for index in range(2)]
    dense = MLPSpec(parts.get("f", 4 * parts.get("h")), gated=gated, bias="bias" in parts.words)
    moe = _mixture(parts, gated)
    layers = tuple(
        LayerSpec(mixers[index % 2], dense if moe is None or index < parts.num_dense else moe)
        for index in range(num_layers)
    )
    return ModelSpec(
        family="gpt2" if not gated else "llama",
        vocab_size=parts.get("v"),
        dim=parts.get("h"),
        layers=layers,
        norm=NormSpec(kind="rms" if gated else "layer", bias=not gated),
        tie_embeddings="tied" in parts.words,
        positions=LearnedPositions(parts.get("learned")) if parts.get("learned") else None,
        num_mtp_layers=parts.get("mtp"),
    )


def _split(text: str) -> _Text:
    parts = _Text()
    plain = re.sub(r"\s\([^)]*\)", " ", re.sub(r"\((\d+) dense\)", r"(\1_dense)", text))
    for raw in plain.split():
        word = raw.replace("_dense", " dense")
        match = _NUMBER.match(word)
        if word in _WORDS:
            parts.words.add(word)
        elif match is not None and match["key"] in _KEYS:
            value = int(match["value"])
            if match["kilo"]:
                value = _KILO_VOCABULARY.get(value, 1000 * value)
            parts.numbers.setdefault(match["key"], []).append(value)
            parts.num_dense = int(match["dense"] or parts.num_dense)
        else:
            raise DataError(f"architecture {text!r}: {word!r} is not understood")
    return parts


def _mixer(parts: _Text, index: int, gated: bool) -> AttentionSpec | MLASpec:
    heads = parts.get("a")
    if "MLA" in parts.words:
        return MLASpec(
            num_heads=heads,
            kv_latent_dim=parts.get("kvlr"),
            nope_head_dim=parts.get("nope"),
            rope_head_dim=parts.get("rope"),
            value_head_dim=parts.numbers["v"][0],
            query_latent_dim=parts.get("qlr") or None,
        )
    window = parts.get("SWA") or None
    bias = "bias" in parts.words
    return AttentionSpec(
        num_heads=heads,
        num_kv_heads=parts.get("kv", heads),
        head_dim=parts.get("d", parts.get("h") // heads),
        rotary=RotarySpec() if gated else None,
        qkv_bias=bias or "qkvbias" in parts.words,
        out_bias=bias,
        qk_norm="head" if "qknorm" in parts.words else "none",
        window=window if window is None or index == 0 or "alt" not in parts.words else None,
    )


def _mixture(parts: _Text, gated: bool) -> MoESpec | None:
    if not parts.get("E"):
        return None
    width = parts.get("mf", parts.get("f"))
    num_shared = parts.get("shared")
    return MoESpec(
        num_experts=parts.get("E"),
        top_k=parts.get("k", 1),
        expert=MLPSpec(width, gated=gated),
        router=RouterSpec(correction_bias="routerbias" in parts.words),
        shared=MLPSpec(num_shared * width, gated=gated) if num_shared else None,
    )
