"""Kernels without the wait: forked from a process that has done the notebook's first imports.

Starting a kernel and importing the libraries takes longer than many a short run. Here one process per worker, the
nursery, does what all runs of a notebook begin with, and each run gets a fork of it. A run is still a process of its
own, and it begins with the state that its imports leave: only imports that stand before all other code are done ahead.
"""

import ast
import contextlib
import os
import signal
import sys
from multiprocessing import Pipe
from subprocess import DEVNULL, Popen
from typing import Any

from ipykernel_launcher import __file__ as LAUNCHER  # type: ignore[import-untyped]
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner
from nbformat import NotebookNode

from frugal.lab.run.progress import FOLDER_VARIABLE

OPTIONS = ["--HistoryManager.enabled=False"]  # no run writes its code to the user's history


def first_imports(notebook: NotebookNode) -> list[str]:
    """The import statements that come before all code but plain values, such as parameters."""
    found: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        try:
            statements = ast.parse(cell.source).body
        except SyntaxError:  # a magic, perhaps
            return found
        for statement in statements:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                found.append(ast.unparse(statement))
            elif not is_plain(statement):
                return found
    return found


def is_plain(statement: ast.stmt) -> bool:
    """Whether a statement is a literal or gives a name to one."""
    match statement:
        case (
            ast.Assign(targets=[ast.Name()], value=value) | ast.AnnAssign(target=ast.Name(), value=ast.expr() as value)
        ):
            pass
        case ast.Expr(value=value):
            pass
        case _:
            return False
    try:
        ast.literal_eval(value)
    except ValueError:
        return False
    return True


class Nursery:
    """The process that kernels are forked from, as this process sees it.

    Attributes:
        problem: why it cannot be used, as a sentence; None if it can.
    """

    def __init__(self, imports: list[str]) -> None:
        self.setting = (imports, os.getcwd(), surroundings())
        self.channel, theirs = Pipe()
        command = [sys.executable, "-m", "frugal.lab.run.nursery"]
        self.process = Popen(command, stdin=theirs.fileno(), stdout=DEVNULL, stderr=DEVNULL, start_new_session=True)
        theirs.close()
        self.ended: dict[int, int] = {}
        try:
            self.channel.send((imports, OPTIONS))
            self.problem: str | None = self.channel.recv()
        except (EOFError, OSError):
            self.problem = "it ended by itself"

    def start(self, arguments: list[str], folder: str, environment: dict[str, str]) -> int:
        """Have a kernel forked; gives its process number.

        Raises:
            EOFError, OSError: the nursery is gone.
        """
        self.channel.send({"arguments": arguments, "folder": folder, "environment": environment})
        while True:
            pid, code = self.channel.recv()
            if code is None:
                self.ended.pop(pid, None)  # of an earlier kernel: the system uses numbers again
                return int(pid)
            self.ended[pid] = code

    def exit_code(self, pid: int) -> int | None:
        """Of a kernel, None while it runs; negative is a signal's number. No kernel outlives its nursery."""
        try:
            while self.channel.poll():
                ended, code = self.channel.recv()
                self.ended[ended] = code
        except (EOFError, OSError):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            self.ended.setdefault(pid, -signal.SIGKILL)
        return self.ended.get(pid)

    def close(self) -> None:
        """End it, and with it what it has forked."""
        self.channel.close()
        self.process.wait()


class ForkedKernel:
    """For a kernel of a nursery what `subprocess.Popen` is for a child of this process, as far as it is used."""

    stdin = stdout = stderr = None

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.nursery, self.pid = nursery, pid

    def poll(self) -> int | None:
        return self.nursery.exit_code(self.pid)

    wait = poll  # it is only called once the kernel has ended

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class ForkingProvisioner(LocalProvisioner):
    """Gets kernels from a nursery; from the system, as any other, should the nursery be gone."""

    def __init__(self, nursery: Nursery, **settings: Any) -> None:
        super().__init__(**settings)
        self.nursery = nursery

    async def launch_kernel(self, cmd: list[str], **settings: Any) -> KernelConnectionInfo:
        folder, environment = settings["cwd"], settings["env"]
        try:
            self.pid = self.nursery.start([LAUNCHER, *cmd[3:]], folder, environment)
        except (EOFError, OSError):
            return await super().launch_kernel(cmd, **settings)
        self.process: Any = ForkedKernel(self.nursery, self.pid)
        self.pgid, self.cwd = self.pid, folder
        return self.connection_info


_kept: Nursery | None = None


def nursery_for(notebook: NotebookNode) -> Nursery | None:
    """This process's nursery for the notebook, started if need be and kept for the next run; None if it cannot be."""
    global _kept
    if sys.platform != "linux":  # elsewhere system libraries may not work after a fork
        return None
    setting = (first_imports(notebook), os.getcwd(), surroundings())
    if _kept is not None and (_kept.setting != setting or (not _kept.problem and _kept.process.poll() is not None)):
        _kept.close()
        _kept = None
    if _kept is None:
        _kept = Nursery(setting[0])
    return None if _kept.problem else _kept


def surroundings() -> dict[str, str]:
    """The environment, which imports may depend on, without what differs from run to run."""
    return {name: value for name, value in os.environ.items() if name != FOLDER_VARIABLE}
