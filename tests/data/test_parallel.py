from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import DataError, InputFileError
from weft.data.batch import IGNORE
from weft.data.pack import length_groups
from weft.data.parallel import (
    DecoderOnlyCollate,
    EncoderDecoderCollate,
    PairLoader,
    read_lines,
    read_pairs,
)

START, END, SEPARATOR = 1, 2, 3
SIDES = st.lists(st.integers(4, 50), max_size=30)
PAIRS = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=40)


def loader(pairs, **options) -> PairLoader:
    options = {"tokens_per_batch": 64, "seed": 0, **options}
    return PairLoader(pairs, EncoderDecoderCollate(START, END), **options)


def pairs_of(batch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return what a batch holds, without begin and end tokens."""
    sources = np.split(batch.source_S, np.cumsum(batch.source_lengths)[:-1])
    targets = np.split(batch.labels_T, np.cumsum(batch.target_lengths)[:-1])
    return [
        (tuple(source[:-1].tolist()), tuple(target[:-1].tolist()))
        for source, target in zip(sources, targets, strict=True)
    ]


def random_pairs(count: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, (count, 2))
    return [([4 + i % 40] * a, [4 + (i + 1) % 40] * b) for i, (a, b) in enumerate(lengths.tolist())]


@given(PAIRS)
def test_every_epoch_holds_every_pair_once(pairs):
    source = loader(pairs)
    for epoch in range(2):
        first = epoch * source.batches_per_epoch
        batches = [source.batch(first + i) for i in range(source.batches_per_epoch)]
        found = sorted(
            pair for batch in batches if batch.source_lengths for pair in pairs_of(batch)
        )
        assert found == sorted((tuple(a), tuple(b)) for a, b in pairs)


def test_batches_are_a_function_of_seed_and_index():
    pairs = random_pairs(200)
    first, second, other = loader(pairs), loader(pairs), loader(pairs, seed=1)
    backwards = {i: second.batch(i) for i in reversed(range(40))}
    for index in range(40):
        assert np.array_equal(first.batch(index).source_S, backwards[index].source_S)
    assert any(
        not np.array_equal(first.batch(i).source_S, other.batch(i).source_S) for i in range(5)
    )


def test_batches_have_about_equally_many_tokens_of_similar_lengths():
    source = loader(random_pairs(3000), tokens_per_batch=500)
    batches = [source.batch(i) for i in range(source.batches_per_epoch)]
    sizes = [sum(batch.lengths) for batch in batches]
    assert max(sizes) <= 500 + 60, "at most one pair beyond the even share"
    assert min(sizes) >= 500 - 60 - 500 / source.batches_per_epoch
    spread = [max(batch.target_lengths) - min(batch.target_lengths) for batch in batches]
    assert np.mean(spread) < 8, "29 without sorting"
    epochs = [
        [loader(random_pairs(3000)).batch(i).lengths for i in range(k, k + 3)] for k in (0, 3)
    ]
    assert epochs[0] != epochs[1]


def test_teacher_forcing_shifts_the_target_by_the_start_token():
    batch = EncoderDecoderCollate(START, END)([([7, 8], [9]), ([5], [6, 4])])
    assert batch.source_S.tolist() == [7, 8, END, 5, END]
    assert batch.source_lengths == (3, 2)
    assert batch.tokens_T.tolist() == [START, 9, START, 6, 4]
    assert batch.labels_T.tolist() == [9, END, 6, 4, END]
    assert batch.target_lengths == (2, 3)


def test_a_decoder_learns_the_target_only():
    batch = DecoderOnlyCollate(SEPARATOR, END)([([7, 8], [9]), ([], [6, 4])])
    assert batch.tokens_T.tolist() == [7, 8, SEPARATOR, 9, SEPARATOR, 6, 4]
    assert batch.labels_T.tolist() == [IGNORE, IGNORE, 9, END, 6, 4, END]
    assert batch.lengths == (4, 3)


def test_no_pairs_are_refused():
    with pytest.raises(DataError, match="no sentence pairs"):
        loader([])


def test_plain_and_compressed_files_give_the_same_pairs(tmp_path: Path):
    text = "Ein Hund.\nLeer:\n\n Zwei  Katzen \n"
    (tmp_path / "a.de").write_text(text, encoding="utf-8")
    (tmp_path / "a.de.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "a.en").write_text("A dog.\n\nEmpty\nTwo cats\n", encoding="utf-8")
    expected = [("Ein Hund.", "A dog."), ("Zwei  Katzen", "Two cats")]
    for name in ("a.de", "a.de.gz"):
        assert read_pairs(tmp_path / name, tmp_path / "a.en") == expected


def test_unusual_line_separators_stay_inside_a_line(tmp_path: Path):
    (tmp_path / "a").write_text("one\u2028two\x0bthree\nfour", encoding="utf-8")
    assert read_lines(tmp_path / "a") == ["one\u2028two\x0bthree", "four"]


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path):
    (tmp_path / "a").write_text("1\n2\n")
    (tmp_path / "b").write_text("1\n")
    with pytest.raises(DataError, match=r"2 lines and .*b has 1"):
        read_pairs(tmp_path / "a", tmp_path / "b")


def test_unreadable_files_are_named(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    (tmp_path / "a.gz").write_bytes(b"no gzip")
    for name in ("a", "a.gz", "missing"):
        with pytest.raises(InputFileError, match=name):
            read_lines(tmp_path / name)


@given(st.lists(st.integers(0, 30), max_size=50), st.integers(1, 60))
def test_length_groups_hold_each_text_once_and_keep_the_limit(lengths: list[int], limit: int):
    groups = list(length_groups(lengths, limit))
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[row] for row in group) <= limit
