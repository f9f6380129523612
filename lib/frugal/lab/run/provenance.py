"""Where a result comes from: the code's commit, the versions of what it stands on, the machine."""

import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from frugal.device import processor
from frugal.files import CHECKOUT
from frugal.lab.run.threads import OPENMP, cores, kernel_environment

PACKAGES = (
    "frugal",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "faiss-cpu",
    "papermill",
    "nbclient",
    "ipykernel",
)


def provenance() -> dict[str, Any]:
    """Of a run that starts now: `commit`, `clean`, `versions` and `machine`, all plain values for JSON.

    None stands for what cannot be told.
    """
    commit = answer("git", "-C", str(CHECKOUT), "rev-parse", "HEAD")
    changes = answer("git", "-C", str(CHECKOUT), "status", "--porcelain")
    return {
        "commit": commit,
        "clean": None if commit is None or changes is None else changes == "",
        "versions": versions(),
        "machine": machine(kernel_environment()),
    }


@cache  # reading them takes longer than a short notebook
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What there is to compute with; `threads` is $OMP_NUM_THREADS, None where the libraries choose.

    Example:
        >>> machine({"OMP_NUM_THREADS": "1"})["threads"]
        '1'
    """
    import psutil

    accelerators = answer("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or ""
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "accelerators": accelerators.splitlines(),
        "system": platform.platform(),
        "threads": environment.get(OPENMP),
    }


def answer(*command: str) -> str | None:
    """What a command prints, or None where it is missing, fails or does not answer within ten seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip()
