"""Every family: trained on a text, kept, gone on with, scored, sampled and chatted with, by the same commands."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from frugal.baselines import NGram
from frugal.cards import Kept, kept_about, kept_folder, kept_models
from frugal.corpora import CharTokenizer, Document, Tokenizer
from frugal.errors import InputError
from frugal.evaluate import evaluate
from frugal.families import (
    FAMILIES,
    Texts,
    asked,
    asked_on,
    keep_model,
    kept_model,
    name_for,
    read_texts,
    whole_text,
)
from frugal.families.counted import sources
from frugal.families.family import Trained
from frugal.generate import Sampling, generate
from frugal.lab.live import cli
from frugal.lab.run.execution import Plan, RunResult
from frugal.language_model import load_model
from frugal.training import EpochScore
from models import random_gpt2

SENTENCES = [
    "the cat sat on the mat.",
    "a dog met the cat on a log.",
    "the log rolled to the dog.",
    "a mat, a hat, a cat.",
]
TRAINED: list[tuple[str, dict[str, Any]]] = [
    ("echo", {"method": "softmax", "reservoir_size": 16, "connectivity": 0.5, "layers": 2, "epochs": 1}),
    ("echo", {"method": "softmax", "reservoir_size": 0, "epochs": 1}),
    ("echo", {"method": "ridge", "reservoir_size": 16, "connectivity": 0.5, "drive": "features"}),
    (
        "echo",
        {"method": "cooperative", "reservoir_size": 16, "connectivity": 0.5, "steps": 2, "epochs": 2, "window": 8},
    ),
    *(
        ("echo", {"method": "forward-forward", "negatives": source, "reservoir_size": 0, "hidden": [8], "epochs": 1})
        for source in ("uniform", "foundation", "hard", "text", "self")
    ),
    ("memory", {"memory_dim": 8, "write": "learned", "deletes": True, "remember": True, "epochs": 1}),
    ("neighbours", {}),
    ("reservoir", {"reservoir_size": 16, "fan_in": 4, "vocabulary": 260, "epochs": 1}),
    (
        "reservoir",
        {"method": "cooperative", "tokens": "characters", "reservoir_size": 16, "fan_in": 4, "steps": 2, "epochs": 2},
    ),
    ("piecewise", {"network": "small", "width": 8, "context_length": 4, "epochs": 1}),
    ("piecewise", {"network": "mamba", "width": 8, "blocks": 1, "epochs": 1}),
    ("ngram", {"order": 3}),
    ("ngram", {"order": 2, "tokens": "pairs"}),
    ("ensemble", {"experts": 2, "order": 3}),
    ("trees", {"context_length": 3, "rounds": 2, "learning_rate": 0.2}),
]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES * 8), encoding="utf-8")
    (tmp_path / "more.txt").write_text("\n".join(SENTENCES[::-1] * 4), encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def gpt_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("foundation") / "gpt"
    random_gpt2().save(folder, "# Random")
    return str(folder)


def frugal(*words: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def done(result: Result) -> str:
    """What a command that went well wrote."""
    assert result.exit_code == 0, result.stderr
    return result.stdout


def carried_out_here(plan: Plan, _timeout: None, reports: Path, **_: Any) -> RunResult:
    """The notebook's cells, run in this process: a kernel of its own takes seconds."""
    names = dict(plan.values)
    for cell in plan.notebook.cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            exec(cell.source, names)
    return RunResult(reports, "done", None, 0.0)


