"""The bytes of each token, for every kind of decoder that generating models use.

Decoding is then joining bytes, in a stream as well as at once. Kinds: byte-level BPE (GPT-2, Llama
3, Qwen), SentencePiece style with ``▁`` and ``<0x0A>`` (Llama 2, Mistral, Gemma), WordPiece, and
none at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from weft.core.errors import UnsupportedError
from weft.text.byte_level import to_bytes

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# What the library's WordPiece decoder tidies, in its order.
_TIDY = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


@dataclass
class TokenDecoder:
    """How token texts become bytes.

    Attributes:
        rewrites: changes to a token's text, applied in order.
        byte_level: the text is made of stand-ins for bytes.
        byte_fallback: tokens such as ``<0x0A>`` are bytes.
        strips_first_space: one space at the very start of a text is not part of it.
    """

    rewrites: list[Callable[[str], str]]
    byte_level: bool = False
    byte_fallback: bool = False
    strips_first_space: bool = False

    @classmethod
    def from_json(cls, decoder: Mapping[str, Any] | None) -> TokenDecoder:
        """Read the ``decoder`` of a ``tokenizer.json``.

        Raises:
            UnsupportedError: a decoder whose tokens have no bytes of their own.
        """
        self = cls(rewrites=[])
        if decoder is None:  # the library joins tokens with spaces
            self.rewrites.append(lambda text: " " + text)
            self.strips_first_space = True
        else:
            self._add(decoder)
        return self

    def to_bytes(self, token: str) -> bytes:
        """Return the bytes that a token adds to a text that has begun."""
        for rewrite in self.rewrites:
            token = rewrite(token)
        if self.byte_level:
            return to_bytes(token)
        if self.byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)])
        return token.encode("utf-8")

    def _add(self, part: Mapping[str, Any]) -> None:
        kind = part["type"]
        if kind == "Sequence":
            for inner in part["decoders"]:
                self._add(inner)
        elif kind == "ByteLevel":
            self.byte_level = True
        elif kind == "ByteFallback":
            self.byte_fallback = True
        elif kind == "Metaspace":
            space = part.get("replacement", "▁")
            self.rewrites.append(lambda text: text.replace(space, " "))
            self.strips_first_space |= part.get("prepend_scheme", "always") != "never"
        elif kind == "Replace" and "String" in part["pattern"]:
            old, new = part["pattern"]["String"], part["content"]
            self.rewrites.append(lambda text: text.replace(old, new))
        elif kind == "Strip" and part["content"] == " " and part["stop"] == 0:
            self.strips_first_space |= part["start"] > 0
        elif kind == "WordPiece":
            self._add_wordpiece(part.get("prefix", "##"), part.get("cleanup", True))
        elif kind != "Fuse":
            raise UnsupportedError(
                f"the tokenizer's decoder {kind!r} cannot be used for generation",
                fix="use one with a ByteLevel, Metaspace, ByteFallback or WordPiece decoder",
            )

    def _add_wordpiece(self, prefix: str, cleanup: bool) -> None:
        def join(text: str) -> str:
            text = text.removeprefix(prefix) if text.startswith(prefix) else " " + text
            for old, new in _TIDY if cleanup else ():
                text = text.replace(old, new)
            return text

        self.rewrites.append(join)
        self.strips_first_space = True
