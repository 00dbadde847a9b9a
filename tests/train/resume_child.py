"""Trains a tiny model; killed by test_resume.py, or by itself in the middle of a write.

Usage: python -m tests.train.resume_child FOLDER [kill-after-step N | kill-in-write N]
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from tests.train.helpers import CountingSource, tiny_model
from weft.core.events import Events
from weft.train import checkpoint as checkpoints
from weft.train.loop_config import LoopConfig
from weft.train.objective import NextTokenObjective
from weft.train.trainer import Trainer

CONFIG = LoopConfig(
    steps=24,
    sequence_length=8,
    tokens_per_step=32,
    micro_batch_tokens=16,
    precision="fp32",
    deterministic=True,
    num_threads=1,
    ema_decay=0.9,
    checkpoint_interval_s=None,
    checkpoint_interval_steps=5,
    log_interval_s=0.0,
)


class DyingSource(CountingSource):
    """Kills the process when a batch beyond a step is asked for, as a power cut would."""

    def __init__(self, last_step: int) -> None:
        super().__init__()
        self.last_index = last_step * CONFIG.num_micro_batches

    def batch(self, index: int):
        if index > self.last_index:
            # Let the background write end, so that each kind of kill tests one thing.
            for thread in threading.enumerate():
                if thread.name == "checkpoint":
                    thread.join()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(index)


def kill_in_write(step: int) -> None:
    """Die after the first file of the checkpoint of ``step`` is on disk."""
    write = checkpoints.write_tensors

    def dying(path: Path, tensors) -> None:
        write(path, tensors)
        if path.parent.name.endswith(f"{step:08d}"):
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.write_tensors = dying


def train(folder: Path, source: CountingSource) -> None:
    trainer = Trainer(tiny_model(), NextTokenObjective(), source, CONFIG, folder=folder)
    trainer.run(Events())


if __name__ == "__main__":
    source = CountingSource()
    if "kill-after-step" in sys.argv:
        source = DyingSource(int(sys.argv[3]))
    elif "kill-in-write" in sys.argv:
        kill_in_write(int(sys.argv[3]))
    train(Path(sys.argv[1]), source)
