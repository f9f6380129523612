"""What widgets last showed, from the states that a run leaves in its notebook: a page has nothing to move them with."""

from collections.abc import Callable
from html import escape
from typing import Any

from bs4 import BeautifulSoup
from nbformat import NotebookNode

STATES = "application/vnd.jupyter.widget-state+json"
REFERENCE = "IPY_MODEL_"  # before the number of a widget inside another one
States = dict[str, dict[str, Any]]


def widget_states(notebook: NotebookNode) -> States:
    """The states of the notebook's widgets by their numbers."""
    kept = notebook.metadata.get("widgets", {}).get(STATES, {}).get("state", {})
    return {number: {"_model_name": each.get("model_name"), **each.get("state", {})} for number, each in kept.items()}


def widget_html(states: States, number: str, show_output: Callable[[dict[str, Any]], str]) -> str:
    """A widget as HTML, nothing for what a page cannot show; `show_output` shows what an Output widget captured."""
    state = states.get(number, {})
    kind = str(state.get("_model_name", "")).removesuffix("Model")
    if "children" in state:
        inside = [widget_html(states, child.removeprefix(REFERENCE), show_output) for child in state["children"]]
        tag = "span" if kind == "HBox" else "div"
        return " ".join(f"<{tag}>{each}</{tag}>" for each in inside if each)
    if kind == "Output":
        return "".join(map(show_output, state.get("outputs", [])))
    if kind in ("HTML", "HTMLMath"):
        return str(state.get("value", ""))
    value = shown_value(state)
    label = escape(str(state.get("description") or ""))
    if kind.endswith("Progress"):
        return f'{label} <progress value="{value}" max="{escape(str(state.get("max", 100)))}"></progress>'
    return escape(value) if not label else f"{label}: {escape(value)}" if value else label


def widget_text(states: States, number: str) -> str:
    """A widget in words, as far as it consists of words."""
    page = BeautifulSoup(widget_html(states, number, lambda _: ""), "html.parser")
    return " ".join(page.get_text(" ").replace("\xa0", " ").split())


def box_around(states: States, number: str) -> str | None:
    """The number of the widget in which another one stands."""
    return next((box for box, state in states.items() if REFERENCE + number in state.get("children", [])), None)


def shown_value(state: dict[str, Any]) -> str:
    labels, index = state.get("_options_labels"), state.get("index")
    if labels and isinstance(index, int):
        return str(labels[index])
    value = state.get("value")
    return "" if value is None else escape(str(value), quote=True) if not isinstance(value, str) else value
