from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError, DataError
from weft.data.batch import IGNORE
from weft.data.examples import ExampleLoader


@dataclass(frozen=True)
class Example:
    tokens: tuple[int, ...]
    mask: tuple[bool, ...]


def example(start: int, prompt: int, answer: int) -> Example:
    return Example(
        tuple(range(start, start + prompt + answer)), (False,) * prompt + (True,) * answer
    )


def test_labels_are_the_masked_tokens_shifted_by_one() -> None:
    loader = ExampleLoader(
        [Example((5, 6, 7, 8), (False, False, True, True))],
        tokens_per_batch=8,
        seed=0,
        sequence_length=8,
    )
    batch = loader.batch(0)
    assert batch.tokens_T.tolist() == [5, 6, 7, 8]
    assert batch.labels_T.tolist() == [IGNORE, 7, 8, IGNORE]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=30),
    seed=st.integers(0, 100),
)
def test_packed_epoch_has_the_targets_of_the_examples_alone(
    sizes: list[tuple[int, int]], seed: int
) -> None:
    examples = [example(100 * i, prompt, answer) for i, (prompt, answer) in enumerate(sizes)]
    packed = ExampleLoader(examples, tokens_per_batch=16, seed=seed, sequence_length=16)
    alone = ExampleLoader(
        examples, tokens_per_batch=16, seed=seed, sequence_length=16, packing="none"
    )
    assert alone.num_sequences == len(examples) >= packed.num_sequences

    def pairs(loader: ExampleLoader) -> list[tuple[int, ...]]:
        documents = []
        for index in range(loader.num_sequences):
            batch = loader.batch(index)
            assert len(batch) <= 16
            cuts = np.cumsum(batch.lengths)[:-1]
            for tokens, labels in zip(
                np.split(batch.tokens_T, cuts), np.split(batch.labels_T, cuts), strict=True
            ):
                documents.append((*tokens.tolist(), *labels.tolist()))
        return sorted(documents)

    assert pairs(packed) == pairs(alone)


def test_order_is_a_function_of_seed_and_index() -> None:
    examples = [example(100 * i, 3, 2) for i in range(40)]

    def order(seed: int, indices: range) -> list[int]:
        loader = ExampleLoader(examples, tokens_per_batch=10, seed=seed, sequence_length=10)
        return [int(t) for i in indices for t in loader.batch(i).tokens_T]

    assert order(1, range(7, 12)) == order(1, range(40))[70:120]
    assert order(1, range(20)) != order(2, range(20))
    assert order(1, range(20)) != order(1, range(20, 40))


def test_long_examples_are_cut_and_those_without_target_dropped() -> None:
    examples = [example(0, 3, 10), example(100, 9, 3), example(200, 2, 2)]
    loader = ExampleLoader(examples, tokens_per_batch=8, seed=0, sequence_length=8)
    assert (loader.num_examples, loader.num_dropped, loader.num_truncated) == (2, 1, 2)
    assert max(len(loader.batch(i)) for i in range(loader.batches_per_epoch)) == 8


def test_no_targets_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="none of 1 examples has a token to learn"):
        ExampleLoader([example(0, 9, 3)], tokens_per_batch=8, seed=0, sequence_length=8)


def test_mask_of_another_length_is_an_error() -> None:
    with pytest.raises(DataError, match="3 tokens and 2 mask"):
        ExampleLoader(
            [Example((1, 2, 3), (True, True))], tokens_per_batch=8, seed=0, sequence_length=8
        )


def test_unknown_packing_is_refused() -> None:
    with pytest.raises(ConfigError, match="packing is 'concat'"):
        ExampleLoader(
            [example(0, 2, 2)],
            tokens_per_batch=8,
            seed=0,
            sequence_length=8,
            packing="concat",  # pyrefly: ignore
        )
