from __future__ import annotations

import torch

from weft.nn.memory import Memory


def memory(**options) -> Memory:
    return Memory(torch.arange(12.0).view(6, 2), (1, 3, 2), **options)


def project(hidden_SD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return hidden_SD.unsqueeze(1), -hidden_SD.unsqueeze(1)


def test_each_layer_projects_once():
    calls = []

    def counting(hidden_SD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(hidden_SD.shape)
        return project(hidden_SD)

    store = memory()
    for _ in range(3):
        store.keys_values(0, counting)
        store.keys_values(1, counting)
    assert len(calls) == 2
    store.read_by((2, 1, 0)).keys_values(1, counting)
    assert len(calls) == 2, "kept when readers change"


def test_texts_that_nobody_reads_are_dropped_with_their_keys():
    store = memory()
    store.keys_values(0, project)
    left = store.read_by((2, 0, 1))
    assert left.lengths == (1, 2)
    assert left.num_sequences == (2, 1)
    assert torch.equal(left.hidden_SD, store.hidden_SD[[0, 4, 5]])
    assert torch.equal(left.keys_values(0, project)[1], -left.hidden_SD.unsqueeze(1))


def test_queries_of_a_text_are_those_of_all_its_sequences():
    assert memory().query_lengths((4, 1, 7)) == (4, 1, 7)
    assert memory(num_sequences=(2, 1, 2)).query_lengths((4, 1, 7, 1, 1)) == (5, 7, 2)
