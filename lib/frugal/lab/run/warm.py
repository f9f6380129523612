"""Kernels without the wait: forked from a process that has done the notebook's first imports.

Starting a kernel and importing the libraries takes longer than many a short run. Here one process per worker,
multiprocessing's fork server, does what all runs of a notebook begin with, and each run gets a fork of it. A run is
still a process of its own, and it begins with the state that its imports leave: only imports that stand before all
other code are done ahead.
"""

import ast
import json
import os
import signal
import sys
from functools import partialmethod
from multiprocessing import forkserver, get_context, set_forkserver_preload
from multiprocessing.context import ForkServerProcess
from types import ModuleType
from typing import Any

import psutil
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner
from nbformat import NotebookNode

from frugal.lab.run.progress import FOLDER_VARIABLE
from frugal.lab.run.threads import kernel_environment

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


class ForkServer:
    """The process that kernels are forked from, as this process, its worker, sees it.

    Attributes:
        problem: why it cannot be used, as a sentence; None if it can.
    """

    def __init__(self, imports: list[str], *setting: Any) -> None:
        self.imports, self.setting = imports, (imports, *setting)
        forkserver._forkserver._stop()  # type: ignore[attr-defined]  # one with other imports; there is no public word
        ours, theirs = get_context().Pipe(duplex=False)
        try:
            with ours, theirs:
                self.fork("tell_problem", theirs)
                theirs.close()
                self.problem: str | None = ours.recv()
        except (EOFError, OSError):
            self.problem = "it ended by itself"

    def fork(self, work: str, *arguments: Any) -> ForkServerProcess:
        """A fork that does a piece of work of `frugal.lab.run.preload`.

        Raises:
            EOFError, OSError: the server is gone, and a new one ends by itself.
        """
        from frugal.lab.run import preload

        process = get_context("forkserver").Process(target=getattr(preload, work), args=arguments)
        set_forkserver_preload([preload.__name__])
        ours = dict(os.environ)  # what follows is for a server that is yet to be started
        os.environ.update(kernel_environment(), **{preload.VARIABLE: json.dumps([self.imports, OPTIONS])})
        # Multiprocessing would import the script that this process runs into each fork: it shall find none.
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = script
            os.environ.clear()
            os.environ.update(ours)
        return process


class ForkedKernel:
    """For a forked kernel what `subprocess.Popen` is for a child of this process, as far as it is used."""

    stdin = stdout = stderr = None

    def __init__(self, process: ForkServerProcess) -> None:
        self.process, self.pid = process, int(process.pid or 0)

    def poll(self) -> int | None:
        """Exit code, None while it runs; negative is a signal's number. No kernel outlives its server."""
        code = self.process.exitcode
        if code == 255 and psutil.pid_exists(self.pid):  # multiprocessing's word for a server that is gone
            os.killpg(self.pid, signal.SIGKILL)
            return -signal.SIGKILL
        return code

    wait = poll  # it is only called once the kernel has ended

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    kill = partialmethod(send_signal, signal.SIGKILL)
    terminate = partialmethod(send_signal, signal.SIGTERM)


class ForkingProvisioner(LocalProvisioner):
    """Gets kernels from a fork server; from the system, as any other, should the server be gone."""

    def __init__(self, server: ForkServer, **settings: Any) -> None:
        super().__init__(**settings)
        self.server = server

    async def launch_kernel(self, cmd: list[str], **settings: Any) -> KernelConnectionInfo:
        try:
            options = cmd[3:]  # what follows `python -m ipykernel_launcher`
            forked = self.server.fork("become_kernel", options, settings["cwd"], settings["env"])
        except (EOFError, OSError):
            return await super().launch_kernel(cmd, **settings)
        self.process: Any = ForkedKernel(forked)
        self.pid = self.pgid = self.process.pid
        self.cwd = settings["cwd"]
        return self.connection_info


_server: ForkServer | None = None


def server_for(notebook: NotebookNode) -> ForkServer | None:
    """This process's fork server for the notebook, kept for its next run; None where kernels must not be forked."""
    global _server
    if sys.platform != "linux":  # elsewhere system libraries may not work after a fork
        return None
    setting = (first_imports(notebook), os.getcwd(), surroundings())
    if _server is None or _server.setting != setting:
        _server = ForkServer(*setting)
    return None if _server.problem else _server


def surroundings() -> dict[str, str]:
    """The environment, which imports may depend on, without what differs from run to run."""
    return {name: value for name, value in os.environ.items() if name != FOLDER_VARIABLE}
