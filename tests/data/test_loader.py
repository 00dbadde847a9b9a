from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import ConfigError, DataError
from weft.data.batch import IGNORE, Batch
from weft.data.loader import Loader, Packing, sequential_batches
from weft.data.mix import Mixture

from .strategies import document_lengths, numbered_shards


def check_labels(batch: Batch, ends: set[int]) -> None:
    """In a numbered corpus the target of token t is t + 1, unless t ends its document."""
    for token, label in zip(batch.tokens_T.tolist(), batch.labels_T.tolist(), strict=True):
        assert label == (IGNORE if token in ends else token + 1)


def check_pieces(batch: Batch, lengths: list[int]) -> None:
    """Every piece is a run of consecutive tokens of a single document."""
    document_of = np.repeat(np.arange(len(lengths)), lengths)
    for piece in np.split(batch.tokens_T, np.cumsum(batch.lengths)[:-1]):
        assert (np.diff(piece) == 1).all()
        assert len(set(document_of[piece].tolist())) == 1


@settings(max_examples=30)
@given(
    lengths=document_lengths,
    sequence_length=st.integers(2, 20),
    sequences=st.integers(1, 4),
    seed=st.integers(0, 1000),
    packing=st.sampled_from(["concat", "best_fit"]),
)
def test_epoch_has_every_token_once_and_never_mixes_documents(
    lengths: list[int], sequence_length: int, sequences: int, seed: int, packing: Packing
) -> None:
    num_tokens = sum(lengths)
    if packing == "concat" and num_tokens < sequence_length:
        return
    with tempfile.TemporaryDirectory() as folder:
        shards = numbered_shards(Path(folder), lengths, max_tokens_per_file=25)
        loader = Loader(
            shards,
            sequence_length=sequence_length,
            tokens_per_batch=sequence_length,
            seed=seed,
            packing=packing,
        )
        ends = set((np.cumsum(lengths) - 1).tolist())
        for epoch in range(2):
            seen: list[int] = []
            for index in range(epoch * loader.num_sequences, (epoch + 1) * loader.num_sequences):
                batch = loader.batch(index)
                check_labels(batch, ends)
                check_pieces(batch, lengths)
                assert len(batch) <= sequence_length
                seen += batch.tokens_T.tolist()
            assert len(seen) == len(set(seen))
            if packing == "best_fit":
                assert len(seen) == num_tokens
            else:
                assert num_tokens - len(seen) < sequence_length
        large = Loader(
            shards,
            sequence_length=sequence_length,
            tokens_per_batch=sequence_length * sequences,
            seed=seed,
            packing=packing,
        )
        small = [loader.batch(2 * sequences + i).tokens_T for i in range(sequences)]
        assert large.batch(2).tokens_T.tolist() == np.concatenate(small).tolist()


def make_loader(folder: Path, seed: int = 3, packing: Packing = "concat") -> Loader:
    shards = numbered_shards(folder, [50, 3, 120, 47, 80])
    return Loader(shards, sequence_length=20, tokens_per_batch=60, seed=seed, packing=packing)


def test_concat_batches_have_exactly_the_asked_tokens(tmp_path: Path) -> None:
    loader = make_loader(tmp_path)
    assert loader.num_sequences == 15
    assert loader.batches_per_epoch == 5
    assert {len(loader.batch(index)) for index in range(12)} == {60}


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_batch_depends_only_on_seed_and_index(tmp_path: Path, packing: Packing) -> None:
    straight = make_loader(tmp_path / "a", packing=packing)
    wanted = [straight.batch(index) for index in range(20)]
    resumed = make_loader(tmp_path / "b", packing=packing)
    for index in (13, 19, 2, 13):
        assert np.array_equal(resumed.batch(index).tokens_T, wanted[index].tokens_T)
        assert np.array_equal(resumed.batch(index).labels_T, wanted[index].labels_T)
        assert resumed.batch(index).lengths == wanted[index].lengths


def test_epochs_and_seeds_have_different_orders(tmp_path: Path) -> None:
    loader, other = make_loader(tmp_path / "a"), make_loader(tmp_path / "b", seed=4)
    epochs = [
        np.concatenate([source.batch(5 * epoch + i).tokens_T for i in range(5)]).tolist()
        for source in (loader, other)
        for epoch in range(3)
    ]
    assert len({tuple(tokens) for tokens in epochs}) == 6


def test_a_document_cut_by_a_sequence_keeps_the_target_at_the_cut(tmp_path: Path) -> None:
    shards = numbered_shards(tmp_path, [100])
    loader = Loader(shards, sequence_length=10, tokens_per_batch=100, seed=0)
    batch = loader.batch(0)
    # Only the true end of the one document has no target.
    assert batch.num_targets == 99
    assert batch.tokens_T[batch.labels_T == IGNORE].tolist() == [99]


def test_mixture_draws_each_source_by_weight(tmp_path: Path) -> None:
    small = numbered_shards(tmp_path / "small", [100])
    large = numbered_shards(tmp_path / "large", [1000, 9000])
    mixture = Mixture([small, large], [1, 3])
    loader = Loader(mixture, sequence_length=10, tokens_per_batch=40, seed=1)
    assert loader.num_sequences == 1010
    rows = [row for index in range(50) for row in np.split(loader.batch(index).tokens_T, 4)]
    # 50 sequences of the small source are five of its epochs: each of its tokens comes 5 times.
    # The large source is read less than once, so it adds no token twice.
    counts = np.bincount(np.concatenate(rows), minlength=100)[:100]
    assert set(counts.tolist()) <= {5, 6}
    assert np.bincount(np.concatenate(rows))[100:].max() == 1


@pytest.mark.parametrize(("sequence_length", "tokens_per_batch"), [(20, 50), (20, 10), (1, 4)])
def test_sizes_that_do_not_fit_are_refused(
    tmp_path: Path, sequence_length: int, tokens_per_batch: int
) -> None:
    shards = numbered_shards(tmp_path, [100])
    with pytest.raises(ConfigError, match="sequence_length"):
        Loader(shards, sequence_length=sequence_length, tokens_per_batch=tokens_per_batch, seed=0)


def test_corpus_shorter_than_a_sequence_is_refused(tmp_path: Path) -> None:
    shards = numbered_shards(tmp_path, [5, 6])
    with pytest.raises(DataError, match="11 tokens, fewer than one sequence of 12"):
        Loader(shards, sequence_length=12, tokens_per_batch=12, seed=0)


def test_unknown_packing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="packing is 'tight'"):
        make_loader(tmp_path, packing="tight")  # pyrefly: ignore


@settings(max_examples=25)
@given(lengths=document_lengths, sequence_length=st.integers(2, 30), sequences=st.integers(1, 3))
def test_sequential_batches_are_the_stream_in_order(
    lengths: list[int], sequence_length: int, sequences: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shards = numbered_shards(Path(folder), lengths)
        batches = list(
            sequential_batches(
                shards,
                sequence_length=sequence_length,
                tokens_per_batch=sequence_length * sequences,
            )
        )
        tokens = np.concatenate([batch.tokens_T for batch in batches])
        assert tokens.tolist() == list(range(sum(lengths)))
        assert sum(batch.num_targets for batch in batches) == sum(lengths) - len(lengths)
        for batch in batches:
            check_pieces(batch, lengths)
            assert max(batch.lengths) <= sequence_length
