"""What a started rank runs: a job on standard input, then plans until rank 0 says stop."""

from __future__ import annotations

import dataclasses
import signal
import sys
from pathlib import Path

import torch.distributed as dist

from weft.core.errors import WeftError
from weft.engine.core import EngineCore
from weft.engine.parallel.channel import Channel
from weft.engine.parallel.config import ParallelConfig
from weft.engine.parallel.follow import Follower, ending_with_rank_0, report
from weft.engine.parallel.start import Job, load_part
from weft.text.tokenizer import Tokenizer


def follow(job: Job, store: dist.Store | None = None) -> None:
    """Take part in rank 0's steps until it says stop or is gone.

    Args:
        job: What to load and where rank 0 is.
        store: Where the ranks meet; none means the job's file.
    """
    assert job.address is not None
    channel = job.address.connect(job.rank, job.config.parallel.start_timeout_s)
    with ending_with_rank_0(channel):
        try:
            follower = _load(job, channel, store)
        except Exception as error:
            report(channel, error)
            raise
        follower.serve()
    channel.close()


def _load(job: Job, channel: Channel, store: dist.Store | None) -> Follower:
    if store is None:
        assert job.store is not None
        store = dist.FileStore(job.store, job.config.parallel.num_ranks)
    model, config, group = load_part(job, store)
    tokenizer = Tokenizer.load(Path(job.folder)) if job.has_tokenizer else None
    # Seen from inside, a rank is an engine of one process on a smaller model.
    own = dataclasses.replace(config, parallel=ParallelConfig())
    return Follower(EngineCore(model, tokenizer, own), channel, group)


def main() -> None:
    """Run the job on standard input."""
    # Ctrl-C reaches every process of a terminal; rank 0 decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        follow(Job.from_json(sys.stdin.read()))
    except WeftError as error:
        sys.exit(error.exit_code)  # rank 0 has been told, and says it to the user


if __name__ == "__main__":
    main()
