"""A papermill engine that does not hang and tells the truth about a run.

It differs from papermill's own in this:

- The client looks at the shell channel once a second. Papermill's waits without limit, and when a notebook uses
  an Output widget, which sends on the same socket, its wake-up is sometimes lost: the run then never ends.
- Kernels are reached through files in a private folder, not through ports that runs started together compete for.
- A notebook's kernel is the one that it names; `python3`, or no name, is this interpreter, whatever kernels are
  installed. A kernel is ended with all processes of its group.
- A kernel computes with one thread unless the environment says otherwise; see `frugal.lab.run.threads`.
- A limit holds for the whole run. Papermill's holds for each cell.
- A cell is "completed" only if it ran to its end; papermill says so of all cells when the kernel dies.
- The notebook file is replaced whole at every save.
- No output is dropped, however fast it comes: ZeroMQ's limits on waiting messages are lifted at both ends.
"""

import contextlib
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from subprocess import DEVNULL
from time import monotonic
from typing import Any

import nbformat
import psutil
import zmq
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.client import KernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager
from papermill.log import logger
from traitlets import Type

from frugal.files import write_text
from frugal.lab.run.doing import Doing
from frugal.lab.run.execution import OWN_KERNEL
from frugal.lab.run.threads import kernel_environment
from frugal.lab.run.warm import OPTIONS, ForkingProvisioner, ForkServer, server_for

DISPLAYS = ("display_data", "execute_result", "update_display_data")
POLL_SECONDS = 1.0
BEAT_SECONDS = 10.0  # after which a run says again what it is doing, so that a silent one is known to be dead
GRACE_SECONDS = 10.0  # between asking a kernel that is over its limit to stop and killing it
OUTPUT_SECONDS = 60  # for a cell's last outputs to arrive after its end; nbclient's 4 are few on a busy machine


Tell = Callable[[dict[str, Any]], None]  # takes what `Doing` knows


class RunTimeoutError(TimeoutError):
    """The run as a whole took longer than it was allowed to."""


class NotebookExit(Exception):
    """A cell called `exit()`."""


class PollingChannel(AsyncZMQSocketChannel):
    """Waits in slices, so that a lost wake-up costs one slice and not the run."""

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
        deadline = math.inf if timeout is None else monotonic() + timeout
        while True:
            remaining = max(0.0, deadline - monotonic())
            try:
                return await super().get_msg(min(POLL_SECONDS, remaining))
            except Empty:
                if remaining <= POLL_SECONDS:
                    raise


class PollingClient(AsyncKernelClient):
    shell_channel_class = Type(PollingChannel)

    def connect_iopub(self, identity: bytes | None = None) -> Any:
        socket = super().connect_iopub(identity)
        socket.setsockopt(zmq.RCVHWM, 0)  # no limit, beyond which outputs would be dropped
        return socket


# The same at the kernel's end, in the thread that sends: what waits there was dropped beyond a thousand messages.
KEEP_ALL_OUTPUT = f"""\
(lambda thread: thread.schedule(lambda: thread.socket.setsockopt({zmq.SNDHWM:d}, 0)))(get_ipython().kernel.iopub_thread)
"""


