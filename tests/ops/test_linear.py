"""A row of a product does not depend on the rows around it."""

from __future__ import annotations

import pytest
import torch

from weft.ops import linear, pad_rows, stable_num_rows
from weft.ops.linear import onednn


@pytest.fixture(params=[1, 2, 3])
def num_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(params=["oneDNN", "MKL"])
def backend(request, monkeypatch):
    if request.param == "MKL":
        monkeypatch.setattr(onednn, "available", lambda: False)
    elif not onednn.available():
        pytest.skip("this torch has no oneDNN")


@pytest.mark.usefixtures("num_threads", "backend")
@pytest.mark.parametrize(("width", "num_columns"), [(33, 300), (256, 768), (384, 77)])
def test_padded_rows_have_the_bits_they_have_among_many(width, num_columns):
    torch.manual_seed(0)
    x, weight = torch.randn(700, width), torch.randn(num_columns, width)
    many = linear(x, weight)
    for start, num_rows in ((0, 1), (5, 2), (9, 3), (31, 5), (100, 9), (2, 27), (64, 257)):
        few = linear(pad_rows(x[start : start + num_rows]), weight)[:num_rows]
        assert torch.equal(few, many[start : start + num_rows])


def test_rows_are_padded_with_zeros_up_to_what_the_backend_needs(monkeypatch):
    monkeypatch.setattr(onednn, "available", lambda: True)
    assert [stable_num_rows(n) for n in (1, 2, 3, 500)] == [2, 2, 3, 500]
    monkeypatch.setattr(onednn, "available", lambda: False)
    assert [stable_num_rows(n) for n in (1, 16, 17, 500)] == [16, 16, 32, 512]
    padded = pad_rows(torch.ones(3, 4))
    assert padded.shape == (16, 4)
    assert padded.sum() == 12
