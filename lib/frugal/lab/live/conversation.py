"""A chat in a notebook while somebody is looking, an example conversation when nobody is."""

import html
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frugal.lab.live.widgets import is_interactive

if TYPE_CHECKING:
    from ipywidgets import VBox

    from frugal.corpora import Turn
    from frugal.generate import ChatSession

NAMES = {"user": "You", "assistant": "Model"}


def chat_widget(session: "ChatSession", example: "Iterable[Turn]" = ()) -> None:
    """Show a conversation that can be continued by hand.

    In JupyterLab there are a transcript, a field for messages, buttons to send and to reset, and below them how answers
    are chosen, a guide text with its weight, and a folder to save the conversation to or load it from; interrupting
    the kernel stops an answer. In a headless run (papermill, `frugal run`, nbconvert) the example is shown instead.

    Args:
        session: the conversation; it goes on where it stands.
        example: turns to show where nobody can chat, such as the turns of another session.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer, Turn
        >>> from frugal.generate import ChatSession
        >>> session = ChatSession(NGram(3, CharTokenizer.ascii()).fit(["hello"]))
        >>> chat_widget(session, example=[Turn("user", "hello")])  # headless: the example
        {'text/html': '<figure...', 'text/plain': 'You: hello'}
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


class _Settings:
    """Controls of how answers are chosen and of the guide text, which take effect with the next message."""

    def __init__(self, session: "ChatSession") -> None:
        import ipywidgets

        from frugal.combine import Guided

        model, guide, weight = session.model, "", 0.5
        if isinstance(model, Guided):
            guide, weight, model = model.tokenizer.decode(model.guide[1:]).strip(), model.weight, model.model
        self.model, self.guided_by = model, (guide, weight)
        self.temperature = ipywidgets.FloatSlider(description="Temperature", min=0, max=2, step=0.05)
        self.top_k = ipywidgets.IntSlider(description="Top k (0: all)", min=0, max=1000)
        self.top_p = ipywidgets.FloatSlider(description="Top p (1: all)", min=0.05, max=1, step=0.05)
        self.max_tokens = ipywidgets.IntSlider(description="Longest answer", min=1, max=1000)
        self.stop = ipywidgets.TagsInput(allow_duplicates=False)
        self.guide = ipywidgets.Text(description="Guide text", value=guide, layout={"width": "auto"})
        self.weight = ipywidgets.FloatSlider(description="Its weight", value=weight, min=0, max=1, step=0.05)
        self.show(session)
        sliders = (self.temperature, self.top_k, self.top_p, self.max_tokens)
        stop = ipywidgets.HBox([ipywidgets.Label("Stop strings"), self.stop])
        self.box = ipywidgets.VBox([*sliders, stop, self.guide, self.weight])
        for widget in (*sliders, self.guide, self.weight):
            widget.style = {"description_width": "initial"}

    def show(self, session: "ChatSession") -> None:
        """Set the controls to a session's sampling."""
        sampling = session.sampling
        self.temperature.value, self.max_tokens.value = sampling.temperature, sampling.max_tokens
        self.top_k.value, self.top_p.value = sampling.top_k or 0, sampling.top_p or 1.0
        self.stop.value = list(sampling.stop)

    def apply(self, session: "ChatSession") -> None:
        """Let a session answer as the controls say."""
        from frugal.combine import Guided

        session.sampling = replace(
            session.sampling,
            temperature=self.temperature.value,
            top_k=self.top_k.value or None,
            top_p=self.top_p.value if self.top_p.value < 1 else None,
            max_tokens=self.max_tokens.value,
            stop=tuple(self.stop.value),
        )
        guide, weight = wanted = (self.guide.value.strip(), self.weight.value)
        if wanted != self.guided_by:
            session.change_model(Guided(self.model, guide, weight=weight) if guide else self.model)
            self.guided_by = wanted


def _live(session: "ChatSession") -> "VBox":
    import ipywidgets

    from frugal.corpora import Turn
    from frugal.files import data_folder

    # Text appears in the text of a widget, not in an Output widget: those can stall headless clients.
    conversation = ipywidgets.HTML(transcript(session.turns))
    problem = ipywidgets.HTML()
    message = ipywidgets.Text(description="Message", layout={"width": "auto", "flex": "1"})
    send = ipywidgets.Button(description="Send", button_style="primary")
    reset = ipywidgets.Button(description="Reset", tooltip="Forget the conversation")
    settings = _Settings(session)
    folder = ipywidgets.Text(str(data_folder() / "conversation"), description="Folder", layout={"flex": "1"})
    save = ipywidgets.Button(description="Save", tooltip="Write the conversation to the folder")
    load = ipywidgets.Button(description="Load", tooltip="Go on with the conversation in the folder")
    inputs = (message, send, reset, save, load)

    def carry_out(action: Callable[[], None]) -> None:
        """Do what a button asks for; the transcript follows, and an error is shown beneath it."""
        problem.value = ""
        for each in inputs:
            each.disabled = True
        try:
            action()
        except KeyboardInterrupt:  # the answer so far stays
            pass
        except Exception as error:  # nothing else would show it to the user
            problem.value = f'<p role="alert">{html.escape(f"{type(error).__name__}: {error}")}</p>'
        finally:
            conversation.value = transcript(session.turns)
            for each in inputs:
                each.disabled = False

    def answer() -> None:
        text, message.value = message.value, ""
        if not text.strip():
            return
        settings.apply(session)
        conversation.value = transcript([*session.turns, Turn("user", text)])
        for _ in session.reply(text):
            conversation.value = transcript(session.turns)

    def take_up() -> None:
        nonlocal session
        session = type(session).load(Path(folder.value).expanduser(), session.model)
        settings.show(session)

    def keep() -> None:
        settings.apply(session)
        session.save(Path(folder.value).expanduser())

    def take_message(_widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("event") == "submit":  # the Enter key
            carry_out(answer)

    send.on_click(lambda _button: carry_out(answer))
    reset.on_click(lambda _button: carry_out(session.reset))
    save.on_click(lambda _button: carry_out(keep))
    load.on_click(lambda _button: carry_out(take_up))
    message.on_msg(take_message)
    talk, kept = ipywidgets.HBox([message, send, reset]), ipywidgets.HBox([folder, save, load])
    more = ipywidgets.Accordion([ipywidgets.VBox([settings.box, kept])], titles=("Settings",))
    return ipywidgets.VBox([conversation, problem, talk, more])
