"""A Slurm batch script of a job."""

from __future__ import annotations

import shlex

from weft.launch.job import Job
from weft.launch.torchrun import torchrun_command

# Seconds before the limit at which Slurm sends SIGTERM, time enough to write a checkpoint.
WARNING_S = 120
PORT = 29400


def render(job: Job, *, gpus_per_node: int = 0) -> str:
    """Return a script for ``sbatch``.

    One torchrun starts on each node; they meet at the first node. SIGTERM reaches the trainer
    before the time limit, it saves, and ``--requeue`` lets the queue start the job again.
    """
    hours, minutes = divmod(job.time_limit_minutes, 60)
    options = [
        f"--job-name={job.name}",
        f"--nodes={job.num_nodes}",
        "--ntasks-per-node=1",
        f"--time={hours:02d}:{minutes:02d}:00",
        f"--signal=TERM@{WARNING_S}",
        "--requeue",
        f"--output={job.name}-%j.log",
    ]
    if gpus_per_node:
        options.append(f"--gpus-per-node={gpus_per_node}")
    command = shlex.join(torchrun_command(job, rendezvous="RENDEZVOUS"))
    command = command.replace("RENDEZVOUS", f'"$head":{PORT}')
    lines = [
        "#!/usr/bin/env bash",
        *(f"#SBATCH {option}" for option in options),
        "set -euo pipefail",
    ]
    if job.num_nodes > 1:
        lines.append('head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)')
    return "\n".join([*lines, f"srun {command}"]) + "\n"
