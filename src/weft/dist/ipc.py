"""One tensor, several processes of one machine: no copy, no server, no pickle.

Two ways lead there. Processes that torch started together (``torch.multiprocessing``) put tensors
into a queue, which shares their memory by itself. Programs that only meet later use handles::

    with SharedTensors() as shared:             # the sender
        handles = shared.share({"x": x})        # x itself now lies in shared memory
        file.write_text(handles["x"].to_json())

    x = rebuild(TensorHandle.from_json(text))   # the receiver: the same memory
    x.add_(1)                                   # seen by the sender

On a CPU the memory is a mapped file below /dev/shm that belongs to the sender and disappears with
it; on CUDA it is the allocation itself, named by CUDA's IPC handle. Writes are not ordered between
processes: sender and receiver agree, by whatever they talk through, whose turn it is.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

from weft.core.errors import DataError, UnsupportedError
from weft.core.files import disk_errors
from weft.dist.tensor_info import TensorInfo, total_bytes, views

_PREFIX = "weft-tensors-"


@dataclass(frozen=True)
class SharedFile:
    """Memory of the CPU that processes share.

    Attributes:
        name: Of the file in ``shared_folder``.
        size_bytes: How long it is.
    """

    name: str
    size_bytes: int


@dataclass(frozen=True)
class CUDAMemory:
    """An allocation on a GPU, as CUDA's interprocess handle names it; bytes in base64.

    Attributes:
        device: Index of the GPU.
        handle: Names the allocation.
        size_bytes: Of the storage.
        offset_bytes: Of the storage in the allocation.
        ref_counter: Names the count of receivers that still use it.
        ref_counter_offset: Of this storage's count.
        event: Names the event that says the sender's writes are done.
        event_sync_required: Whether the receiver has to wait for it.
    """

    device: int
    handle: str
    size_bytes: int
    offset_bytes: int
    ref_counter: str
    ref_counter_offset: int
    event: str
    event_sync_required: bool


@dataclass(frozen=True)
class TensorHandle:
    """What another process needs to see a tensor.

    Attributes:
        info: Name, shape and element type.
        stride: Elements from one entry of each axis to the next.
        offset: Elements from the beginning of the memory to the first.
        memory: Where it lies.
    """

    info: TensorInfo
    stride: tuple[int, ...]
    offset: int
    memory: SharedFile | CUDAMemory

    def to_json(self) -> str:
        """Return the handle as text."""
        kind = "file" if isinstance(self.memory, SharedFile) else "cuda"
        fields = {**asdict(self), "info": list(self.info), "kind": kind}
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> TensorHandle:
        """Read what ``to_json`` wrote.

        Raises:
            DataError: it is something else.
        """
        try:
            fields = json.loads(text)
            name, shape, dtype = fields["info"]
            memory = {"file": SharedFile, "cuda": CUDAMemory}[fields["kind"]]
            return cls(
                TensorInfo(str(name), tuple(map(int, shape)), str(dtype)),
                tuple(map(int, fields["stride"])),
                int(fields["offset"]),
                memory(**fields["memory"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"this is no handle of a shared tensor: {error}",
                fix="pass on the text that TensorHandle.to_json returned",
            ) from error


class SharedTensors:
    """Tensors this process shares; leaving the context takes their names away.

    Whoever has rebuilt a tensor keeps its memory until the tensor is gone; nobody new can come.
    """

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def __enter__(self) -> SharedTensors:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @torch.no_grad()
    def share(self, tensors: Mapping[str, Tensor]) -> dict[str, TensorHandle]:
        """Move CPU tensors into shared memory and return a handle for each.

        The tensor objects stay what they are, parameters included, and whoever holds them sees
        the shared memory; other views of their old memory do not. Tensors on CUDA stay where
        they are.

        Raises:
            ResourceError: shared memory is full.
            UnsupportedError: a device that cannot share.
        """
        on_cpu = {name: t for name, t in tensors.items() if t.device.type == "cpu"}
        handles = self._share_files(on_cpu) if on_cpu else {}
        for name, tensor in tensors.items():
            if name not in handles:
                handles[name] = _share_cuda(name, tensor)
        return {name: handles[name] for name in tensors}

    def close(self) -> None:
        """Take the names away; idempotent."""
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths.clear()

    def _share_files(self, tensors: Mapping[str, Tensor]) -> dict[str, TensorHandle]:
        infos = [TensorInfo.of(name, tensor) for name, tensor in tensors.items()]
        memory = self._new_file(max(1, total_bytes(infos)))
        handles = {}
        for info, (name, view) in zip(infos, views(_map(memory), infos), strict=True):
            view.copy_(tensors[name])
            tensors[name].data = view
            handles[name] = TensorHandle(info, view.stride(), int(view.storage_offset()), memory)
        return handles

    def _new_file(self, size_bytes: int) -> SharedFile:
        folder = shared_folder()
        with disk_errors(folder):
            descriptor, path = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
            self._paths.append(Path(path))
            try:
                _reserve(descriptor, size_bytes)
            finally:
                os.close(descriptor)
        return SharedFile(Path(path).name, size_bytes)


def rebuild(handle: TensorHandle) -> Tensor:
    """Return the tensor behind a handle: the sender's memory, not a copy.

    Raises:
        DataError: the memory is gone, or the handle reaches beyond it.
    """
    info, memory = handle.info, handle.memory
    if isinstance(memory, CUDAMemory):
        return _rebuild_cuda(handle, memory)
    last = handle.offset + sum(
        (size - 1) * step for size, step in zip(info.shape, handle.stride, strict=True)
    )
    if handle.offset < 0 or min(handle.stride, default=0) < 0:
        raise DataError(f"the handle of {info.name!r} has a negative offset or stride")
    if info.size_bytes and (last + 1) * info.torch_dtype.itemsize > memory.size_bytes:
        raise DataError(f"the handle of {info.name!r} reaches beyond its memory")
    whole = _map(memory)
    num_whole = memory.size_bytes // info.torch_dtype.itemsize
    elements = whole[: num_whole * info.torch_dtype.itemsize].view(info.torch_dtype)
    return elements.as_strided(info.shape, handle.stride, handle.offset)


def shared_folder() -> Path:
    """Return where shared memory has its names: /dev/shm, or the folder of temporary files."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else Path(tempfile.gettempdir())


