"""What the fork server of `frugal.lab.run.warm` does before it forks, and what its forks do to be kernels.

The server has done a notebook's first imports. It says so where a kernel forked from it might differ from a fresh one:
the imports fail, print something (it would be missing in the notebook), start threads that do not survive a fork, or
touch CUDA, which a forked process cannot use then.
"""

import atexit
import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from importlib import import_module
from multiprocessing.connection import Connection
from typing import IO, Any

from ipykernel.compiler import XCachingCompiler
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell
from ipykernel_launcher import __file__ as LAUNCHER  # type: ignore[import-untyped]
from IPython.core.application import BaseIPythonApplication

VARIABLE = "FRUGAL_PRELOAD"  # tells the fork server the imports and the kernels' options, as JSON
MOST_SECONDS = 300  # that the imports may take


class Current:
    """What sys.stdout or sys.stderr is at the moment, for modules that keep the one they find when imported."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        stream = getattr(sys, self.name)
        return getattr(getattr(sys, f"__{self.name}__") if stream is self else stream, attribute)


class PreparedKernel(IPKernelApp):
    """A kernel whose shell is made before the fork, since modules may look for one when they are imported."""

    problem: str | None = "the fork server is not prepared"

    def prepare(self, imports: list[str], options: list[str]) -> None:
        """Do all that does not differ from kernel to kernel."""
        signal.alarm(MOST_SECONDS)  # ends this process
        self.environment = dict(os.environ)
        sys.path[:] = path_of_a_fresh_interpreter()
        with tempfile.TemporaryFile() as printed, open(os.devnull, "wb") as nowhere:
            write_to(nowhere)
            try:
                self.make_shell(options)
                sys.stdout, sys.stderr = Current("stdout"), Current("stderr")
                write_to(printed)
                names: dict[str, Any] = {"__name__": "__main__"}
                for statement in imports:
                    exec(statement, names)
                self.problem = None
            except BaseException as error:
                self.problem = f"the imports failed: {error!r}"
            sys.stdout.flush()
            sys.stderr.flush()
            if os.fstat(printed.fileno()).st_size:
                self.problem = self.problem or "the imports print something"
            write_to(nowhere)
        self.path = list(sys.path)
        self.problem = self.problem or problem_with_fork()
        gc.collect()
        gc.freeze()  # what is never looked at by the collector need not be copied for a kernel
        signal.alarm(0)

    def make_shell(self, options: list[str]) -> None:
        BaseIPythonApplication.initialize(self, options)
        import_module("ipykernel.debugger")  # by every kernel when it starts
        self.init_path()
        # What ipykernel sets before a notebook's first import.
        os.environ["MPLBACKEND"] = os.environ.get("MPLBACKEND") or "module://matplotlib_inline.backend_inline"
        ZMQInteractiveShell.instance(parent=self, profile_dir=self.profile_dir, compiler_class=XCachingCompiler)

    def init_shell(self) -> None:
        super().init_shell()
        self.shell.kernel = self.shell.parent = self.kernel  # type: ignore[union-attr]  # as if it had made it

    def run(self, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
        """Be the kernel that these arguments would have started in this folder and environment."""
        os.chdir(folder)
        # The imports and the kernel's own modules may have set variables, which every kernel finds.
        for name in self.environment.keys() | environment.keys():
            if name not in environment:
                os.environ.pop(name, None)
            elif environment[name] != self.environment.get(name):
                os.environ[name] = environment[name]
        sys.path[:], sys.argv = self.path, [LAUNCHER, *arguments]
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        if "numpy" in sys.modules:  # it has seeded itself in the server; Python's own generator does so at every fork
            sys.modules["numpy"].random.seed()
        self.parent_handle = 0  # no polling for the parent's end: `end_with_worker` waits for it
        self.initialize(arguments)
        self.start()


def path_of_a_fresh_interpreter() -> list[str]:
    """`sys.path` as a kernel finds it; multiprocessing hands on that of its parent."""
    command = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path[1:]))"]
    found: list[str] = json.loads(subprocess.check_output(command, stdin=subprocess.DEVNULL))
    return found


def write_to(file: IO[bytes]) -> None:
    """Send what this process prints to a file."""
    for number in (1, 2):
        os.dup2(file.fileno(), number)


def problem_with_fork() -> str | None:
    """Why kernels forked from this process would not work, if so."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "the imports touch CUDA"
    pid = os.fork()  # threads that can be forked with, such as OpenBLAS's, end themselves just before
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "the imports start threads" if len(os.listdir("/proc/self/task")) > 1 else None


def tell_problem(channel: Connection) -> None:
    """In a fork: tell the worker why it must not fork kernels, if so."""
    channel.send(PreparedKernel.instance().problem)


def become_kernel(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """In a fork: be a kernel, to its end."""
    os.setsid()
    threading.Thread(target=end_with_worker, daemon=True).start()
    PreparedKernel.instance().run(arguments, folder, environment)
    atexit._run_exitfuncs()  # multiprocessing leaves them out


def end_with_worker() -> None:
    """End this kernel and what it has started when the worker is gone."""
    worker = multiprocessing.parent_process()
    assert worker is not None
    worker.join()
    os.killpg(0, signal.SIGKILL)


if VARIABLE in os.environ:
    PreparedKernel.instance().prepare(*json.loads(os.environ.pop(VARIABLE)))