class ThisInterpreter(AsyncKernelManager):
    """Manages a kernel of the running interpreter."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", *OPTIONS]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


class KernelWatch(threading.Thread):
    """Notes the most memory a kernel and its children held, says what runs, and ends a kernel over its limit.

    At the limit the kernel gets an interrupt, so that the report shows the line that was running and the
    notebook can put things in order; what still runs `GRACE_SECONDS` later is killed.
    """

    def __init__(self, limit: float | None, doing: Doing, tell: Tell) -> None:
        super().__init__(name="kernel watch", daemon=True)
        self.doing, self.tell = doing, tell
        self.told: tuple[dict[str, Any], float] = ({}, 0.0)
        self.deadline = math.inf if limit is None else monotonic() + limit
        self.expired = False
        self.peak_memory = 0  # bytes
        self.pid: int | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            self.peak_memory = max(self.peak_memory, memory_held(self.pid))
            self.say()
            if monotonic() > self.deadline + GRACE_SECONDS:
                self.signal_group(signal.SIGKILL)
            elif monotonic() > self.deadline and not self.expired:
                self.expired = True
                self.signal_group(signal.SIGINT)

    def say(self) -> None:
        """Tell what the run is doing, if it has changed or was told long ago."""
        facts = self.doing.facts()
        if facts != self.told[0] or monotonic() - self.told[1] > BEAT_SECONDS:
            self.told = facts, monotonic()
            with contextlib.suppress(OSError):  # a full disk ends the run where something is lost by it
                self.tell(facts)

    def end(self) -> None:
        """Stop watching, and kill what the kernel may have left running."""
        self.ended.set()
        if self.is_alive():
            self.join()
        self.signal_group(signal.SIGKILL)

    def signal_group(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)  # a kernel leads a group of its own, which bears its number


def memory_held(pid: int | None) -> int:
    """Resident bytes of a process and all its descendants; 0 if it is gone."""
    try:
        process = psutil.Process(pid)
        return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])
    except psutil.Error:
        return 0


class Client(PapermillNotebookClient):
    """Papermill's client with a kernel that is watched; see the head of this module."""

    def __init__(
        self,
        nb_man: NotebookExecutionManager,
        folder: Path,
        watch: KernelWatch,
        server: ForkServer | None,
        **settings: Any,
    ) -> None:
        super().__init__(nb_man, on_cell_executed=self.end_if_asked, **settings)
        self.connection_file = folder / "kernel.json"
        self.watch = watch
        self.server = server

    def create_kernel_manager(self) -> AsyncKernelManager:
        kind = ThisInterpreter if self.kernel_name == OWN_KERNEL else AsyncKernelManager
        self.km = kind(
            kernel_name=self.kernel_name,
            transport="ipc",
            connection_file=str(self.connection_file),
            client_class=f"{PollingClient.__module__}.{PollingClient.__name__}",
        )
        if self.server is not None and kind is ThisInterpreter:
            about = {"kernel_id": "warm", "kernel_spec": self.km.kernel_spec, "parent": self.km}
            self.km.provisioner = ForkingProvisioner(self.server, **about)
        return self.km

    async def async_start_new_kernel_client(self) -> KernelClient:
        client: KernelClient = await super().async_start_new_kernel_client()
        spec = self.km.kernel_spec
        if spec is not None and spec.language == "python":  # another than IPython's makes nothing of it
            client.execute(KEEP_ALL_OUTPUT, silent=True, store_history=False, stop_on_error=False)
        return client

    start_new_kernel_client = run_sync(async_start_new_kernel_client)

    def start_new_kernel(self, **settings: Any) -> None:
        # What cells print comes back in messages; here the kernel would only log its own interruption.
        super().start_new_kernel(stdout=DEVNULL, stderr=DEVNULL, env=kernel_environment(), **settings)
        provisioner: Any = self.km.provisioner
        self.watch.pid = provisioner.pid
        self.watch.start()

    def process_message(self, msg: dict[str, Any], *place: Any) -> nbformat.NotebookNode | None:
        if msg["msg_type"] in DISPLAYS:
            msg["content"]["data"] = as_kept(msg["content"]["data"])
        output = super().process_message(msg, *place)
        self.nb_man.doing.hear(msg, self.widget_state)
        return output

    def execute_cell(self, cell: nbformat.NotebookNode, cell_index: int, **settings: Any) -> nbformat.NotebookNode:
        try:
            executed = super().execute_cell(cell, cell_index, **settings)
            if self.watch.expired:  # the cell may have made something else of the interrupt
                raise RunTimeoutError
            return executed
        except DeadKernelError as error:
            self.nb_man.cell_exception(cell)
            provisioner: Any = self.km.provisioner
            raise DeadKernelError(f"the kernel {how_it_ended(provisioner.process.poll())}") from error
        except BaseException as error:
            self.nb_man.cell_exception(cell)
            if isinstance(error, KeyboardInterrupt):
                self.shutdown_kernel = "immediate"  # whoever stopped the run does not want to wait for it
            raise

    async def end_if_asked(self, cell: nbformat.NotebookNode, execute_reply: dict[str, Any], **_: Any) -> None:
        """`exit()` asks whoever runs the notebook to end it; `sys.exit()` raises an error by itself."""
        if any(each.get("source") == "ask_exit" for each in execute_reply["content"].get("payload", [])):
            cell.outputs.append(new_output("error", ename="SystemExit", evalue="", traceback=["exit()"]))
            raise NotebookExit


def how_it_ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended by itself with exit code {code}"
    cause = ", most often for want of memory" if code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{cause}"


