"""The lab: running notebooks, recording their results, reading them again.

The names are looked up when they are first used, so that `import frugal.lab` costs nothing.
"""

from importlib import import_module
from typing import Any

HOMES = {
    "record": "recording",
    "read_records": "recording",
    "latest_records": "latest",
    "show": "figures",
    "use_style": "figures",
    "COLOURS": "figures",
    "explore": "widgets",
    "chat_widget": "chat",
    "median_seconds": "timing",
    "report_progress": "progress",
}

__all__ = [
    "COLOURS",
    "chat_widget",
    "explore",
    "latest_records",
    "median_seconds",
    "read_records",
    "record",
    "report_progress",
    "show",
    "use_style",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'frugal.lab' has no attribute {name!r}")
    return getattr(import_module(f"frugal.lab.{HOMES[name]}"), name)
