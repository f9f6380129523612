"""Sliders while somebody is looking, one static figure when nobody is."""

import html
import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from frugal.errors import InputError
from frugal.lab.pages.figures import figure_html, figure_output, show

if TYPE_CHECKING:
    from ipywidgets import Widget
    from matplotlib.figure import Figure

# What `show` takes: a figure, its caption and its alt text.
Draw = Callable[..., "tuple[Figure, str, str]"]
Control = tuple[float, ...] | list[Any] | type[bool]

FLOAT_STEPS = 50  # of a slider that was given no step
KEPT_PICTURES = 200  # of an explorer, some tens of kilobytes each


def explore(function: Draw, **controls: Control) -> None:
    """Draw a figure whose parameters can be changed by hand.

    In JupyterLab the controls stand above the figure, which follows them. In a headless run (papermill, `frugal run`,
    nbconvert) the figure is shown once for the default values, and its caption says what the controls were.

    Args:
        function: returns `(figure, caption, alt)`, always the same for the same arguments: what was drawn once is not
            drawn again. The defaults of its arguments are where the controls start.
        controls: for an argument of the function, a range `(lowest, highest)` or `(lowest, highest, step)` of integers
            or floats, a list of choices, or `bool` for a tick box.

    Raises:
        InputError: a control names no argument of the function, has no default to start from or not within its range,
            or is none of the above.

    Example:
        >>> from matplotlib import pyplot
        >>> def draw(power=2):
        ...     figure, axis = pyplot.subplots()
        ...     axis.plot([x**power for x in range(9)])
        ...     return figure, f"The first powers of degree {power}.", "A rising curve."
        >>> explore(draw, power=(1, 4))  # headless: one figure, with the controls named in its caption
        {'text/html': '<figure ...The first powers of degree 2. In JupyterLab this figure has controls: power...
    """
    start = {name: _default(function, name, control) for name, control in controls.items()}
    if not is_interactive():
        figure, caption, alt = function(**start)
        show(figure, " ".join([caption, *_described(controls, start)]), alt)
        return
    _explore_live(function, controls, start)


def is_interactive() -> bool:
    """Whether the cell being run was sent by a front end such as JupyterLab, where widgets can be used.

    Front ends name the cell in their request; papermill, nbconvert and other headless clients have no cell to name.
    """
    from IPython.core.getipython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and "cellId" in kernel.get_parent("shell").get("metadata", {})


def _explore_live(function: Draw, controls: dict[str, Control], start: dict[str, Any]) -> None:
    import ipywidgets
    import matplotlib.pyplot as plt
    from IPython.display import display

    data, metadata = figure_output(*function(**start))
    # The picture is the text of a widget, not an Output widget: those can stall headless clients.
    picture = ipywidgets.HTML(data["text/html"])
    inputs = {name: _input(name, control, start[name]) for name, control in controls.items()}

    @lru_cache(maxsize=KEPT_PICTURES)  # a slider is moved to and fro
    def drawn(*values: Any) -> str:
        figure, caption, alt = function(**dict(zip(inputs, values, strict=True)))
        html_of_figure = figure_html(figure, caption, alt)
        plt.close(figure)
        return html_of_figure

    def redraw(_change: Any) -> None:
        try:
            picture.value = drawn(*(widget.value for widget in inputs.values()))
        except Exception as error:  # nothing else would show it to the user
            picture.value = f"<pre>{html.escape(f'{type(error).__name__}: {error}')}</pre>"

    for widget in inputs.values():
        widget.observe(redraw, names="value")
    box = ipywidgets.VBox([*inputs.values(), picture])
    # The figure stays beside the widgets for readers of the saved notebook.
    display({**data, **box._repr_mimebundle_(), "text/html": data["text/html"]}, metadata=metadata, raw=True)


def _default(function: Draw, name: str, control: Control) -> Any:
    parameter = inspect.signature(function).parameters.get(name)
    if parameter is None:
        raise InputError(f"{name}={control!r}: {function.__name__} has no such argument; name a control after one")
    default = parameter.default
    if default is inspect.Parameter.empty:
        raise InputError(f"{name} has no default in {function.__name__}: give it one, the figure starts from it")
    if not _fits(control, default):
        raise InputError(f"{name}={control!r}: does not contain the default, {default!r}; expected {EXPECTED}")
    return default


EXPECTED = "(lowest, highest), (lowest, highest, step), a list of choices, or bool"


def _fits(control: Control, value: Any) -> bool:
    if control is bool:
        return isinstance(value, bool)
    if isinstance(control, list):
        return value in control
    if not isinstance(control, tuple) or len(control) not in (2, 3):
        return False
    numbers = [*control, value]
    return all(isinstance(number, int | float) for number in numbers) and control[0] <= value <= control[1]


def _input(name: str, control: Control, value: Any) -> "Widget":
    import ipywidgets

    description = name.replace("_", " ")
    options: dict[str, Any] = {"value": value, "description": description, "style": {"description_width": "initial"}}
    if control is bool:
        return ipywidgets.Checkbox(indent=False, **options)
    if isinstance(control, list):
        return ipywidgets.Dropdown(options=control, **options)
    assert isinstance(control, tuple)
    lowest, highest, *step = control
    if all(isinstance(number, int) for number in (*control, value)):
        return ipywidgets.IntSlider(min=lowest, max=highest, step=step[0] if step else 1, **options)
    step = step or [(highest - lowest) / FLOAT_STEPS]
    return ipywidgets.FloatSlider(min=lowest, max=highest, step=step[0], readout_format=".3g", **options)


def _described(controls: dict[str, Control], start: dict[str, Any]) -> list[str]:
    """One sentence that names the controls, for the caption of the static figure."""
    if not controls:
        return []
    parts = []
    for name, control in controls.items():
        if control is bool:
            reach = "on or off"
        elif isinstance(control, list):
            reach = f"one of {', '.join(map(str, control))}"
        else:
            reach = f"from {control[0]:g} to {control[1]:g}"
        parts.append(f"{name} {reach} (here {start[name]})")
    return [f"In JupyterLab this figure has controls: {'; '.join(parts)}."]
