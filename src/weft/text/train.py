"""Train a byte-level BPE tokenizer in the Hugging Face format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from weft.core.errors import ConfigError, DataError
from weft.text import bpe, hf_format
from weft.text.byte_level import BYTE_TO_CHARACTER, count_words
from weft.text.chat import CHATML
from weft.text.tokenizer import Tokenizer

END_OF_TEXT, TURN_START, TURN_END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
DEFAULT_SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, PAD)


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = DEFAULT_SPECIAL_TOKENS,
    min_frequency: int = 2,
    max_words: int = 1_000_000,
) -> Tokenizer:
    """Train a tokenizer that can encode any text.

    Special tokens take the first ids, then come the 256 bytes, then what is learnt. Merges and ids
    equal those of the ``tokenizers`` library's trainer on the same texts. With the ChatML tokens
    among the special tokens, the tokenizer gets the ChatML template.

    Args:
        texts: documents; read once.
        vocab_size: size with special tokens; less is reached when the corpus has no more pairs.
        special_tokens: tokens that ordinary text never produces.
        min_frequency: a pair must occur this often to become a token.
        max_words: distinct words kept in memory; the rarest are dropped beyond it.

    Raises:
        ConfigError: ``vocab_size`` is too small, or a special token is empty or given twice.
        DataError: the texts are empty.
    """
    _check_special_tokens(special_tokens)
    word_counts = count_words(texts, max_words=max_words)
    if not word_counts:
        raise DataError(
            "the corpus has no text to train a tokenizer on",
            fix="check the source folder or loosen the filters",
        )
    model = bpe.train(
        word_counts,
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        alphabet=BYTE_TO_CHARACTER,
        min_frequency=min_frequency,
    )
    roles = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": PAD}
    return Tokenizer(
        hf_format.byte_level_json(model, special_tokens),
        config={role: token for role, token in roles.items() if token in special_tokens},
        chat_template=CHATML if {TURN_START, TURN_END} <= set(special_tokens) else None,
    )


def _check_special_tokens(special_tokens: Sequence[str]) -> None:
    for token in special_tokens:
        if not token or special_tokens.count(token) > 1:
            raise ConfigError(
                f"special_tokens has {token!r} "
                + (f"{special_tokens.count(token)} times" if token else "as a token"),
                fix="give each special token once, as non-empty text",
            )
