from __future__ import annotations

import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers

from weft.core.errors import UnsupportedError
from weft.text.detokenize import StreamDetokenizer
from weft.text.token_bytes import TokenDecoder
from weft.text.tokenizer import Tokenizer

PIECES = ["▁", "▁a", "b", "▁▁", "é", "中", "<", "x>"]


def _sentencepiece_style(decoder: decoders.Decoder) -> Tokenizer:
    """A vocabulary in the manner of Llama 2: ``▁`` for space, bytes for what is missing."""
    tokens = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    vocab = {token: id for id, token in enumerate(tokens)}
    library = tokenizers.Tokenizer(models.BPE(vocab, [], byte_fallback=True, unk_token="<unk>"))
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    library.decoder = decoder
    library.add_special_tokens(["<s>"])
    return Tokenizer(library.to_str())


LLAMA2 = decoders.Sequence(
    [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
)

SENTENCEPIECE_STYLES = [
    _sentencepiece_style(decoder)
    for decoder in (LLAMA2, decoders.Metaspace(prepend_scheme="never"))
]


@given(st.text("abé中🦊 \n"))
def test_sentencepiece_style_round_trip(text):
    tokenizer = SENTENCEPIECE_STYLES[0]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    stream = StreamDetokenizer(tokenizer)
    assert "".join(map(stream.push, ids)) + stream.flush() == text


@given(st.lists(st.integers(258, 265)))
def test_metaspace_decoding_equals_the_library(ids):
    for tokenizer in SENTENCEPIECE_STYLES:
        assert tokenizer.decode(ids) == tokenizer.backend.decode(ids)


@given(st.lists(st.sampled_from(["un", "n't", "##able", ".", "do", "!", "[SEP]"])))
def test_wordpiece_decoding_equals_the_library(words):
    tokens = ["[UNK]", "[SEP]", "un", "n't", "##able", ".", "do", "!"]
    library = tokenizers.Tokenizer(
        models.WordPiece({token: id for id, token in enumerate(tokens)}, unk_token="[UNK]")
    )
    library.decoder = decoders.WordPiece()
    library.add_special_tokens(["[SEP]"])
    tokenizer = Tokenizer(library.to_str())
    # A text never begins with a continuing piece.
    ids = [tokens.index("do"), *(tokens.index(word) for word in words)]
    assert tokenizer.decode(ids) == library.decode(ids)


def test_added_token_is_written_in_full():
    """The library would read the letter é of an added token as the byte E9."""
    library = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    library.decoder = decoders.ByteLevel()
    library.add_tokens(["<é x>"])
    assert Tokenizer(library.to_str()).token_bytes(1) == "<é x>".encode()


@pytest.mark.parametrize(
    "decoder", [decoders.CTC(), decoders.BPEDecoder(), decoders.Strip("x", 0, 1)]
)
def test_decoder_without_bytes_per_token_is_refused(decoder):
    description = json.loads(decoder.__getstate__())
    with pytest.raises(UnsupportedError, match="cannot be used for generation"):
        TokenDecoder.from_json(description)
