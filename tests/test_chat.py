"""Conversations: the session, guide text, the terminal, the notebook's widget."""

import dataclasses
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from frugal.baselines import NGram
from frugal.combine import Guided
from frugal.corpora import CharTokenizer, Turn, dialogue_text
from frugal.errors import InputError, UnavailableError
from frugal.foundation import Foundation, PretrainedTokenizer
from frugal.generate import ChatSession, Sampling, stream
from frugal.lab.live import cli, terminal
from frugal.lab.live.conversation import _live, chat_widget, transcript
from frugal.language_model import LanguageModel
from models import EVERY_MODEL, ROUNDING, Recurrent, Uniform, byte_pairs, characters, echo_model, lstm, reservoir_model

GREEDY = Sampling(temperature=0, max_tokens=40)
SHORT = Sampling(max_tokens=12, seed=0)
TALK = [
    Turn("user", "hi"),
    Turn("assistant", "hello you"),
    Turn("user", "how are you?"),
    Turn("assistant", "fine:\nthanks"),
]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Watched(LanguageModel):
    """Another model, and how it was used: tokens read per feeding, logits after each."""

    def __init__(self, model: LanguageModel, interrupt_at: int | None = None) -> None:
        self.model, self.interrupt_at = model, interrupt_at
        self.tokenizer, self.vocabulary_size = model.tokenizer, model.vocabulary_size
        self.context_length = model.context_length
        self.fed: list[int] = []
        self.logits: list[Tensor] = []
        self.steps = 0

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        return self.model.log_probabilities(tokens)

    def start(self, batch_size: int) -> Any:
        return self.model.start(batch_size)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        self.steps += 1
        if self.steps == self.interrupt_at:
            raise KeyboardInterrupt
        return self.model.step(tokens, state)

    def feed(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = self.model.feed(tokens, state)
        self.fed.append(tokens.shape[1])
        self.logits.append(logits)
        return logits, state

    save = Uniform.save
    load = Uniform.load


def parrot() -> NGram:
    """Says what it has read, as long as nothing is ambiguous."""
    text = dialogue_text(TALK)
    return NGram(24, CharTokenizer.learn([text])).fit([text])


def random_llama(template: str | None = TEMPLATE, eos: str = "<|im_end|>") -> Foundation:
    """An untrained Llama with a chat template; <|im_end|> ends a turn."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = byte_pairs().tokenizer
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    pretrained = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|endoftext|>", eos_token=eos)
    pretrained.chat_template = template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(pretrained),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.5,
    )
    return Foundation(LlamaForCausalLM(config), PretrainedTokenizer(pretrained), name="random Llama")


@pytest.fixture(scope="module")
def llama() -> Foundation:
    return random_llama()


def say(session: ChatSession, text: str) -> str:
    return "".join(session.reply(text))


# The session


def test_an_answer_ends_at_the_next_turn_marker_and_may_have_several_lines() -> None:
    session = ChatSession(parrot(), sampling=GREEDY)
    assert say(session, "hi") == "hello you"
    assert say(session, "how are you?") == "fine:\nthanks"
    assert session.turns == tuple(TALK)


def test_the_model_reads_only_what_a_turn_adds() -> None:
    model = Watched(parrot())
    session = ChatSession(model, sampling=GREEDY)
    say(session, "hi")
    known = model.fed[0] + model.steps
    say(session, "how are you?")
    prompt = 1 + len(dialogue_text(TALK[:3]) + "<|assistant|>")
    assert model.fed[1] == prompt - known


@pytest.mark.filterwarnings("ignore:the conversation has grown")
@pytest.mark.parametrize("name", EVERY_MODEL)
def test_a_loaded_conversation_goes_on_as_the_original_would(name: str, tmp_path: Path) -> None:
    model = EVERY_MODEL[name]()
    original = ChatSession(Watched(model), sampling=SHORT)
    for text in ("the cat sat", "on a mat"):
        say(original, text)
    original.save(tmp_path)
    loaded = ChatSession.load(tmp_path, Watched(model))
    assert loaded.turns == original.turns
    assert say(loaded, "and the dog?") == say(original, "and the dog?")
    torch.testing.assert_close(loaded.model.logits[-1], original.model.logits[-1], rtol=0, atol=ROUNDING)


def test_another_model_reads_the_conversation_when_it_answers_next(tmp_path: Path) -> None:
    session = ChatSession(EVERY_MODEL["echo, residual"](), sampling=SHORT)
    say(session, "the cat sat")
    session.save(tmp_path)
    guided = Guided(session.model, "on a mat", weight=0.9)
    session.change_model(guided)
    assert say(session, "and the dog?") == say(ChatSession.load(tmp_path, guided), "and the dog?")


def test_the_echo_is_carried_from_turn_to_turn() -> None:
    model = Watched(EVERY_MODEL["echo, residual"]())
    session = ChatSession(model, sampling=SHORT)
    for text in ("the cat sat", "on a mat", "and the dog?"):
        say(session, text)
    whole = session._prompt([*session.turns[:-2], Turn("user", "and the dog?")])
    logits, _ = model.model.feed(whole.unsqueeze(0), model.model.start(1))
    assert model.fed[-1] < len(whole) / 2
    torch.testing.assert_close(model.logits[-1], logits, rtol=0, atol=ROUNDING)


def test_a_reply_that_nobody_iterates_further_stays_as_far_as_it_came(tmp_path: Path) -> None:
    session = ChatSession(parrot(), sampling=GREEDY)
    pieces = session.reply("hi")
    assert next(pieces) + next(pieces) == "he"
    session.save(tmp_path)
    assert session.turns == (Turn("user", "hi"), Turn("assistant", "he"))
    assert say(session, "how are you?") == say(ChatSession.load(tmp_path, parrot()), "how are you?")
    assert list(pieces) == []


@pytest.mark.parametrize("at", [1, 5])
def test_an_interrupt_in_the_middle_of_a_step_leaves_a_conversation(at: int, tmp_path: Path) -> None:
    session = ChatSession(Watched(Recurrent(characters()), interrupt_at=at), sampling=SHORT)
    with pytest.raises(KeyboardInterrupt):
        say(session, "the cat")
    assert [turn.speaker for turn in session.turns] == ["user", "assistant"]
    session.save(tmp_path)
    assert say(session, "a dog") == say(ChatSession.load(tmp_path, Recurrent(characters())), "a dog")


def test_reset_forgets_the_conversation_and_ends_an_open_reply() -> None:
    session = ChatSession(parrot(), sampling=GREEDY)
    say(session, "hi")
    pieces = session.reply("how are you?")
    next(pieces)
    session.reset()
    assert (list(pieces), session.turns) == ([], ())
    assert say(session, "hi") == "hello you"


def test_a_seed_gives_the_same_conversation_again_but_not_the_same_answer_each_turn() -> None:
    def talk() -> list[str]:
        session = ChatSession(Uniform(characters()), sampling=Sampling(seed=1, max_tokens=20))
        return [say(session, "the cat") for _ in range(2)]

    first = talk()
    assert first == talk()
    assert first[0] != first[1]


def test_stop_strings_end_an_answer_and_the_talk_goes_on(tmp_path: Path) -> None:
    session = ChatSession(parrot(), sampling=Sampling(temperature=0, stop=("o y",)))
    assert say(session, "hi") == "hell"
    session.save(tmp_path)
    assert say(session, "how are you?") == say(ChatSession.load(tmp_path, parrot()), "how are you?")


def test_the_consumer_of_a_stream_is_not_put_into_inference_mode() -> None:
    model = parrot()
    for pieces in (ChatSession(model, sampling=GREEDY).reply("hi"), stream(model, "<|user|>", GREEDY)):
        next(pieces)
        assert not torch.is_inference_mode_enabled()


def test_a_conversation_beyond_the_context_is_announced() -> None:
    with pytest.warns(UserWarning, match="beyond the model's context of 512 tokens"):
        say(ChatSession(random_llama(), sampling=SHORT), "the cat " * 300)


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_message_is_refused(text: str) -> None:
    session = ChatSession(parrot())
    with pytest.raises(InputError, match="empty"):
        session.reply(text)
    assert session.turns == ()


# Templates


def read_text(session: ChatSession) -> str:
    """All that the model has read, with special tokens."""
    return session.model.tokenizer.pretrained.decode(session._readings[0].tokens[0])  # type: ignore[attr-defined]


def test_the_template_of_the_model_is_used(llama: Foundation) -> None:
    session = ChatSession(llama, sampling=Sampling(max_tokens=1), system="be brief")
    say(session, "hi")
    expected = "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert read_text(session).startswith(expected)


def script(monkeypatch: pytest.MonkeyPatch, *tokens: int) -> None:
    """Let the model choose these tokens, one after the other."""
    said = iter(tokens)
    monkeypatch.setattr("frugal.generate.chat.chooser", lambda *_: lambda *_: torch.tensor([next(said)]))


def test_an_answer_ends_at_the_end_of_turn_token(llama: Foundation, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer: Any = llama.tokenizer
    script(monkeypatch, *[*tokenizer.encode("so\nbe it").tolist(), max(tokenizer.end_ids)] * 2)
    model = Watched(llama)
    session = ChatSession(model, sampling=GREEDY)
    assert say(session, "hi") == say(session, "hi") == "so\nbe it"
    assert model.fed[1] == len(tokenizer.encode("\nuser\nhi\nassistant\n")) + 4  # and four special tokens


def test_a_line_end_before_the_end_of_the_document_is_no_part_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parrot()
    script(monkeypatch, *model.tokenizer.encode("fine:\nthanks\n").tolist(), model.tokenizer.start_id)
    assert say(ChatSession(model), "hi") == "fine:\nthanks"


@pytest.mark.parametrize("model", [random_llama(None), echo_model()], ids=["llama", "echo"])
def test_without_a_template_markers_are_used_and_system_text_comes_first(model: LanguageModel) -> None:
    watched = Watched(model)
    say(ChatSession(watched, sampling=Sampling(max_tokens=1), system="be brief"), "hi")
    assert watched.fed == [1 + len(model.tokenizer.encode("be brief\n<|user|>hi\n<|assistant|>"))]


def test_markers_can_be_asked_for_in_spite_of_a_template(llama: Foundation) -> None:
    session = ChatSession(llama, sampling=Sampling(max_tokens=1), markers=True)
    say(session, "hi")
    assert read_text(session).startswith("<|endoftext|><|user|>hi\n<|assistant|>")


def test_a_template_that_changes_earlier_turns_is_read_again(tmp_path: Path) -> None:
    forgetful = TEMPLATE.replace("{{ message['content'] }}", "{{ message['content'][:loop.revindex * 3] }}")
    model = random_llama(forgetful)
    session = ChatSession(model, sampling=SHORT)
    for text in ("the cat sat on", "a mat and a log", "the dog"):
        say(session, text)
    session.save(tmp_path)
    assert say(session, "so?") == say(ChatSession.load(tmp_path, model), "so?")


def test_a_template_that_takes_no_system_text_says_so() -> None:
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
    session = ChatSession(random_llama(strict), system="be brief")
    with pytest.raises(InputError, match="no system role"):
        say(session, "hi")
    assert session.turns == ()


# Saved conversations


def test_saving_leaves_other_files_alone_and_keeps_all_settings(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("mine")
    sampling = Sampling(max_tokens=9, temperature=0.5, top_k=4, top_p=0.9, stop=("x", "y"), seed=3)
    session = ChatSession(parrot(), sampling=sampling, system="be brief", markers=True)
    say(session, "hi")
    session.save(tmp_path)
    loaded = ChatSession.load(tmp_path, parrot())
    assert (loaded.sampling, loaded.system, loaded.markers) == (sampling, "be brief", True)
    assert (tmp_path / "other.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("turns"),
        lambda content: content["turns"].pop(),
        lambda content: content["turns"].append(["user"]),
        lambda content: content["sampling"].update(temperature=-1),
        lambda content: content["sampling"].update(heat=1),
    ],
    ids=["no turns", "no answer", "half a turn", "impossible setting", "unknown setting"],
)
def test_a_damaged_conversation_is_refused(damage: Any, tmp_path: Path) -> None:
    session = ChatSession(parrot(), sampling=GREEDY)
    say(session, "hi")
    session.save(tmp_path)
    path = tmp_path / "conversation.json"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UnavailableError, match="no readable conversation"):
        ChatSession.load(tmp_path, parrot())


def test_a_folder_without_a_conversation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no readable conversation"):
        ChatSession.load(tmp_path / "none", parrot())


# Guide text


def some_tokens(model: LanguageModel) -> Tensor:
    start = torch.tensor([model.tokenizer.start_id])
    return torch.cat([start, model.tokenizer.encode("a cat")])[None, :6]


@pytest.mark.parametrize("name", ["5-gram over characters", "recurrent net", "echo, residual"])
def test_a_guided_model_scores_as_it_steps(name: str) -> None:
    model = Guided(EVERY_MODEL[name](), "the log", weight=0.4)
    tokens, rows = some_tokens(model), []
    state = model.start(1)
    for t in range(tokens.shape[1]):
        logits, state = model.step(tokens[:, t], state)
        rows.append(logits.log_softmax(-1))
    torch.testing.assert_close(torch.stack(rows, 1), model.log_probabilities(tokens), rtol=0, atol=ROUNDING)
    torch.testing.assert_close(model.log_probabilities(tokens).exp().sum(-1), torch.ones(tokens.shape))


def test_the_weight_leads_from_the_model_alone_to_the_model_after_the_guide() -> None:
    model = Recurrent(CharTokenizer("acet \n"))
    alone, half, guided = (
        Guided(model, "tea", weight=weight).log_probabilities(some_tokens(model)) for weight in (0, 0.5, 1)
    )
    torch.testing.assert_close(alone, model.log_probabilities(some_tokens(model)))
    start = torch.tensor([model.tokenizer.start_id])
    read = torch.cat([start, model.tokenizer.encode("tea\n\na cat")])[None]
    torch.testing.assert_close(guided, model.log_probabilities(read)[:, -6:])
    torch.testing.assert_close(half, ((alone + guided) / 2).log_softmax(-1))


def test_impossible_tokens_of_a_guided_model_stay_impossible() -> None:
    class Certain(Uniform):
        def log_probabilities(self, tokens: Tensor) -> Tensor:
            row = torch.full((self.vocabulary_size,), -torch.inf)
            row[0] = 0
            return row.expand(*tokens.shape, -1)

    model = Guided(Certain(characters()), "the cat", weight=1)
    assert (model.log_probabilities(some_tokens(model)).exp()[..., 0] == 1).all()


def test_a_guide_must_fit_into_the_context() -> None:
    with pytest.raises(InputError, match="shorten it"):
        Guided(random_llama(), "the cat " * 400)


@pytest.mark.parametrize("setting", [{"guide": " "}, {"weight": -0.1}, {"weight": 1.1}])
def test_impossible_guidance_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        Guided(parrot(), **{"guide": "hi", **setting})


# The terminal


@pytest.fixture
def parrot_folder(tmp_path: Path) -> Iterator[str]:
    handler = signal.getsignal(signal.SIGTERM)
    parrot().save(tmp_path / "parrot")
    yield str(tmp_path / "parrot")
    signal.signal(signal.SIGTERM, handler)


def frugal_chat(*words: object, typed: str = "") -> Result:
    return CliRunner().invoke(cli.main, ["chat", *map(str, words)], input=typed)


def test_lines_from_a_pipe_are_answered_until_its_end(parrot_folder: str) -> None:
    result = frugal_chat(parrot_folder, "--temperature", 0, typed="hi\n\nhow are you?\n")
    assert (result.stdout, result.exit_code) == ("hello you\nfine:\nthanks\n", 0)


@pytest.mark.parametrize("model", [lstm, reservoir_model])
def test_the_models_that_cooperate_can_chat(tmp_path: Path, model: Callable[[], LanguageModel]) -> None:
    model().save(tmp_path / "model")
    result = frugal_chat(tmp_path / "model", "--max-tokens", 9, "--seed", 0, typed="the cat\n")
    assert result.exit_code == 0
    assert len(result.stdout) > 1  # the answer, and the end of its line


def test_every_field_of_sampling_is_an_option_and_a_setting() -> None:
    told = frugal_chat("--help").stdout
    for field in dataclasses.fields(Sampling):
        assert f"--{field.name.replace('_', '-')} " in told
        value = "3" if field.name != "top_p" else "0.5"
        assert getattr(terminal.changed(GREEDY, field.name, value), field.name) != getattr(GREEDY, field.name)


def test_commands_are_obeyed(parrot_folder: str, tmp_path: Path) -> None:
    commands = ["/set temperature 0", "hi", f"/save {tmp_path}/a talk", "/reset", f"/load {tmp_path}/a talk"]
    result = frugal_chat(parrot_folder, typed="\n".join([*commands, "how are you?", "/help", "/quit", "hi"]))
    assert result.stdout == f"hello you\nfine:\nthanks\n{terminal.HELP}\n"
    assert "going on after 2 turns" in result.stderr


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("/sing", "/sing: is no command; /help lists them all"),
        ("/load", "/load: is no command"),
        ("/load /none", "/none holds no readable conversation"),
        ("/set heat 1", "heat: is no setting; there are max_tokens, temperature"),
        ("/set top_k many", "top_k='many': must be an integer"),
        ("/set top_p 3", "top_p=3.0: must be above 0"),
    ],
)
def test_a_bad_command_gives_one_sentence_and_the_talk_goes_on(parrot_folder: str, line: str, complaint: str) -> None:
    result = frugal_chat(parrot_folder, "--temperature", 0, typed=f"{line}\nhi\n")
    assert result.stdout == "hello you\n"
    assert f"frugal: error: {complaint}" in result.stderr
    assert result.stderr.count("frugal: error: ") == 1


def test_settings_are_changed_shown_and_set_back(parrot_folder: str) -> None:
    result = frugal_chat(parrot_folder, "--top-k", 5, typed="/set stop a b\n/set top_k none\n/set\n")
    assert {"max_tokens 200", "temperature 0.7", "top_k null", 'stop ["a b"]'} <= set(result.stdout.splitlines())


def test_a_conversation_is_saved_as_it_grows_and_gone_on_with(parrot_folder: str, tmp_path: Path) -> None:
    folder = tmp_path / "talk"
    frugal_chat(parrot_folder, "--temperature", 0, "--save", folder, typed="hi\n")
    result = frugal_chat(parrot_folder, "--load", folder, "--save", folder, typed="how are you?\n")
    assert result.stdout == "fine:\nthanks\n"
    assert ChatSession.load(folder, parrot()).turns == tuple(TALK)


def test_stopping_an_answer_keeps_the_session(capsys: pytest.CaptureFixture[str]) -> None:
    session = ChatSession(Watched(parrot(), interrupt_at=6), sampling=GREEDY)
    terminal.answer(session, "hi")
    assert capsys.readouterr().out == "hello  [stopped]\n"
    terminal.answer(session, "how are you?")
    assert capsys.readouterr().out == "fine:\nthanks\n"


@pytest.mark.parametrize("signal_raised", [EOFError, KeyboardInterrupt])
def test_an_interrupt_or_the_end_at_the_prompt_leaves(
    signal_raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(_prompt: str) -> str:
        raise signal_raised

    monkeypatch.setattr("builtins.input", leave)
    terminal.converse(ChatSession(parrot()))


def test_a_model_folder_of_another_program_and_a_guide(tmp_path: Path, parrot_folder: str) -> None:
    random_llama().save(tmp_path / "llama")
    result = frugal_chat(tmp_path / "llama", "--guide", "the cat", "--max-tokens", 5, "--seed", 1, typed="hi\n")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("\n")


def test_an_echo_model_is_known_by_its_class(tmp_path: Path) -> None:
    echo_model().save(tmp_path / "echo")
    assert type(terminal.model_called(str(tmp_path / "echo"))).__name__ == "EchoLanguageModel"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["{}/none"], "is neither a folder nor a hub id"),
        (["{}/strange"], "'Parrot' is no class of this library"),
        (["{}/parrot", "--temperature", "-1"], "temperature=-1.0: must not be negative"),
        (["{}/parrot", "--guide", "hi", "--guide-weight", "2"], "weight=2.0: must be from 0 to 1"),
        (["{}/parrot", "--load", "{}/none"], "none holds no readable conversation"),
        (["{}/parrot", "--load", "{}/none", "--system", "be brief"], "leave them out with --load"),
    ],
)
def test_bad_input_gives_one_sentence(parrot_folder: str, tmp_path: Path, words: list[str], complaint: str) -> None:
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "config.json").write_text('{"class": "Parrot"}')
    result = frugal_chat(*[word.format(tmp_path) for word in words], typed="hi\n")
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stdout == ""


# The widget


def test_a_headless_run_shows_the_example_and_no_widget(capture_display: list[dict[str, str]]) -> None:
    chat_widget(ChatSession(parrot()), example=[Turn("user", "1 < 2?"), Turn("assistant", "yes")])
    (shown,) = capture_display
    assert set(shown) == {"text/html", "text/plain"}
    assert "<strong>You:</strong> 1 &lt; 2?" in shown["text/html"]
    assert shown["text/plain"] == "You: 1 < 2?\nModel: yes"


@pytest.fixture
def capture_display(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    shown: list[dict[str, str]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    return shown


def widgets(session: ChatSession) -> tuple[Any, ...]:
    conversation, problem, row, _ = _live(session).children
    return (conversation, problem, *row.children)


def settings_of(box: Any) -> dict[str, Any]:
    """The controls of the widget's settings by what stands beside them."""
    controls, kept = box.children[3].children[0].children
    *named, stop, guide, weight = controls.children
    by_name = {each.description: each for each in (*named, guide, weight, *kept.children)}
    return {**by_name, "Stop strings": stop.children[1]}


def test_the_widget_streams_the_answer_and_resets() -> None:
    session = ChatSession(parrot(), sampling=GREEDY)
    conversation, problem, message, send, reset = widgets(session)
    seen: list[str] = []
    conversation.observe(lambda change: seen.append(change.new), "value")
    message.value = "hi"
    send.click()
    assert conversation.value == transcript(session.turns) == transcript(TALK[:2])
    assert len(seen) > len("hello you")
    assert (message.value, message.disabled, problem.value) == ("", False, "")
    reset.click()
    assert (session.turns, conversation.value) == ((), transcript([]))


def test_the_widgets_settings_take_effect_with_the_next_message() -> None:
    session = ChatSession(parrot(), sampling=GREEDY)
    box = _live(session)
    message, send, _ = box.children[2].children
    settings = settings_of(box)

    def answer_to(text: str) -> str:
        message.value = text
        send.click()
        return session.turns[-1].text

    assert (settings["Temperature"].value, settings["Longest answer"].value) == (0, 40)
    settings["Longest answer"].value = 4
    assert answer_to("hi") == "hell"
    settings["Longest answer"].value, settings["Stop strings"].value = 40, ["lo"]
    settings["Top k (0: all)"].value, settings["Top p (1: all)"].value = 3, 0.5
    assert answer_to("hi") == "hel"
    assert (session.sampling.top_k, session.sampling.top_p, session.sampling.stop) == (3, 0.5, ("lo",))
    settings["Guide text"].value, settings["Its weight"].value = "hello you", 0.25
    answer_to("hi")
    assert isinstance(session.model, Guided)
    assert session.model.weight == 0.25
    settings["Guide text"].value = ""
    answer_to("hi")
    assert isinstance(session.model, NGram)


def test_the_widget_saves_and_loads_the_conversation(tmp_path: Path) -> None:
    session = ChatSession(Guided(parrot(), "hello", weight=0.1), sampling=GREEDY)
    box = _live(session)
    conversation, problem, row, _ = box.children
    message, send, reset = row.children
    settings = settings_of(box)
    assert (settings["Guide text"].value, settings["Its weight"].value) == ("hello", 0.1)
    settings["Folder"].value = str(tmp_path / "talk")
    settings["Load"].click()
    assert "holds no readable conversation" in problem.value
    message.value = "hi"
    send.click()
    said = session.turns
    settings["Save"].click()
    assert (problem.value, ChatSession.load(tmp_path / "talk", parrot()).turns) == ("", said)
    reset.click()
    settings["Temperature"].value = 1.5
    settings["Load"].click()
    assert conversation.value == transcript(said)
    assert settings["Temperature"].value == 0
    message.value = "how are you?"
    send.click()
    assert transcript(said) != conversation.value
    assert "how are you?" in conversation.value


def test_the_enter_key_sends() -> None:
    session = ChatSession(parrot(), sampling=GREEDY)
    _, _, message, *_ = widgets(session)
    message.value = "hi"
    message._handle_custom_msg({"event": "submit"}, [])
    assert session.turns == tuple(TALK[:2])


def test_an_error_is_shown_in_the_widget() -> None:
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no <system> role') }}{% endif %}" + TEMPLATE
    _, problem, message, send, _ = widgets(ChatSession(random_llama(strict), system="be brief"))
    message.value = "hi"
    send.click()
    assert "no &lt;system&gt; role" in problem.value
    assert not message.disabled


def test_all_end_tokens_of_a_models_settings_end_a_text_and_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama = random_llama()
    (other,) = llama.tokenizer.encode("!").tolist()
    llama.model.generation_config.eos_token_id = [other, max(llama.tokenizer.end_ids)]
    llama.save(tmp_path / "llama")
    loaded = Foundation.load(tmp_path / "llama")
    assert loaded.tokenizer.end_ids == llama.tokenizer.end_ids | {other}
    script(monkeypatch, *loaded.tokenizer.encode("so").tolist(), other)
    assert say(ChatSession(loaded, sampling=GREEDY), "hi") == "so"


@pytest.mark.parametrize("behind", ["<|im_end|>", " \n<|im_end|>\n"])
def test_the_token_that_a_template_puts_behind_an_answer_ends_a_text_and_a_turn(
    behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama = random_llama(TEMPLATE.replace("<|im_end|>", behind), eos="<|endoftext|>")
    (end,) = llama.tokenizer.end_ids - {llama.tokenizer.start_id}
    script(monkeypatch, *llama.tokenizer.encode("so").tolist(), end)
    assert say(ChatSession(llama, sampling=GREEDY), "hi") == "so"


@pytest.mark.parametrize(
    "template",
    [None, TEMPLATE.replace("<|im_end|>", ""), "{{ raise_exception('no') }}", "{{ messages[0]['content'] }}"],
)
def test_a_template_that_puts_no_token_behind_an_answer_ends_nothing(template: str | None) -> None:
    tokenizer = random_llama(template, eos="<|endoftext|>").tokenizer
    assert tokenizer.end_ids == {tokenizer.start_id}
