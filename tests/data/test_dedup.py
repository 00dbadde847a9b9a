from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import ConfigError
from weft.data.dedup import DedupConfig, MinHasher, find_near_duplicates, jaccard, text_key

CONFIG = DedupConfig()


def words(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices("abcdefghij", k=5)) for _ in range(count)]


def edited(rng: random.Random, original: list[str], share: float) -> list[str]:
    """Replace a share of the words; with 5-word shingles each edit changes up to five."""
    copy = list(original)
    for place in rng.sample(range(len(copy)), int(share * len(copy))):
        copy[place] = "changed" + str(rng.randrange(10**6))
    return copy


def test_estimate_is_unbiased_and_within_its_standard_error() -> None:
    rng, hasher = random.Random(1), MinHasher(CONFIG)
    errors = []
    for share in (0.01, 0.03, 0.06, 0.1, 0.2):
        for _ in range(8):
            original = words(rng, 400)
            one, other = " ".join(original), " ".join(edited(rng, original, share))
            true = jaccard(hasher.shingles(one), hasher.shingles(other))
            estimate = float((hasher.signature(one) == hasher.signature(other)).mean())
            errors.append((estimate - true) / np.sqrt(true * (1 - true) / 128))
    assert abs(np.mean(errors)) < 5 / np.sqrt(len(errors))
    assert np.abs(errors).max() < 5


def test_planted_near_duplicates_are_found_and_others_are_not() -> None:
    rng, hasher = random.Random(2), MinHasher(CONFIG)
    originals = [words(rng, 300) for _ in range(150)]
    texts = [" ".join(text) for text in originals]
    near, far = [], []
    for number, original in enumerate(originals):
        share = rng.choice([0.005, 0.01, 0.015, 0.1, 0.2])
        copy = " ".join(edited(rng, original, share))
        index = jaccard(hasher.shingles(texts[number]), hasher.shingles(copy))
        if index >= 0.9:
            near.append(len(texts))
        elif index < 0.65:
            far.append(len(texts))
        texts.append(copy)
    found = find_near_duplicates(np.stack([hasher.signature(text) for text in texts]), CONFIG)
    assert len(near) > 50
    assert len(far) > 30
    assert sum(number in found for number in near) / len(near) >= 0.98
    assert not [number for number in far if number in found]
    assert all(found[number] == number - 150 for number in near if number in found)


def test_first_copy_stays_and_the_rest_point_to_it() -> None:
    hasher = MinHasher(CONFIG)
    text = " ".join(words(random.Random(3), 100))
    other = " ".join(words(random.Random(4), 100))
    signatures = np.stack([hasher.signature(t) for t in [other, text, text, other, text]])
    assert find_near_duplicates(signatures, CONFIG) == {2: 1, 3: 0, 4: 1}


def test_a_chain_of_small_changes_does_not_drop_its_far_end() -> None:
    base = np.arange(128, dtype=np.uint32)
    middle, end = base.copy(), base.copy()
    middle[:20] += 1000
    end[:40] += 1000
    end[:20] += 1000
    signatures = np.stack([base, middle, end])
    # 0 and 1 agree in 108 of 128 places, 1 and 2 in 88, 0 and 2 in 88: only 1 is dropped.
    assert find_near_duplicates(signatures, CONFIG) == {1: 0}


def test_a_large_group_of_equal_texts_keeps_one() -> None:
    hasher = MinHasher(CONFIG)
    signature = hasher.signature("the same words in every one of these documents")
    found = find_near_duplicates(np.stack([signature] * 300), CONFIG)
    assert found == dict.fromkeys(range(1, 300), 0)


def test_without_duplicates_nothing_is_found() -> None:
    hasher = MinHasher(CONFIG)
    texts = [" ".join(words(random.Random(seed), 50)) for seed in range(5)]
    assert find_near_duplicates(np.stack([hasher.signature(t) for t in texts]), CONFIG) == {}


@given(st.text(max_size=60))
def test_case_spacing_and_punctuation_do_not_change_a_signature(text: str) -> None:
    hasher = MinHasher(CONFIG)
    spaced = f"  {text}\n\n".replace(" ", "   ")
    assert np.array_equal(hasher.signature(text), hasher.signature(spaced))
    assert text_key(text) == text_key(spaced)


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    hasher = MinHasher(CONFIG)
    one = "機械学習は人工知能の一分野であり統計学と深い関係がある"
    assert len(hasher.shingles(one)) > 15
    assert jaccard(hasher.shingles(one), hasher.shingles(one[:-2])) > 0.8


def test_signatures_are_the_same_in_every_version() -> None:
    signature = MinHasher(CONFIG).signature("one two three four five six seven")
    assert signature[:3].tolist() == [42673733, 374718713, 2709160993]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"threshold": 0.0}, "threshold"),
        ({"num_bands": 5}, "num_hashes"),
        ({"shingle_words": 0}, "shingle_words"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        DedupConfig(**changes)
