"""What a kernel of JupyterLab says below an error, with the settings of `make lab`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from traitlets.config import Config

SETTINGS = Path(__file__).parents[1] / ".jupyter" / "jupyter_server_config.json"


@pytest.fixture(scope="module")
def say() -> Iterator[Callable[[str], list[str]]]:
    """Run code in a kernel, interrupt it where it prints "interrupt me", and give all else that it printed."""
    specs = KernelSpecManager(config=Config(json.loads(SETTINGS.read_text())))
    manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs)
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=300)

    def say(code: str) -> list[str]:
        said: list[str] = []

        def heard(message: dict[str, Any]) -> None:
            words = message["content"].get("text", "")
            if "interrupt me" in words:
                manager.interrupt_kernel()
            elif words:
                said.append(words)

        client.execute_interactive(code, output_hook=heard, timeout=300)
        return said

    yield say
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize(
    ("code", "step"),
    [
        ("corpus.train", "an earlier cell makes corpus: choose Run > Run All Above Selected Cell"),
        ("print('interrupt me', flush=True); import time; time.sleep(300)", "go on from this cell choose Run >"),
    ],
)
def test_a_cell_out_of_order_or_interrupted_says_what_to_do_next(
    say: Callable[[str], list[str]], code: str, step: str
) -> None:
    assert step in "".join(say(code))


@pytest.mark.parametrize("code", ["1 / 0", "x = 1", "open('no such file')"])
def test_other_cells_say_nothing(say: Callable[[str], list[str]], code: str) -> None:
    assert say(code) == []