def _reserve(descriptor: int, size_bytes: int) -> None:
    os.ftruncate(descriptor, size_bytes)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        # Now, with an error: writing to a page that cannot be had later would kill the process.
        os.posix_fallocate(descriptor, 0, size_bytes)


def _map(memory: SharedFile) -> Tensor:
    """Return the bytes of a shared file, uint8."""
    if Path(memory.name).name != memory.name or not memory.name.startswith(_PREFIX):
        raise DataError(f"{memory.name!r} is not the name of shared tensors")
    path = shared_folder() / memory.name
    if not path.exists() or path.stat().st_size != memory.size_bytes:
        raise DataError(
            f"the shared memory {memory.name!r} is gone",
            fix="rebuild tensors while the sender still shares them",
        )
    return torch.from_file(str(path), shared=True, size=memory.size_bytes, dtype=torch.uint8)


def _share_cuda(name: str, tensor: Tensor) -> TensorHandle:
    if tensor.device.type != "cuda":
        raise UnsupportedError(
            f"tensor {name!r} on {tensor.device} cannot be shared between processes",
            fix="share tensors of the CPU or of a CUDA device",
        )
    _, arguments = reduce_tensor(tensor.detach())
    device, handle, size, offset, _, counter, counter_offset, event, must_wait = arguments[6:15]
    memory = CUDAMemory(
        device=device,
        handle=_text(handle),
        size_bytes=size,
        offset_bytes=offset,
        ref_counter=_text(counter),
        ref_counter_offset=counter_offset,
        event=_text(event),
        event_sync_required=must_wait,
    )
    info = TensorInfo.of(name, tensor)
    return TensorHandle(info, tensor.stride(), int(tensor.storage_offset()), memory)


def _rebuild_cuda(handle: TensorHandle, memory: CUDAMemory) -> Tensor:
    return rebuild_cuda_tensor(
        Tensor,
        torch.Size(handle.info.shape),
        handle.stride,
        handle.offset,
        torch.TypedStorage,
        handle.info.torch_dtype,
        memory.device,
        _bytes(memory.handle),
        memory.size_bytes,
        memory.offset_bytes,
        False,
        _bytes(memory.ref_counter),
        memory.ref_counter_offset,
        _bytes(memory.event),
        memory.event_sync_required,
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
