from __future__ import annotations

import numpy as np
import pytest

from weft.sched.slots import slot_mapping


@pytest.mark.parametrize(
    ("blocks", "num_tokens", "slots"),
    [
        ([12, 13], 8, [48, 49, 50, 51, 52, 53, 54, 55]),
        ([20, 25], 7, [80, 81, 82, 83, 100, 101, 102]),
    ],
)
def test_slots_of_row_g05(blocks, num_tokens, slots):
    mapped = slot_mapping(blocks, 4, num_tokens)
    assert mapped.tolist() == slots
    assert mapped.dtype == np.int64


def test_slots_of_a_chunk_are_a_cut_of_the_whole():
    whole = slot_mapping((7, 2, 9), 4, 11)
    assert slot_mapping((7, 2, 9), 4, 5, start=3).tolist() == whole[3:8].tolist()
