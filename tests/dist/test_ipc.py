"""Two processes, one tensor: what one adds, the other sees."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from weft.core.errors import DataError, UnsupportedError
from weft.dist.ipc import SharedFile, SharedTensors, TensorHandle, rebuild, shared_folder

RECEIVER = Path(__file__).with_name("shared_receiver.py")
DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn]


def sent(handle: TensorHandle) -> torch.Tensor:
    """Rebuild a handle as a receiver does that got its text."""
    return rebuild(TensorHandle.from_json(handle.to_json()))


def mean_delta(after: torch.Tensor, before: torch.Tensor) -> str:
    return f"{(after - before).mean():.6f}"


def test_what_the_receiver_adds_the_sender_sees():
    x = torch.randn(8, 16)
    before = x.clone()
    with SharedTensors() as shared:
        received = sent(shared.share({"x": x})["x"])
        assert torch.equal(received, before)
        received.add_(1)
        assert mean_delta(x, before) == "1.000000"
        x.zero_()
        assert not received.any()


def test_another_program_adds_one_to_the_senders_tensor():
    """The explicit path: two programs that share nothing but a line of text."""
    tensors = {"weight": torch.randn(64, 64), "bias": torch.zeros(7, dtype=torch.bfloat16)}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    with SharedTensors() as shared:
        lines = "".join(handle.to_json() + "\n" for handle in shared.share(tensors).values())
        command = [sys.executable, str(RECEIVER)]
        result = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    assert result.stdout == "done\n", result.stderr
    for name, tensor in tensors.items():
        assert mean_delta(tensor, before[name]) == "1.000000"


def add_one_to_all(queue, done):
    for _ in range(2):
        queue.get().add_(1)
    done.set()


@pytest.mark.dist
def test_a_queue_shares_tensors_too():
    """The path of processes that torch has started: its queues share memory by themselves."""
    context = mp.get_context("spawn")
    queue, done = context.Queue(), context.Event()
    process = context.Process(target=add_one_to_all, args=(queue, done))
    process.start()
    tensors = [torch.randn(32, 32), torch.arange(5)]
    before = [tensor.clone() for tensor in tensors]
    for tensor in tensors:
        queue.put(tensor)
    assert done.wait(60)
    process.join()
    for tensor, old in zip(tensors, before, strict=True):
        assert mean_delta(tensor.double(), old.double()) == "1.000000"


@pytest.mark.gpu
def test_another_program_adds_one_to_a_tensor_on_the_gpu():
    x = torch.randn(1024, 1024, device="cuda")
    before = x.clone()
    torch.cuda.synchronize()
    with SharedTensors() as shared:
        line = shared.share({"x": x})["x"].to_json() + "\n"
        command = [sys.executable, str(RECEIVER)]
        result = subprocess.run(command, input=line, capture_output=True, text=True, check=False)
    assert result.stdout == "done\n", result.stderr
    assert mean_delta(x, before) == "1.000000"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 5)])
def test_every_type_and_shape_arrives(dtype, shape):
    x = torch.randint(0, 2, shape).to(dtype)
    expected = x.clone()
    with SharedTensors() as shared:
        received = sent(shared.share({"x": x})["x"])
        assert (received.dtype, received.shape) == (dtype, torch.Size(shape))
        assert torch.equal(received.double(), expected.double())


def test_a_shared_parameter_is_still_trained():
    layer = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    with SharedTensors() as shared:
        handles = shared.share(dict(layer.named_parameters()))
        seen = {name: sent(handle) for name, handle in handles.items()}
        layer(torch.ones(3, 4)).sum().backward()
        optimizer.step()
        for name, parameter in layer.named_parameters():
            assert torch.equal(seen[name], parameter)


def test_a_part_of_a_tensor_is_shared_with_its_own_stride():
    with SharedTensors() as shared:
        handle = shared.share({"x": torch.arange(12.0).view(3, 4)})["x"]
        column = dataclasses.replace(
            handle, info=handle.info._replace(shape=(3,)), stride=(4,), offset=handle.offset + 1
        )
        assert sent(column).tolist() == [1.0, 5.0, 9.0]


def test_names_disappear_with_the_sender_and_memory_stays_with_the_receiver():
    shared = SharedTensors()
    handle = shared.share({"x": torch.ones(4)})["x"]
    received = sent(handle)
    assert isinstance(handle.memory, SharedFile)
    assert (shared_folder() / handle.memory.name).exists()
    shared.close()
    shared.close()
    assert not (shared_folder() / handle.memory.name).exists()
    assert received.sum() == 4
    with pytest.raises(DataError, match="is gone"):
        sent(handle)


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 10_000},
        {"offset": -1},
        {"stride": (-4, 1)},
        {"memory": SharedFile("../../etc/passwd", 4)},
        {"memory": SharedFile("other", 4)},
    ],
    ids=str,
)
def test_a_handle_reaches_only_shared_tensors(change):
    with SharedTensors() as shared:
        handle = shared.share({"x": torch.zeros(2, 4)})["x"]
        with pytest.raises(DataError):
            sent(dataclasses.replace(handle, **change))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "pickle"}', "null"])
def test_other_texts_are_no_handles(text):
    with pytest.raises(DataError, match="no handle of a shared tensor"):
        TensorHandle.from_json(text)


def test_a_handle_is_plain_json():
    with SharedTensors() as shared:
        handle = shared.share({"x": torch.zeros(2, 4)})["x"]
    fields = json.loads(handle.to_json())
    assert fields["info"] == ["x", [2, 4], "float32"]
    assert TensorHandle.from_json(handle.to_json()) == handle


def test_a_device_that_cannot_share_is_refused():
    with pytest.raises(UnsupportedError, match="on meta cannot be shared"):
        SharedTensors().share({"x": torch.zeros(2, device="meta")})
