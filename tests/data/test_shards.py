from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import DataError, InputFileError
from weft.data.shards import TokenDocument, TokenShards, write_shards

from .strategies import FINGERPRINT, numbered_shards

token_documents = st.lists(
    st.lists(st.integers(0, 99), min_size=1, max_size=20), min_size=1, max_size=12
)


def write(folder: Path, documents: list[list[int]], vocab_size: int = 100) -> TokenShards:
    return write_shards(
        folder,
        [TokenDocument(tokens, 2 * len(tokens)) for tokens in documents],
        vocab_size=vocab_size,
        tokenizer_fingerprint=FINGERPRINT,
        meta={"corpus": "test"},
    )


@settings(max_examples=30)
@given(
    documents=token_documents,
    vocab_size=st.sampled_from([100, 2**16, 2**16 + 1, 200_000]),
    max_tokens=st.integers(1, 40),
    data=st.data(),
)
def test_shards_round_trip_over_any_number_of_files(
    documents: list[list[int]], vocab_size: int, max_tokens: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(
            Path(folder),
            [TokenDocument(tokens, len(tokens) * 5) for tokens in documents],
            vocab_size=vocab_size,
            tokenizer_fingerprint=FINGERPRINT,
            max_tokens_per_file=max_tokens,
        )
        shards.verify()
        stream = [token for tokens in documents for token in tokens]
        assert shards.num_documents == len(documents)
        assert shards.num_tokens == len(stream)
        assert shards.num_bytes == 5 * len(stream)
        assert [shards.document(i).tolist() for i in range(len(documents))] == documents
        assert shards.document_bytes.tolist() == [5 * len(tokens) for tokens in documents]
        start = data.draw(st.integers(0, len(stream)))
        stop = data.draw(st.integers(start, len(stream)))
        assert shards.read(start, stop).tolist() == stream[start:stop]
        assert shards.read(start, stop).dtype == np.int64


def test_ids_take_two_bytes_up_to_65536_and_four_above(tmp_path: Path) -> None:
    assert write(tmp_path / "a", [[1, 2, 3]], 2**16).index["dtype"] == "uint16"
    assert (tmp_path / "a" / "tokens-00000.bin").stat().st_size == 6
    assert write(tmp_path / "b", [[1, 2, 3]], 2**16 + 1).index["dtype"] == "uint32"
    assert (tmp_path / "b" / "tokens-00000.bin").stat().st_size == 12


def test_meta_and_fingerprint_are_kept(tmp_path: Path) -> None:
    shards = write(tmp_path, [[1]])
    assert shards.meta == {"corpus": "test"}
    assert shards.tokenizer_fingerprint == FINGERPRINT
    shards.check_tokenizer(FINGERPRINT)
    with pytest.raises(DataError, match=r"ffffffffffff.*0000") as error:
        shards.check_tokenizer("0" * 64)
    assert error.value.fix is not None


@pytest.mark.parametrize("name", ["tokens-00000.bin", "offsets.bin", "bytes.bin"])
def test_truncated_file_is_named_with_both_sizes(tmp_path: Path, name: str) -> None:
    write(tmp_path, [[1, 2, 3], [4]])
    path = tmp_path / name
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{name} has {size - 1} bytes, expected {size}") as error:
        TokenShards(tmp_path)
    assert "tokenize" in str(error.value.fix)


@pytest.mark.parametrize("name", ["tokens-00000.bin", "offsets.bin", "bytes.bin"])
def test_flipped_bit_passes_opening_but_not_verify(tmp_path: Path, name: str) -> None:
    write(tmp_path, [[1, 2, 3], [4]])
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is corrupted"):
        TokenShards(tmp_path).verify()


def test_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, [[1]])
    (tmp_path / "offsets.bin").unlink()
    with pytest.raises(DataError, match=r"offsets\.bin is missing"):
        TokenShards(tmp_path)


def test_folder_without_index_is_not_shards(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.json is missing"):
        TokenShards(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("magic", "other", "does not describe token shards"),
        ("version", 99, "format version 99; this weft reads 1"),
        ("num_tokens", 17, "checksum does not match"),
    ],
)
def test_changed_index_is_refused(tmp_path: Path, key: str, value: object, message: str) -> None:
    write(tmp_path, [[1, 2]])
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**index, key: value}))
    with pytest.raises(DataError, match=message):
        TokenShards(tmp_path)


def test_index_that_is_not_json_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [[1, 2]])
    (tmp_path / "index.json").write_text('{"magic": ')
    with pytest.raises(InputFileError, match="not valid JSON"):
        TokenShards(tmp_path)


@pytest.mark.parametrize(
    ("documents", "message"),
    [([], "no documents"), ([[1], []], "document 1 has no tokens"), ([[5, 100]], "5 to 100")],
)
def test_unusable_documents_are_refused(
    tmp_path: Path, documents: list[list[int]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path, documents)
    assert list(tmp_path.iterdir()) == []


def test_failure_while_writing_keeps_the_old_shards(tmp_path: Path) -> None:
    write(tmp_path, [[1, 2], [3]])
    with pytest.raises(DataError):
        write(tmp_path, [[9, 9], []])
    shards = TokenShards(tmp_path)
    shards.verify()
    assert [shards.document(i).tolist() for i in range(2)] == [[1, 2], [3]]


def test_writing_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path, [[1]])
    write(tmp_path, [[2]])
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert TokenShards(tmp_path).document(0).tolist() == [2]


def test_positions_outside_are_index_errors(tmp_path: Path) -> None:
    shards = numbered_shards(tmp_path, [3, 4])
    with pytest.raises(IndexError, match="document 2 of 2"):
        shards.document(2)
    with pytest.raises(IndexError, match="tokens 5 to 8 of 7"):
        shards.read(5, 8)
