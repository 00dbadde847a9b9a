"""The torchrun command line of a job."""

from __future__ import annotations

import shlex

from weft.launch.job import Job


def torchrun_command(job: Job, *, rendezvous: str = "localhost:0") -> list[str]:
    """Return the arguments of the command that starts a job on one node.

    Args:
        job: What to run.
        rendezvous: host:port where the nodes meet; port 0 picks a free one on a single node.

    >>> " ".join(torchrun_command(Job(("train",), processes_per_node=2)))
    'torchrun --standalone --nproc-per-node=2 --max-restarts=0 -m weft train'
    """
    command = ["torchrun"]
    if job.num_nodes == 1:
        command.append("--standalone")
    else:
        command += [
            f"--nnodes={job.num_nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={rendezvous}",
            f"--rdzv-id={job.name}",
        ]
    command += [f"--nproc-per-node={job.processes_per_node}", f"--max-restarts={job.max_restarts}"]
    return [*command, "-m", "weft", *job.arguments]


def render(job: Job, *, rendezvous: str = "localhost:0") -> str:
    """Return the command as one line for a shell."""
    return shlex.join(torchrun_command(job, rendezvous=rendezvous))
