"""Helpers for tests that look at pages with Debian's Chromium and at notebooks in a running JupyterLab."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = Path(__file__).parents[1] / ".jupyter"
SECONDS = 300  # for what takes a few on an idle machine

# A notebook looks idle before its session exists; running it then opens a dialogue and waits for ever.
KERNEL_IS_READY = """async () => {
  const widget = window.jupyterapp.shell.currentWidget;
  if (!widget || !widget.sessionContext) return false;
  await widget.sessionContext.ready;
  return widget.sessionContext.session?.kernel?.status === 'idle';
}"""
RUN_ALL_CELLS = """() => {
  window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.hasRun = true; });
}"""
ERRORS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
  .flatMap((cell) => (cell.type === 'code' ? cell.outputs.toJSON() : []))
  .filter((output) => output.output_type === 'error')
  .map((output) => `${output.ename}: ${output.evalue}`)"""
SHUT_DOWN = "async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser; the caller has checked that CHROMIUM is there."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@contextlib.contextmanager
def jupyter_lab(folder: Path) -> Iterator[str]:
    """A JupyterLab server for the notebooks in a folder, with the settings of `make lab`; yields its address."""
    own = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = dict(os.environ, **{name: str(folder / place) for name, place in own.items()})
    environment["JUPYTER_CONFIG_PATH"] = str(SETTINGS)
    port = _free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=test", "--LabApp.expose_app_in_browser=True"]
    command += [f"--ServerApp.root_dir={folder}"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/api/status?token=test", server)
            yield address
        finally:
            server.terminate()
            server.wait(timeout=SECONDS)


def lay_out(folder: Path) -> None:
    """Let JupyterLab's next page look as it does at the first `make lab`, whatever was open before."""
    shutil.copytree(SETTINGS / "workspaces", folder / "workspaces", dirs_exist_ok=True)


def run_all(page: Page, address: str, notebook: str, minutes: float) -> None:
    """Open a notebook in JupyterLab and run all its cells, to the end or to the first error."""
    page.set_default_timeout(SECONDS * 1000)
    page.goto(f"{address}/lab/tree/{notebook}?token=test")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function(KERNEL_IS_READY)
    page.evaluate(RUN_ALL_CELLS)
    page.wait_for_function("window.hasRun", timeout=minutes * 60_000)


def errors(page: Page) -> list[str]:
    """The errors in the outputs of the notebook that is open."""
    return list(page.evaluate(ERRORS))


def shut_down(page: Page) -> None:
    """End the kernel of the notebook that is open."""
    page.evaluate(SHUT_DOWN)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        assert server.poll() is None, "JupyterLab ended before it answered; see server.log"
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.25)
    raise TimeoutError(f"JupyterLab did not answer within {SECONDS} s")
