"""A chat in a notebook while somebody is looking, an example conversation when nobody is."""

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from frugal.lab.widgets import is_interactive

if TYPE_CHECKING:
    from ipywidgets import VBox

    from frugal.corpora import Turn
    from frugal.generate import ChatSession

NAMES = {"user": "You", "assistant": "Model"}


def chat_widget(session: "ChatSession", example: "Iterable[Turn]" = ()) -> None:
    """Show a conversation that can be continued by hand.

    In JupyterLab there are a transcript, a field for messages and buttons to send and to reset; interrupting the
    kernel stops an answer. In a headless run (papermill, `frugal run`, nbconvert) the example is shown instead.

    Args:
        session: the conversation; it goes on where it stands.
        example: turns to show where nobody can chat, such as the turns of another session.
    """
    from IPython.display import display

    example = tuple(example)
    static = {
        "text/html": f'<figure style="margin: 0.5em 0">{transcript(example)}'
        "<figcaption>In JupyterLab you can chat with the model here.</figcaption></figure>",
        "text/plain": "\n".join(f"{NAMES[turn.speaker]}: {turn.text}" for turn in example),
    }
    live = _live(session)._repr_mimebundle_() if is_interactive() else {}
    display({**live, **static}, raw=True)  # the example stays beside the widgets for readers of the saved notebook


def transcript(turns: "Iterable[Turn]") -> str:
    """Turns as HTML."""
    lines = "".join(
        f'<p style="white-space: pre-wrap; margin: 0.4em 0"><strong>{NAMES[turn.speaker]}:</strong> '
        f"{html.escape(turn.text)}</p>"
        for turn in turns
    )
    return f'<section aria-label="Conversation">{lines}</section>'


def _live(session: "ChatSession") -> "VBox":
    import ipywidgets

    from frugal.corpora import Turn

    # Text appears in the text of a widget, not in an Output widget: those can stall headless clients.
    conversation = ipywidgets.HTML(transcript(session.turns))
    problem = ipywidgets.HTML()
    message = ipywidgets.Text(description="Message", layout={"width": "auto", "flex": "1"})
    send = ipywidgets.Button(description="Send", button_style="primary")
    reset = ipywidgets.Button(description="Reset", tooltip="Forget the conversation")
    inputs = (message, send, reset)

    def answer(*_event: Any) -> None:
        text, message.value, problem.value = message.value, "", ""
        if not text.strip():
            return
        for each in inputs:
            each.disabled = True
        conversation.value = transcript([*session.turns, Turn("user", text)])
        try:
            for _ in session.reply(text):
                conversation.value = transcript(session.turns)
        except KeyboardInterrupt:  # the answer so far stays
            pass
        except Exception as error:  # nothing else would show it to the user
            problem.value = f'<p role="alert">{html.escape(f"{type(error).__name__}: {error}")}</p>'
        finally:
            conversation.value = transcript(session.turns)
            for each in inputs:
                each.disabled = False

    def forget(_button: Any) -> None:
        session.reset()
        conversation.value, problem.value = transcript(session.turns), ""

    def take_message(_widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("event") == "submit":  # the Enter key
            answer()

    send.on_click(answer)
    reset.on_click(forget)
    message.on_msg(take_message)
    return ipywidgets.VBox([conversation, problem, ipywidgets.HBox([message, send, reset])])
