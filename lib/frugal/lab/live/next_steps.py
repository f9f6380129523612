"""What to do next, said below an error in JupyterLab: `.jupyter/jupyter_server_config.json` names the kernels below."""

from typing import TYPE_CHECKING, Any

from jupyter_client.kernelspec import KernelSpec

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

ALL_ABOVE, ALL_BELOW = "Run > Run All Above Selected Cell", "Run > Run Selected Cell and All Below"


class GuidedKernel(KernelSpec):
    """A kernel as it is installed; a Python one loads this module as an extension of IPython."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        if "ipykernel_launcher" in self.argv:
            self.argv = [*self.argv, "--ext", __name__]


def load_ipython_extension(shell: "InteractiveShell") -> None:
    shell.events.register("post_run_cell", say_next_step)


def say_next_step(result: "ExecutionResult") -> None:
    step = next_step(result.error_in_exec)
    if step is not None:
        print(step)


def next_step(error: BaseException | None) -> str | None:
    """A sentence for a cell that was run out of order or interrupted; None for other errors, and for none.

    Example:
        >>> next_step(NameError("name 'corpus' is not defined", name="corpus"))
        'If an earlier cell makes corpus: choose Run > Run All Above Selected Cell, then run this cell again.'
    """
    if isinstance(error, NameError):
        return f"If an earlier cell makes {error.name}: choose {ALL_ABOVE}, then run this cell again."
    if isinstance(error, KeyboardInterrupt):
        return f"Interrupted. To go on from this cell choose {ALL_BELOW}."
    return None