class Manager(NotebookExecutionManager):
    """Papermill's record of a run, kept truthful and saved atomically."""

    def __init__(self, nb: nbformat.NotebookNode, *settings: Any) -> None:
        super().__init__(nb, *settings)
        self.doing = Doing(nb)
        self.saved, self.cost = -math.inf, 0.0  # when the notebook was last saved, and how many seconds that took

    def cell_start(self, cell: nbformat.NotebookNode, cell_index: int | None = None, **settings: Any) -> None:
        self.doing.enter(cell)
        super().cell_start(cell, cell_index, **settings)

    def save(self, **_: Any) -> None:
        """Save at the beginning and end of cells, as long as saving takes no more than a tenth of the time."""
        if monotonic() - self.saved > 9 * self.cost:
            self.write()

    def write(self) -> None:
        begun = monotonic()
        if self.output_path:
            write_text(Path(self.output_path), nbformat.writes(self.nb))
        self.last_save_time = self.now()
        self.saved = monotonic()
        self.cost = self.saved - begun

    def notebook_complete(self, **_: Any) -> None:
        # Papermill's own also declares cells that never ran to be completed.
        self.end_time = self.now()
        self.nb.metadata.papermill["end_time"] = self.end_time.isoformat()
        self.nb.metadata.papermill["duration"] = (self.end_time - self.start_time).total_seconds()
        self.write()


class FrugalEngine(NBClientEngine):
    """The engine, known to papermill as `frugal`."""

    @classmethod
    def execute_notebook(
        cls,
        nb: nbformat.NotebookNode,
        kernel_name: str,
        output_path: str | None = None,
        progress_bar: bool | dict[str, Any] = True,
        log_output: bool = False,
        autosave_cell_every: int = 30,
        **settings: Any,
    ) -> nbformat.NotebookNode:
        """Run the notebook, changing it in place; see `execute_managed_notebook` for what is raised."""
        manager = Manager(nb, output_path, log_output, progress_bar, autosave_cell_every)
        manager.notebook_start()
        try:
            cls.execute_managed_notebook(manager, kernel_name, log_output=log_output, **settings)
        finally:
            manager.cleanup_pbar()
            manager.notebook_complete()
        return manager.nb

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: Any = None,
        stderr_file: Any = None,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        run_timeout: float | None = None,
        warm: bool = False,
        tell: Tell = lambda _: None,
        resources: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Run the cells until one fails, which its metadata then says.

        Args:
            run_timeout: seconds that the run as a whole may take.
            warm: whether the kernel may be forked from a process that has done the notebook's first imports, which
                this process keeps for its next runs; see `frugal.lab.run.warm`.
            tell: is told now and then, by another thread, what the run is doing. The other arguments are papermill's.

        Raises:
            RunTimeoutError: the run took longer.
            DeadKernelError: the kernel died.
            RuntimeError: the kernel did not start.
        """
        server = server_for(nb_man.nb) if warm else None
        watch = KernelWatch(run_timeout, nb_man.doing, tell)
        folder = Path(tempfile.mkdtemp(prefix="frugal-"))  # readable by this user only
        client = Client(
            nb_man,
            folder,
            watch,
            server,
            kernel_name=kernel_name,
            timeout=execution_timeout,
            startup_timeout=start_timeout,
            iopub_timeout=OUTPUT_SECONDS,
            resources={} if resources is None else resources,
            log=logger,
            log_output=log_output,
            stdout_file=stdout_file,
            stderr_file=stderr_file,
        )
        try:
            client.execute()
        except (NotebookExit, RunTimeoutError):
            pass  # the cell says that it asked for the end, or `watch` that the time was over
        except RuntimeError:  # the kernel died, perhaps while it was starting
            if not watch.expired:
                raise
        finally:
            watch.end()
            client.set_widgets_metadata()  # what they showed last is part of the report, however the run ended
            shutil.rmtree(folder, ignore_errors=True)
            nb_man.nb.metadata.papermill["peak_memory_mb"] = round(watch.peak_memory / 1e6)
        if watch.expired:
            raise RunTimeoutError(f"the run took longer than {run_timeout:.0f} seconds")


def as_kept(data: dict[str, Any]) -> dict[str, Any]:
    """An output's data as a notebook's file can hold it: text, but for types of JSON."""
    return {
        kind: value if kind.endswith("json") or isinstance(value, str) else json.dumps(value)
        for kind, value in data.items()
        if value is not None
    }
