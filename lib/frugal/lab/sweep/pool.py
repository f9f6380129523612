"""Workers: processes of this machine, or those that a site file asks a batch system for."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from frugal.errors import InputError
from frugal.interrupts import ends_at_once
from frugal.lab.run.threads import OPENMP, cores, kernel_environment
from frugal.training import check_fields

# Of a function and its arguments, which must be plain values, since they may travel to another machine.
Submit = Callable[..., "Future[Any]"]

# Batch systems end what a job leaves behind. Here a pool that dies takes its group of processes with it, and so does
# the driver: a pool that is starting when the driver dies would wait for ever.
LOCAL = """
trap 'trap : TERM; kill 0' EXIT
(while kill -0 {driver}; do sleep 1; done; kill 0) 2>/dev/null &"""

# Ctrl-C reaches all processes of a terminal's foreground group. What stands between driver and workers is not to die
# of it before the driver has ended the workers.
UNINTERRUPTED = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]


@dataclass(frozen=True)
class Pool:
    """Workers: what submits a call to them, how many there are at most, and whether they can still be reached."""

    submit: Submit
    workers: int
    reachable: Callable[[], bool]


@dataclass(frozen=True)
class Site:
    """Where runs are carried out.

    Attributes:
        provider: a class of `parsl.providers`, such as LocalProvider, SlurmProvider or KubernetesProvider.
        options: its arguments, such as partition, walltime, max_blocks and worker_init.
        workers: at once per node; None for one per core.
        address: of this machine as the workers see it; None on this machine alone.
        ports: range that the workers' connections may use.
    """

    provider: str = "LocalProvider"
    options: dict[str, Any] = field(default_factory=dict)
    workers: int | None = None
    address: str | None = None
    ports: tuple[int, int] = (54000, 55000)

    def __post_init__(self) -> None:
        check_fields(self)


def read_site(path: Path) -> Site:
    """Read a site file: YAML with the entries of `Site`.

    Raises:
        InputError: it cannot be read, or an entry or the provider is unknown.
    """
    try:
        site = Site(**yaml.safe_load(path.read_text(encoding="utf-8")))
        _provider(site)
    except InputError:
        raise
    except Exception as error:  # whatever a wrong file, entry or option leads to
        raise InputError(f"{path}: is no site file ({error}); it needs provider and options, as docs say") from error
    return site


@contextlib.contextmanager
def worker_pool(site: Site, logs: Path) -> Iterator[Pool]:
    """Workers for as long as the context lasts; an interruption ends them at once, whatever they are doing.

    All that driver and workers send each other is encrypted and authenticated, on one machine as between several: it
    holds pickles, and whoever could send one could run code as this user.
    """
    with ends_at_once():
        import parsl
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor

        from frugal.lab.sweep import switchboard

    workers = cores() if site.workers is None else site.workers
    # Parsl starts its own programs by name, also where the environment is not activated.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    provider = _provider(site)
    executor = HighThroughputExecutor(
        label="runs",
        address=site.address or "127.0.0.1",
        worker_port_range=site.ports,
        max_workers_per_node=workers,
        cores_per_worker=1e-6,  # the number of workers decides, not the cores
        heartbeat_period=5,
        heartbeat_threshold=20,
        block_error_handler=False,  # a block that dies is replaced
        encrypted=True,
        interchange_launch_cmd=[*UNINTERRUPTED, sys.executable, "-m", switchboard.__name__, str(os.getpid())],
        provider=provider,
    )
    config = Config([executor], run_dir=str(logs), initialize_logging=False, strategy="simple", strategy_period=1)
    try:
        kernel = parsl.DataFlowKernel(config)
        try:
            yield Pool(
                lambda function, *arguments: parsl.python_app(function, data_flow_kernel=kernel)(*arguments),
                workers * provider.max_blocks * getattr(provider, "nodes_per_block", 1),
                lambda: _reachable(executor),
            )
        finally:
            if not isinstance(sys.exception(), KeyboardInterrupt):
                _end(kernel, executor)
    except KeyboardInterrupt:
        with uninterrupted():
            end_at_once(executor)
        raise


def _end(kernel: Any, executor: Any) -> None:
    if _reachable(executor):
        kernel.cleanup()
    else:
        executor.provider.cancel(list(executor.blocks_to_job_id.values()))


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a further Ctrl-C, or a batch system's signal, wait for what is done about the first."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def end_at_once(executor: Any) -> None:
    """End all blocks of workers and what stands before them, without asking Parsl, which might wait for an answer."""
    jobs = list(executor.provider.resources)
    if type(executor.provider).__name__ == "LocalProvider":
        for job in jobs:
            kill_tree(int(job))
    elif jobs:
        executor.provider.cancel(jobs)
    if executor.interchange_proc is not None:
        executor.interchange_proc.kill()
        executor.interchange_proc.wait()


def kill_tree(pid: int) -> None:
    """Kill a process and its descendants, which may be in groups of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        # Stopped first, a process can neither start another one nor take up one that was left alone.
        for _ in range(2):
            family = [top, *top.children(recursive=True)]
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.suspend()
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def _reachable(executor: Any) -> bool:
    """Whether the process between Parsl and the workers lives; without it Parsl would wait for ever."""
    return executor.interchange_proc is not None and executor.interchange_proc.poll() is None


def _provider(site: Site) -> Any:
    from parsl import providers

    kind = getattr(providers, site.provider, None)
    if kind is None:
        known = ", ".join(name for name in dir(providers) if name.endswith("Provider"))
        raise InputError(f"provider={site.provider!r}: must be one of {known}")
    settings = f"export {OPENMP}={kernel_environment()[OPENMP]}; {site.options.get('worker_init', '')}"
    if kind is providers.LocalProvider:
        settings += LOCAL.format(driver=os.getpid())
    return kind(**{"init_blocks": 1, "min_blocks": 1, "max_blocks": 1, **site.options, "worker_init": settings})
