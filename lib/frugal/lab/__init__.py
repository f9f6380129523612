"""The lab: running notebooks, recording their results, reading them again.

These are the names that notebooks use. What needs matplotlib is imported when it is first used, so that
`import frugal.lab` costs next to nothing.
"""

from typing import Any

from frugal.lab.pages.latest_runs import kept_results, latest_records
from frugal.lab.pages.records import read_records, record
from frugal.lab.run.progress import report_progress
from frugal.lab.run.timing import median_seconds

__all__ = [
    "COLOURS",
    "bars",
    "chat_widget",
    "draw_boxes",
    "draw_differences",
    "explore",
    "kept_results",
    "latest_records",
    "median_seconds",
    "model_called",
    "read_records",
    "record",
    "report_progress",
    "show",
    "use_style",
]


def __getattr__(name: str) -> Any:
    match name:
        case "COLOURS" | "bars" | "draw_boxes" | "draw_differences" | "show" | "use_style":
            from frugal.lab.pages import figures

            return getattr(figures, name)
        case "explore":
            from frugal.lab.live.widgets import explore

            return explore
        case "chat_widget":
            from frugal.lab.live.conversation import chat_widget

            return chat_widget
        case "model_called":
            from frugal.lab.live.terminal import model_called

            return model_called
    raise AttributeError(f"module 'frugal.lab' has no attribute {name!r}")
