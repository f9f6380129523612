"""A sweep through a SLURM of one node, where its programs are."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "slurm.py"


@pytest.mark.skipif(
    os.getuid() != 0 or not all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch"))),
    reason="needs root and Debian's slurm-wlm and munge",
)
def test_a_sweep_through_slurm_survives_a_cancelled_job_a_dead_driver_and_a_drained_node() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--keep-nothing"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