@pytest.mark.parametrize(("name", "settings"), TRAINED, ids=lambda value: str(value)[:60])
def test_a_model_is_trained_gone_on_with_scored_sampled_and_chatted_with_by_commands(
    name: str, settings: dict[str, Any], data: Path, gpt_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frugal.lab.run.execution.carry_out", carried_out_here)
    of_gpt = {"foundation": gpt_folder, "context_length": 6} if hasattr(FAMILIES[name], "foundation") else {}
    words = [f"{setting}={value}" for setting, value in {**settings, **of_gpt}.items()]
    train = ["train", name, "--save", "mine", "--reports", data / "reports", "new_tokens=3", "held_out_characters=60"]
    done(frugal(*train, "--train", data / "text.txt", *words))
    first = kept_about("mine")
    again = ["epochs=1", "learning_rate=1e-5"] if "epochs" in settings else []
    done(frugal(*train, "--train", data / "more.txt", "--resume", *again))
    second = kept_about("mine")
    assert second.settings == first.settings
    assert first.epochs <= second.epochs <= first.epochs + 1
    assert (first.text, second.text) == (str(data / "text.txt"), f"{data}/text.txt, {data}/more.txt")
    model, _, learnt = kept_model("mine")
    texts = read_texts(str(data / "more.txt"), held_out_characters=60)
    assert {document.text for document in texts.train} < {document.text for document in learnt}
    assert evaluate(model, texts.test).bits_per_byte == pytest.approx(second.bits_per_byte, rel=1e-4)  # as it was kept
    model.save(str(data / "elsewhere"))  # a path may be a string, as everywhere
    assert type(load_model(str(data / "elsewhere"))) is type(type(model).load(str(data / "elsewhere")))

    [row] = json.loads(done(frugal("score", "mine", data / "more.txt", "--json")))
    scores = evaluate(model, whole_text(str(data / "more.txt")))
    assert (row["bits_per_byte"], row["f1"]) == pytest.approx((scores.bits_per_byte, scores.f1))
    assert (row["retrieval_f1"] is not None) == (name == "memory")
    assert done(frugal("generate", "mine", "--prompt", "the ", "--max-tokens", 3)).startswith("the ")
    done(CliRunner().invoke(cli.main, ["chat", "mine", "--markers", "--max-tokens", "3"], input="the cat\n"))


@pytest.mark.parametrize(
    ("name", "made", "told"),
    [
        ("echo", {"reservoir_size": 16, "connectivity": 0.5, "epochs": 1}, ("context_length", "reservoir_size")),
        ("neighbours", {}, ("context_length",)),
        ("reservoir", {"reservoir_size": 16, "fan_in": 4, "tokens": "characters", "epochs": 1}, ("tokens",)),
        ("piecewise", {"network": "mamba", "width": 8, "blocks": 1, "epochs": 1}, ()),
    ],
    ids=["echo", "neighbours", "reservoir", "piecewise"],
)
def test_a_model_whose_card_tells_little_as_a_notebook_s_does_is_gone_on_with(
    name: str,
    made: dict[str, Any],
    told: tuple[str, ...],
    data: Path,
    gpt_folder: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("frugal.lab.run.execution.carry_out", carried_out_here)
    of_gpt = {"foundation": gpt_folder, "context_length": 6} if name in ("echo", "neighbours") else {}
    family, plan = asked(name, {**made, **of_gpt})
    texts = read_texts(str(data / "text.txt"), held_out_characters=60)
    settings = {setting: asked_on(family)[setting] for setting in told}
    about = Kept(name="mine", family=name, text="text.txt", settings=settings, foundation=of_gpt.get("foundation", ""))
    keep_model(family.train(family.build(texts), texts, plan).model, about)
    words = ["--train", data / "more.txt", "--save", "mine", "--resume", "--reports", data / "reports"]
    done(frugal("train", name, *words, "new_tokens=3", *(["epochs=1"] if "epochs" in made else [])))
    assert kept_about("mine").text == f"text.txt, {data}/more.txt"


def test_the_command_line_knows_every_family() -> None:
    told = frugal("train", "--help").output
    assert all(f"Settings of {name}" in told for name in FAMILIES)


@pytest.mark.parametrize(
    ("name", "settings", "complaint"),
    [
        ("eco", {}, "did you mean echo?"),
        ("echo", {"reservoir_sise": 3}, "did you mean reservoir_size?"),
        ("echo", {"reservoir_size": "many"}, "must be a whole number"),
        ("echo", {"method": "magic"}, "must be one of 'softmax', 'ridge'"),
        ("echo", {"method": "ridge", "epochs": 3}, "without epochs"),
        ("ngram", {"method": "ridge"}, "is no setting of ngram"),
        ("piecewise", {"network": "smal"}, "did you mean 'small'?"),
        ("piecewise", {"epochs": 0}, "must be at least 1"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_a_sentence(name: str, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint.replace("?", r"\?")):
        asked(name, settings)


@pytest.mark.parametrize(("name", "settings"), TRAINED, ids=lambda value: str(value)[:60])
def test_a_training_is_limited_unless_more_is_asked_for(name: str, settings: dict[str, Any]) -> None:
    family, plan = asked(name, settings)
    assert (plan is None) == (family.made_at_once or name == "neighbours")
    assert plan is None or plan.seconds <= 300
    assert plan is None or asked(name, {**settings, "seconds": 3600}).plan.seconds == 3600


def test_what_a_kept_model_is_made_of_stays() -> None:
    kept = asked_on(asked("echo", {"reservoir_size": 16})[0])
    with pytest.raises(InputError, match="the kept model has 16"):
        asked("echo", {"reservoir_size": 32}, kept)
    family, plan = asked("echo", {"characters": 50, "epochs": 7}, kept)
    assert (family.reservoir_size, family.characters, plan.epochs) == (16, 50, 7)
    kept = json.loads(json.dumps(asked_on(asked("reservoir", {"hidden": 64})[0])))
    assert asked("reservoir", {"hidden": 64}, kept).family.hidden == (64,)


def test_what_only_the_training_follows_from_may_change() -> None:
    kept = asked_on(asked("reservoir", {"reservoir_size": 16})[0])
    family, plan = asked("reservoir", {"method": "cooperative", "window": 8, "steps": 80}, kept)
    assert (family.method, family.window, family.reservoir_size, plan.steps) == ("cooperative", 8, 16, 80)
    kept = asked_on(asked("echo", {"method": "forward-forward"})[0])
    assert asked("echo", {"negatives": "hard"}, kept).family.negatives == "hard"


def test_what_is_kept_of_an_interrupted_training_has_its_mediator_and_its_start_to_beat(data: Path) -> None:
    made = {"reservoir_size": 16, "fan_in": 4, "tokens": "characters", "steps": 2, "epochs": 2, "window": 8}
    family, plan = asked("reservoir", {"method": "cooperative", **made})
    texts, told = read_texts(str(data / "text.txt"), held_out_characters=60), []
    model = family.build(texts)

    def interrupt(so_far: Trained) -> None:
        told.append(so_far)
        if so_far.scores[-1].epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        family.train(model, texts, plan, on_epoch=interrupt)
    assert [[score.epoch for score in so_far.scores] for so_far in told] == [[0], [0, 1]]
    assert told[-1].model is model
    folder = keep_model(model, Kept(name="mine", family="reservoir", text="text.txt"), beside=told[-1].beside)
    assert load_model(folder / "mediator").vocabulary_size == model.vocabulary_size


@pytest.mark.parametrize(("name", "dtype"), [("reservoir", "bfloat16"), ("echo", "float99"), ("memory", "float99")])
def test_a_number_format_that_a_family_does_not_have_is_refused(name: str, dtype: Any, data: Path) -> None:
    with pytest.raises(InputError, match=f"dtype='{dtype}'"):
        asked(name, {})[0].build(read_texts(str(data / "text.txt")), dtype=dtype)


def test_none_is_a_value_where_a_setting_has_it() -> None:
    family, plan = asked("echo", {"characters": None, "seconds": None, "patience": None})
    assert (family.characters, plan.seconds, plan.patience) == (None, None, None)
    assert asked("echo", {}, asked_on(family)).family.characters is None
    with pytest.raises(InputError, match="epochs=None: must be a whole number"):
        asked("echo", {"epochs": None})


def test_none_reaches_the_family_from_the_command_line(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Any] = []

    def carry_out(plan: Any, *_: Any, **__: Any) -> None:
        planned.append(plan.values)
        raise InputError("enough")

    monkeypatch.setattr("frugal.lab.run.execution.carry_out", carry_out)
    frugal("train", "echo", "--train", data / "text.txt", "characters=None", "epochs=2", "patience=None")
    assert planned[0]["settings"] == ["characters=None", "patience=None"]
    assert planned[0]["epochs"] == 2


@pytest.mark.parametrize("kept", [True, False])
def test_an_interrupted_training_says_what_is_kept_of_it(
    kept: bool, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def carry_out(_plan: Any, _timeout: None, reports: Path, **_: Any) -> RunResult:
        if kept:
            model = NGram(2, CharTokenizer("ab")).fit(["abab"])
            keep_model(model, Kept(name="mine", family="ngram", text="text.txt"))
        return RunResult(reports, "interrupted", "interrupted in cell [7]", 1.0)

    monkeypatch.setattr("frugal.lab.run.execution.carry_out", carry_out)
    given = ("--train", data / "text.txt", "--save", "mine", "--reports", data / "reports")
    said = frugal("train", "ngram", *given).stderr
    assert ("mine has the best epoch so far; --resume goes on with it" in said) == kept
    assert "error" not in said


@pytest.mark.parametrize("most", [2, 4, 20])
def test_every_document_is_learnt_by_one_expert_whatever_their_titles(most: int) -> None:
    documents = [Document("notes", f"text {n}") for n in range(18)]
    found = sources(documents, most)
    assert [document for group in found.values() for document in group] == documents
    assert len(found) <= most


def test_short_texts_that_are_other_texts_are_not_said_to_be_the_same(recwarn: pytest.WarningsRecorder) -> None:
    parts = [(Document(text, text),) for text in ("a longer text to learn from", "a log", "the hat")]
    Texts(*parts, characters=27)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="100% of the test text stands in the training text"):
        Texts((Document("a", "a log and a hat"),), (Document("b", "mats"),), (Document("c", "a log"),), characters=15)


def test_another_foundation_is_refused_where_a_training_goes_on(data: Path, gpt_folder: str) -> None:
    keep_model(
        NGram(2, CharTokenizer("ab")).fit(["abab"]),
        Kept(name="mine", family="echo", text="text.txt", settings={"foundation": gpt_folder}),
    )
    said = frugal("train", "echo", "--train", data / "text.txt", "--save", "mine", "--resume", "foundation=smollm2")
    assert "the kept model has" in said.stderr


def test_two_files_are_each_used_whole(data: Path) -> None:
    texts = read_texts(str(data / "text.txt"), str(data / "more.txt"))
    assert "".join(document.text for document in texts.train) == (data / "text.txt").read_text(encoding="utf-8")
    held_out = "".join(document.text for document in (*texts.valid, *texts.test))
    assert held_out == (data / "more.txt").read_text(encoding="utf-8")
    texts = read_texts(str(data / "text.txt"), str(data / "more.txt"), str(data / "text.txt"))
    assert "".join(document.text for document in texts.valid) == held_out


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (("text.txt", "", "text.txt"), "of the test text stands in the training text"),
        (("more.txt", "tale.txt", "tale.txt"), "of the test text stands in the validation text"),
    ],
    ids=["training", "validation"],
)
def test_a_text_in_two_parts_is_told(data: Path, parts: tuple[str, ...], said: str) -> None:
    (data / "tale.txt").write_text("".join(f"line {n} tells of {n * n} sheep. " for n in range(40)), encoding="utf-8")
    with pytest.warns(UserWarning, match=said):
        read_texts(*(str(data / name) if name else "" for name in parts))


@pytest.mark.parametrize("tokenizer", [None, CharTokenizer.ascii()], ids=["made again", "gone on with"])
def test_text_that_an_earlier_training_learnt_is_told(tokenizer: Tokenizer | None, data: Path) -> None:
    tale = "".join(f"line {n} tells of {n * n} sheep. " for n in range(80))
    (data / "tale.txt").write_text(tale, encoding="utf-8")
    texts = read_texts(str(data / "text.txt"), "", str(data / "tale.txt"))
    with pytest.warns(UserWarning, match="of the test text stands in the training text"):
        texts.going_on([Document("tale", tale)], tokenizer)


def test_a_model_does_not_go_on_with_a_text_of_another_alphabet(data: Path) -> None:
    (data / "greek.txt").write_text("και πάλι η ίδια ιστορία, από την αρχή.\n" * 20, encoding="utf-8")
    texts = read_texts(str(data / "greek.txt"))
    with pytest.raises(InputError, match=r"\d\d% of the training text's characters are none that the kept model knows"):
        texts.going_on((), CharTokenizer.ascii())
    assert texts.going_on((), CharTokenizer.learn(["και πάλι η ίδια ιστορία, από την αρχή.\n"])) == texts


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("echo", "reservoir_size", -5), ("echo", "connectivity", 1.5), ("echo", "slowest_leak", 0.0),
        ("echo", "epochs", 0), ("echo", "learning_rate", -1.0), ("ngram", "order", 0), ("ngram", "characters", 0),
        ("ensemble", "experts", 0), ("ensemble", "memory", 7.0), ("memory", "write_budget", 2.0),
        ("memory", "memory_size", -1), ("neighbours", "context_length", 0),
        ("reservoir", "fan_in", 513), ("reservoir", "hidden", [8, 0]), ("reservoir", "input_scale", 0.0),
        ("reservoir", "spectral_radius", 0.0),
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_refused_by_its_name(name: str, setting: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{setting}="):
        asked(name, {setting: value})


def test_a_training_goes_on_in_its_family(data: Path) -> None:
    family, _ = asked("ngram", {"order": 2})
    texts = read_texts(str(data / "text.txt"))
    model = family.train(family.build(texts), texts).model
    keep_model(model, Kept(name="counts", family="ngram", text="text"))
    assert name_for("counts", "ngram", resume=True) == "counts"
    with pytest.raises(InputError, match="counts is of the family ngram"):
        name_for("counts", "ensemble", resume=True)
    keep_model(model, Kept(name="lesson", family="lesson", text="text"))
    for given in ("ngram", "lesson"):
        with pytest.raises(InputError, match=r"of a notebook \(lesson\), and no training goes on with it; it can be"):
            name_for("lesson", given, resume=True)
    (kept_folder("counts") / "about.json").unlink()
    with pytest.raises(InputError, match="holds something else"):
        name_for("counts", "ngram")


def test_a_training_that_came_to_nothing_says_so(data: Path, gpt_folder: str) -> None:
    settings = {"foundation": gpt_folder, "context_length": 6, "reservoir_size": 0, "epochs": 1, "learning_rate": 50.0}
    family, plan = asked("echo", settings)
    texts = read_texts(str(data / "text.txt"), held_out_characters=60)
    trained = family.train(family.build(texts), texts, plan)
    assert not trained.improved
    assert "never improved" in trained.verdict
    assert "learning rate" in trained.verdict


@pytest.mark.parametrize("last", [1.0, 5.0], ids=["better", "worse"])
def test_a_training_that_its_clock_ended_says_so(last: float) -> None:
    start = EpochScore(validation_nats=2.0)
    for out_of_time in (False, True):
        end = EpochScore(epoch=1, training_loss=9.0, validation_nats=last, out_of_time=out_of_time)
        assert ("ended by its clock" in Trained(None, [start, end]).verdict) == out_of_time


@pytest.mark.parametrize("name", ["", "smollm2", "a/b", "../x", ".hidden", "/tmp/x"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="must be a plain name"):
        kept_folder(name)


def test_a_folder_that_is_not_there_is_no_damaged_model() -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        load_model("not-there")


def test_a_damaged_card_hides_no_other_model(data: Path) -> None:
    family, _ = asked("ngram", {"order": 2})
    texts = read_texts(str(data / "text.txt"))
    for name in ("good", "bad", "odd", "null"):
        keep_model(family.train(family.build(texts), texts).model, Kept(name=name, family="ngram", text="text"))
    (kept_folder("bad") / "about.json").write_text("{", encoding="utf-8")
    for name, entries in {"odd": {"when": None}, "null": {"settings": None}}.items():
        path = kept_folder(name) / "about.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries), encoding="utf-8")
    assert [kept.name for kept in kept_models()] == ["good"]


def test_the_commands_score_sample_and_list_a_kept_model(data: Path) -> None:
    family, _ = asked("ngram", {"order": 3})
    texts = read_texts(str(data / "text.txt"))
    model = family.train(family.build(texts), texts).model
    keep_model(model, Kept(name="mine", family="ngram", text="text.txt", settings=asked_on(family), accuracy=0.5))
    text = (data / "more.txt").read_text(encoding="utf-8")
    [row] = json.loads(frugal("score", "mine", data / "more.txt", "--json").stdout)
    assert row["bits_per_byte"] == pytest.approx(evaluate(model, text).bits_per_byte)
    lines = frugal("score", "mine", "mine", data / "more.txt", "--csv").stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["model", "mine", "mine"]
    told = frugal("generate", "mine", "--prompt", "the c", "--temperature", "0", "--max-tokens", "2")
    assert told.stdout == "the c" + generate(model, "the c", Sampling(max_tokens=2, temperature=0)) + "\n"
    [row] = json.loads(frugal("models", "--json").stdout)
    assert (row["model"], row["data_set"], row["size"], row["accuracy"]) == ("mine", "text.txt", 3, 0.5)
    assert "mine" in frugal("models").stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("train", "echo", "reservoir_sise=3"), "did you mean reservoir_size?"),
        (("train", "echo", "epochs=many"), "epochs='many': must be int"),
        (("train", "reservoir", "reservoir_size=5"), "fan_in=10: must not exceed reservoir_size=5"),
        (("train", "ngram", "--train", "a.txt", "--train", "b.txt"), "--train is given 2 times: give it once"),
        (("train", "echo", "foundation=smolm2"), "did you mean 'smollm2'?"),
        (
            ("train", "echo", "method=forward-forward", "negatives=text", "negative_text=none.txt"),
            "'none.txt': is no known text and no file",
        ),
        (("train", "reservoir", "epochs=1", "epochs=2"), "epochs is given twice"),
        (("train", "ngram", "--resume", "--save", "none"), "no model of that name is kept"),
        (("score", "none-such-model-here", "{}/text.txt"), "none-such-model-here"),
    ],
)
def test_the_commands_refuse_before_anything_starts(words: tuple[str, ...], complaint: str, data: Path) -> None:
    result = frugal(*[word.format(data) for word in words])
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert not (data / "runs").exists()
