"""What the machine is called."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor's name; Linux tells it nowhere else than in /proc."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
