"""Tensors broadcast in buckets arrive as they were sent, whatever the buckets hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import DataError
from weft.dist.group import ProcessGroup
from weft.dist.launch import run_distributed
from weft.dist.tensor_info import TensorInfo, aligned, buckets, total_bytes, views
from weft.dist.tensor_stream import receive_tensors, send_tensors

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
INFOS = st.lists(
    st.builds(
        TensorInfo,
        st.text(max_size=4),
        SHAPES,
        st.sampled_from(["float32", "bfloat16", "int64", "bool"]),
    ),
    max_size=12,
)


@given(INFOS, st.integers(1, 1000))
def test_buckets_keep_the_order_and_the_limit(infos, bucket_bytes):
    runs = list(buckets(infos, bucket_bytes))
    assert [info for run in runs for info in run] == infos
    assert all(total_bytes(run) <= bucket_bytes or len(run) == 1 for run in runs)
    assert all(runs)


@given(INFOS)
def test_views_of_a_buffer_do_not_overlap(infos):
    buffer_P = torch.zeros(total_bytes(infos), dtype=torch.uint8)
    for index, (info, (name, view)) in enumerate(zip(infos, views(buffer_P, infos), strict=True)):
        assert (name, tuple(view.shape), view.dtype) == (info.name, info.shape, info.torch_dtype)
        assert not view.any()
        view.fill_(1 if view.dtype is torch.bool else index + 1)


def test_an_unknown_element_type_is_refused():
    with pytest.raises(DataError, match="unknown element type 'float31'"):
        TensorInfo("x", (2,), "float31").size_bytes  # noqa: B018


def test_sizes_are_aligned():
    assert [aligned(size) for size in (0, 1, 64, 65)] == [0, 64, 64, 128]


def tensors(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "large": torch.randn(50, 40, generator=generator),
        "half": torch.randn(7, 3, generator=generator).to(torch.bfloat16),
        "count": torch.arange(5),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
    }


def send_and_compare(bucket_bytes: int) -> None:
    group = ProcessGroup.current()
    if group.rank == 1:
        send_tensors(tensors(1), group, bucket_bytes=bucket_bytes)
        return
    incoming = receive_tensors(1, group)
    expected = tensors(1)
    assert [info.name for info in incoming.infos] == list(expected)
    num_seen = 0
    for bucket in incoming.buckets:
        for name, tensor in bucket:
            assert torch.equal(tensor, expected[name])
            num_seen += 1
    assert num_seen == len(expected)


@pytest.mark.dist
@pytest.mark.parametrize("bucket_bytes", [1, 4096, 10**6])
def test_every_rank_gets_what_one_rank_sends(bucket_bytes):
    run_distributed(send_and_compare, 3, bucket_bytes)


def test_alone_sending_needs_nobody():
    send_tensors(tensors(0), ProcessGroup())
