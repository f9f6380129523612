"""A sweep through SLURM on this machine: do its points survive a cancelled job, a dead driver and a drained node?

    python benchmarks/slurm.py        three to five minutes; as root, with Debian's packages slurm-wlm and munge

Sets up a cluster of one node in a temporary folder: munged, slurmctld, slurmd and one partition, with
proctrack/linuxproc and task/none. A small notebook is swept over 16 points in two jobs of one core each, as
docs/cluster.md says. After four finished runs one job is cancelled, after eight the driver gets SIGKILL and is started
again at once, after twelve the node is drained and the jobs are cancelled, and ten seconds later the node resumes. At
the end every point has to be complete, right and done once, each in a job of SLURM's, and no job is left. Prints what
was found and, without --keep-nothing, writes it to benchmarks/results/slurm.json; the exit code is 1 if anything was
wrong.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from nbformat import write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from frugal.files import write_text
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.pages.records import read_records
from frugal.lab.run.provenance import provenance

RESULTS = Path(__file__).parent / "results" / "slurm.json"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
GRID: dict[str, list[float]] = {"x": [0.0, 1.0, 2.0, 3.0], "n": [1, 2, 3, 4]}
PARAMETERS = "x: float = 0.0  # where\nn: int = 1  # how many"
CODE = """\
import os
import time
from frugal.lab import record
time.sleep(2)
record(loss=10 * x + n, job=int(os.environ["SLURM_JOB_ID"]))"""
SLURM = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
JOBS = 2


def main() -> None:
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise SystemExit(f"{', '.join(missing)}: not found; install slurm-wlm and munge, and run this as root")
    keep = sys.argv[1:] != ["--keep-nothing"]
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)):
        found = disturbed_sweep(Path(folder))
    found = {"command": "python benchmarks/slurm.py", **provenance(), **found}
    print(json.dumps(found, indent=2))
    if keep:
        write_text(RESULTS, json.dumps(found, indent=2) + "\n")
    raise SystemExit(1 if found["faults"] else 0)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """SLURM's daemons, until the end; `sbatch` and its like find them by $SLURM_CONF."""
    key = folder / "munge.key-file"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    (folder / "state").mkdir()
    folder.chmod(0o755)  # munged wants its socket to be reached by all
    settings = SLURM.format(host=socket.gethostname().split(".")[0], folder=folder, ports=free_ports())
    (folder / "slurm.conf").write_text(settings)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    options = ("key-file", "socket", "pid-file", "seed-file", "log-file")
    munged = ["munged", "-F", "-f", *(f"--{option}={folder}/munge.{option}" for option in options)]
    with contextlib.ExitStack() as daemons:
        for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
            log = daemons.enter_context(open(folder / f"{command[0]}.log", "a"))
            daemon = daemons.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
            daemons.callback(daemon.terminate)
            time.sleep(2)
        wait_until("the node is idle", lambda: answer("sinfo", "-h", "-o", "%t") == "idle", 60)
        yield


def free_ports() -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        found = [open_sockets.enter_context(socket.socket()) for _ in range(2)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


def answer(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def wait_until(what: str, true: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise SystemExit(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.2)


def make_sweep(folder: Path) -> None:
    cells = [new_markdown_cell("# Toy"), new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    write(new_notebook(cells=[*cells, new_code_cell(CODE)]), folder / "toy.ipynb")
    sweep = {"notebook": "toy.ipynb", "search": GRID, "objective": {"record": "loss", "direction": "minimise"}}
    (folder / "toy.yaml").write_text(yaml.safe_dump(sweep))
    blocks = {"init_blocks": JOBS, "min_blocks": JOBS, "max_blocks": JOBS}
    activate = f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={os.pathsep.join(sys.path[1:])}"
    options = {"partition": "cpu", "walltime": "00:10:00", "cores_per_node": 1, "exclusive": False} | blocks
    site = {"provider": "SlurmProvider", "options": options | {"worker_init": activate}}
    (folder / "site.yaml").write_text(yaml.safe_dump(site | {"workers": 1, "address": "127.0.0.1"}))


def disturbed_sweep(folder: Path) -> dict[str, Any]:
    make_sweep(folder)
    begun, root, node = time.monotonic(), folder / "reports" / "sweeps" / "toy", socket.gethostname().split(".")[0]

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "from frugal.lab.live.cli import main; main()", "sweep", "toy.yaml"]
        with open(folder / "sweep.log", "a") as log:
            return subprocess.Popen(
                [*command, "--reports", "reports", "--site", "site.yaml"], cwd=folder, stdout=log, stderr=log
            )

    def finished() -> int:
        return len(list(root.glob("[0-9a-f]*/status.json")))

    driver = start()
    wait_until("4 runs are finished", lambda: finished() >= 4, 300)
    subprocess.run(["scancel", jobs()[0]], check=True)
    wait_until("8 runs are finished", lambda: finished() >= 8, 300)
    driver.kill()
    driver.wait()
    driver = start()
    wait_until("12 runs are finished", lambda: finished() >= 12, 300)
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=drain", "reason=check"], check=True)
    subprocess.run(["scancel", *jobs()], check=True)
    time.sleep(10)
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=True)
    faults = [] if driver.wait(600) == 0 else [f"the driver ended with {driver.returncode}"]
    if finished() < 16:
        faults += (folder / "sweep.log").read_text().splitlines()[-20:]
    until = time.monotonic() + 60
    while jobs() and time.monotonic() < until:
        time.sleep(0.5)
    faults += ["jobs are left"] if jobs() else []
    points, records = json.loads((root / "sweep.json").read_text())["points"], []
    for point in points:
        for name in point["runs"]:
            records.append(read_records(read_notebook(root / name / "notebook.ipynb")))
            if records[-1]["loss"] != 10 * point["values"]["x"] + point["values"]["n"]:
                faults.append(f"{name}: not what its parameters lead to")
    states = [point["state"] for point in points]
    faults += [] if states == ["complete"] * 16 else [f"states: {states}"]
    faults += [] if len(records) == 16 else [f"{len(records)} runs for 16 points"]
    return {
        "points": len(points), "jobs": len({record["job"] for record in records}), "cancelled": 1 + JOBS,
        "driver_kills": 1, "drained": 1, "seconds": round(time.monotonic() - begun), "faults": faults,
    }  # fmt: skip


def jobs() -> list[str]:
    """Numbers of the jobs that run or wait."""
    return answer("squeue", "-h", "-o", "%i").split()


if __name__ == "__main__":
    main()
