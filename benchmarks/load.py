"""How fast does a checkpoint load, against the file system's own read rate?

Each round drops or warms the files' pages, then times plain reads of the same bytes and
``load_model`` in turn, so that a busy machine slows both alike; the ratio of medians counts.

- ``reused``: plain reads into one small buffer, over and over: what the file system can deliver.
- ``fresh``:  plain reads into as much new memory as the model needs: what any loader must do.

    python benchmarks/load.py                      # a 1B model in bfloat16, about 2 GB of disk
    python benchmarks/load.py --rounds 5 --json load.json --folder /mnt/disk
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from weft.checkpoint.hf import load_model, save_model
from weft.core.console import format_bytes
from weft.models.decoder import Decoder
from weft.spec import ModelShape, ModelSpec

BUFFER_BYTES = 8 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where to write; none means a temporary one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    spec = ModelShape(
        dim=2048, num_layers=options.layers, num_heads=32, num_kv_heads=8, ffn_dim=8192
    ).build(128_256)
    results: dict[str, float] = {"meta_build_s": time_of(lambda: Decoder(spec, device="meta"))}
    print(f"building {spec.num_layers} layers on meta: {results['meta_build_s'] * 1e3:.0f} ms")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        files = write(spec, Path(folder))
        size = sum(file.stat().st_size for file in files)
        print(f"{len(files)} files, {format_bytes(size)}, torch {torch.__version__}")
        for state, prepare in (("cold", drop_pages), ("warm", read_all)):
            rates = measure(Path(folder), files, prepare, options.rounds, size)
            results |= {f"{state}_{name}_bytes_per_s": rate for name, rate in rates.items()}
            for name in ("reused", "fresh"):
                ratio = rates["load"] / rates[name]
                results[f"{state}_ratio_to_{name}"] = ratio
                print(
                    f"{state}: load {rates['load'] / 1e9:.2f} GB/s, plain read ({name}) "
                    f"{rates[name] / 1e9:.2f} GB/s, ratio {ratio:.2f}"
                )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def write(spec: ModelSpec, folder: Path) -> list[Path]:
    model = Decoder(spec, device="meta", dtype=torch.bfloat16).to_empty(device="cpu")
    save_model(model, folder, max_shard_bytes=10**9)
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    return files


def measure(
    folder: Path, files: list[Path], prepare: Callable[[list[Path]], None], rounds: int, size: int
) -> dict[str, float]:
    ways: dict[str, Callable[[], object]] = {
        "reused": lambda: read_all(files),
        "fresh": lambda: read_fresh(files),
        "load": lambda: load_model(folder),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            prepare(files)
            seconds[name].append(time_of(way))
    return {name: size / statistics.median(times) for name, times in seconds.items()}


def time_of(function: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    kept = function()
    elapsed_s = time.perf_counter() - start_s
    del kept  # freeing the memory is not part of it
    return elapsed_s


def drop_pages(files: list[Path]) -> None:
    for file in files:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_all(files: list[Path]) -> None:
    buffer = memoryview(bytearray(BUFFER_BYTES))
    for file in files:
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass


def read_fresh(files: list[Path]) -> list[torch.Tensor]:
    kept = []
    for file in files:
        tensor = torch.empty(file.stat().st_size, dtype=torch.uint8)
        target = memoryview(tensor.numpy())
        with file.open("rb", buffering=0) as opened:
            done = 0
            while done < len(target):
                done += opened.readinto(target[done : done + BUFFER_BYTES])
        kept.append(tensor)
    return kept


if __name__ == "__main__":
    main()
