from __future__ import annotations

import shutil
import subprocess

import pytest

from weft.core.errors import ConfigError
from weft.launch import slurm, torchrun
from weft.launch.job import Job


def test_several_nodes_meet_at_the_rendezvous() -> None:
    text = torchrun.render(Job(("train", "a b.toml"), num_nodes=2), rendezvous="node1:29400")
    assert "--nnodes=2" in text
    assert "--rdzv-endpoint=node1:29400" in text
    assert text.endswith("-m weft train 'a b.toml'")


def test_slurm_script_is_valid_shell_and_asks_for_a_warning() -> None:
    script = slurm.render(
        Job(("train", "a b.toml"), name="big", num_nodes=4, time_limit_minutes=150),
        gpus_per_node=8,
    )
    assert "#SBATCH --time=02:30:00" in script
    assert "#SBATCH --signal=TERM@120" in script
    assert "#SBATCH --gpus-per-node=8" in script
    assert '--rdzv-endpoint="$head":29400' in script
    bash = shutil.which("bash")
    if bash is not None:
        subprocess.run([bash, "-n"], input=script, text=True, check=True)


def test_impossible_jobs_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_nodes"):
        Job(("train",), num_nodes=0)
    with pytest.raises(ConfigError, match="no command"):
        Job(())
