"""A process that has done a notebook's first imports and forks a kernel for each run; `frugal.lab.run.warm` starts it.

It tells whether it is ready, then takes requests for kernels, and tells each kernel's number and later its exit code.
It ends with the process that started it, and its kernels end with it. It is not ready, and runs then go without it,
where a kernel forked from it might differ from a fresh one: the imports fail, print something (it would be missing in
the notebook), start threads that do not survive a fork, or touch CUDA, which a forked process cannot use then.
"""

import atexit
import gc
import os
import signal
import sys
import tempfile
from importlib import import_module
from multiprocessing.connection import Connection, wait
from typing import Any

from ipykernel.compiler import XCachingCompiler
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell

MOST_SECONDS = 300  # that the imports may take
TORCH_SEED = 67280421310721  # of every process, in versions of PyTorch that do not draw it
# What parts of this library import only when they are used: {part: imports}.
LATER = {
    "frugal.foundation": "from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache",
    "frugal.training": "from lightning.fabric import Fabric",
}


class Stream:
    """Stands for sys.stdout or sys.stderr, for modules that keep the one they find; a kernel puts its own behind it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Application(IPKernelApp):
    """A kernel whose shell is made before the fork, and all else after it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.streams = Stream(sys.__stdout__), Stream(sys.__stderr__)
        self.environment = dict(os.environ)

    def prepare(self, options: list[str]) -> None:
        """Read the configuration and make the shell, which modules may look for when they are imported."""
        super(IPKernelApp, self).initialize(options)
        import_module("ipykernel.debugger")  # by every kernel when it starts
        self.init_path()
        # What ipykernel sets before a notebook's first import.
        os.environ["MPLBACKEND"] = os.environ.get("MPLBACKEND") or "module://matplotlib_inline.backend_inline"
        ZMQInteractiveShell.instance(parent=self, profile_dir=self.profile_dir, compiler_class=XCachingCompiler)

    def parse_command_line(self, argv: Any = None) -> None:
        if not ZMQInteractiveShell.initialized():
            super().parse_command_line(argv)

    def load_config_file(self, suppress_errors: Any = None) -> None:  # type: ignore[override]
        if not ZMQInteractiveShell.initialized():
            super().load_config_file(suppress_errors)

    def init_io(self) -> None:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        super().init_io()
        for stream, current in zip(self.streams, (sys.stdout, sys.stderr), strict=True):
            stream.stream = current

    def init_shell(self) -> None:
        super().init_shell()
        self.shell.kernel = self.shell.parent = self.kernel  # type: ignore[union-attr]  # as if it had made it


def main() -> None:
    application = Application.instance()
    atexit.register(leave, application)  # the first to be registered is the last to be called
    channel = Connection(os.dup(0))
    imports, options = channel.recv()
    signal.alarm(MOST_SECONDS)  # ends this process
    problem = prepare(application, imports, options)
    signal.alarm(0)
    channel.send(problem)
    if problem is None:
        become_kernel(application, **next_kernel(channel))


def prepare(application: Application, imports: list[str], options: list[str]) -> str | None:
    """Do all that does not differ from kernel to kernel; gives why this process cannot be used, if so."""
    del sys.path[0]
    sys.stdout, sys.stderr = application.streams
    with tempfile.TemporaryFile() as printed, open(os.devnull, "r+b") as nowhere:
        os.dup2(nowhere.fileno(), 0)
        try:
            application.prepare(options)
            for number in (1, 2):
                os.dup2(printed.fileno(), number)
            run_imports(imports)
        except BaseException as error:
            return f"the imports failed: {error!r}"
        for stream in application.streams:
            stream.flush()
        if os.fstat(printed.fileno()).st_size:
            return "the imports print something"
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
    gc.collect()
    gc.freeze()  # what is never looked at by the collector need not be copied for a kernel
    return problem_with_fork()


def run_imports(imports: list[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for statement in imports:
        exec(statement, names)
    for part, later in LATER.items():
        if part in sys.modules:
            exec(later, names)


def problem_with_fork() -> str | None:
    """Why kernels forked from this process would not work, if so."""
    pid = os.fork()
    if pid == 0:
        torch = sys.modules.get("torch")
        os._exit(torch is not None and torch.cuda._is_in_bad_fork())
    if os.waitpid(pid, 0)[1]:
        return "the imports touch CUDA"
    # Threads that can be forked with, such as OpenBLAS's, have ended themselves just before the fork.
    return "the imports start threads" if len(os.listdir("/proc/self/task")) > 1 else None


def next_kernel(channel: Connection) -> dict[str, Any]:
    """Fork kernels as they are asked for and tell how they end; returns in the kernels alone, with what was asked."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: set[int] = set()
    while True:
        ready = wait([channel, woken])
        if woken in ready:
            os.read(woken, 4096)
            for pid in list(running):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    running.remove(pid)
                    channel.send((pid, os.waitstatus_to_exitcode(status)))
        if channel in ready:
            try:
                request: dict[str, Any] = channel.recv()
            except EOFError:
                sys.exit()
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(woken)
                os.close(wake)
                os.setsid()
                channel.send((os.getpid(), None))
                channel.close()
                return request
            running.add(pid)


def become_kernel(application: Application, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be the kernel that `arguments` would have started in this folder and environment."""
    os.chdir(folder)
    # The imports and the kernel's own modules may have set variables, which every kernel finds.
    for name in application.environment.keys() | environment.keys():
        if name not in environment:
            os.environ.pop(name, None)
        elif environment[name] != application.environment.get(name):
            os.environ[name] = environment[name]
    sys.argv = arguments
    draw_again()
    application.parent_handle = os.getppid()
    application.connection_file = arguments[arguments.index("-f") + 1]
    application.initialize()
    application.start()


def leave(application: Application) -> None:
    """End a kernel at once: what it shares with the nursery stays as it is, what the notebook made does not."""
    if os.getppid() == application.parent_handle:  # no process that the notebook has forked in its turn
        ZMQInteractiveShell.instance().user_ns.clear()
        gc.collect()
        os._exit(0)


def draw_again() -> None:
    """Seed what seeds itself from the system when it is imported; Python's own generator does it at every fork."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed()
    if torch is not None and torch.initial_seed() != TORCH_SEED:
        torch.default_generator.seed()


if __name__ == "__main__":
    main()
