"""Bytes as printable characters, and the rule that cuts text into words before BPE.

A byte-level vocabulary has the 256 bytes as its alphabet, so every text can be encoded and nothing
is ever unknown. Token texts in files must be printable, so each byte has a printable stand-in
(Radford et al. 2019).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from weft.text.bpe import BPE

# Contractions; letters with at most one leading sign or space; single digits, so that a number is
# a sequence of digits; signs; line breaks; spaces, of which the last goes to the following word.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
# The same rule for ASCII text in the standard library's dialect, where it is four times faster.
_ASCII_PATTERN = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\na-zA-Z0-9]?[a-zA-Z]+"
    r"|[0-9]"
    r"| ?[^\sa-zA-Z0-9]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+",
    re.ASCII,
)
_UNICODE_SPLIT = Split(Regex(PATTERN), "isolated")


def _byte_characters() -> list[str]:
    """Return the stand-in of each byte: itself if printable Latin-1, else the next from U+0100."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(0xAE, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


BYTE_TO_CHARACTER = _byte_characters()
CHARACTER_TO_BYTE = {character: byte for byte, character in enumerate(BYTE_TO_CHARACTER)}


def to_characters(data: bytes) -> str:
    """Write bytes as their printable stand-ins.

    >>> to_characters(b"a \\n")
    'aĠĊ'
    """
    return "".join(map(BYTE_TO_CHARACTER.__getitem__, data))


def to_bytes(text: str) -> bytes:
    """Read stand-ins back as bytes; a text that is not made of them is taken as UTF-8."""
    try:
        return bytes(map(CHARACTER_TO_BYTE.__getitem__, text))
    except KeyError:
        return text.encode("utf-8")


def split_words(text: str) -> list[str]:
    """Cut a text into words by ``PATTERN``; their concatenation is the text."""
    if text.isascii():
        return _ASCII_PATTERN.findall(text)
    return [word for word, _ in _UNICODE_SPLIT.pre_tokenize_str(text)]


def count_words(texts: Iterable[str], *, max_words: int = 1_000_000) -> Counter[str]:
    """Count the words of texts, as stand-in characters, ready for ``weft.text.bpe.train``.

    Args:
        texts: documents; words never cross from one into the next.
        max_words: bound on distinct words. When the table grows to twice as many, the rarest are
            dropped, so memory stays bounded for any corpus.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split_words(text))
        if len(counts) > 2 * max_words:
            counts = Counter(dict(counts.most_common(max_words)))
    if len(counts) > max_words:
        counts = Counter(dict(counts.most_common(max_words)))
    return Counter({to_characters(word.encode("utf-8")): n for word, n in counts.items()})


def encode(model: BPE, text: str) -> list[int]:
    """Encode a text with a byte-level model: the readable reference of production encoding."""
    return [
        id for word in split_words(text) for id in model.encode(to_characters(word.encode("utf-8")))
    ]
