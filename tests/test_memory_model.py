"""A GPT that reads and writes a memory: what it reads, what it writes, what it must never see."""

import json
import math
import operator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from frugal.corpora import encode_documents
from frugal.errors import InputError, UnavailableError
from frugal.evaluate import evaluate
from frugal.foundation import Foundation, WindowedFoundation
from frugal.generate import Sampling, generate
from frugal.memory import Datastore, MemoryGPT, MemoryPlan, train_memory, validate
from frugal.memory.controls import ablations
from frugal.memory.entries import Entries
from frugal.memory.reading import Reader
from frugal.memory.training import MemoryScore, memory_loss
from models import TEXTS, memory_gpt, random_gpt2

pytestmark = pytest.mark.usefixtures("own_data_folder")

READS = ("concat", "attention", "knn")
LONG = " ".join(TEXTS)
each_read = pytest.mark.parametrize("read", READS)


def tokens_of(model: MemoryGPT, text: str = LONG) -> Tensor:
    return encode_documents(model.tokenizer, [text])[0].unsqueeze(0)


@each_read
def test_with_a_closed_gate_the_logits_are_the_gpts_own(read: str) -> None:
    model = memory_gpt(read=read, gate=0.0)
    tokens = tokens_of(model)[:, :6]
    assert torch.equal(model.log_probabilities(tokens), model.foundation.log_probabilities(tokens))


@pytest.mark.parametrize("gate", [-3.0, -1e-6, 0.0, 0.5, 1.0, 1.011, 50.0])
def test_a_mixture_s_weight_never_leaves_0_to_1_wherever_training_leads(gate: float) -> None:
    model = memory_gpt(read="knn", gate=gate)
    probabilities = model.log_probabilities(tokens_of(model)).exp()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(probabilities.shape[:2]))
    inside = memory_gpt(read="knn", gate=min(1.0, max(0.0, gate)))
    assert torch.equal(probabilities, inside.log_probabilities(tokens_of(model)).exp())


def test_training_on_a_text_that_repeats_itself_stays_a_number() -> None:
    model, text = memory_gpt(read="knn", gate=1.0, remembered=()), ["the cat sat on the mat. " * 8]
    scores = train_memory(model, text, text, MemoryPlan(epochs=2, learning_rate=0.1, windows=2))
    assert all(math.isfinite(score.validation_nats) for score in scores)
    assert 0 <= model.network.gate.item() <= 1


@pytest.mark.parametrize("scope", ["step", "stream"])
def test_a_text_shorter_than_a_step_trains_all_the_same(scope: Literal["step", "stream"]) -> None:
    model, text = memory_gpt(read="knn", remembered=()), ["the cat sat. "]
    scores = train_memory(model, text, text, MemoryPlan(epochs=1, batch_size=1, windows=50, scope=scope))
    assert [math.isfinite(score.training_loss) for score in scores[1:]] == [True]


def test_a_memory_of_another_width_is_refused() -> None:
    with pytest.raises(InputError, match="a memory of width 7: expected 24, as memory_dim says"):
        memory_gpt().with_memory(Datastore.empty(7, 100))


def test_with_a_closed_gate_a_long_text_scores_as_in_plain_windows() -> None:
    model = memory_gpt(gate=0.0)
    plain = WindowedFoundation(model.foundation, context=6)
    torch.testing.assert_close(
        model.log_probabilities(tokens_of(model)), plain.log_probabilities(tokens_of(model)), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("read", ["concat", "attention"])
def test_a_new_model_starts_as_its_gpt(read: Any) -> None:
    foundation = random_gpt2()
    model = MemoryGPT(foundation, read=read, context=6)
    own = evaluate(WindowedFoundation(foundation, context=6), TEXTS).bits_per_byte
    assert evaluate(model, TEXTS).bits_per_byte == pytest.approx(own, abs=1e-4)  # its features are kept in float16


@each_read
def test_what_is_read_changes_the_logits_and_what_is_not_does_not(read: str) -> None:
    model, tokens = memory_gpt(read=read, remembered=()), tokens_of(memory_gpt(), "the cat")[:, :5]
    dim, generator = model.dim, torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 40, dim, generator=generator)
    entries = Entries(vectors, torch.arange(40).unsqueeze(0), torch.zeros(1, 40), torch.arange(40).unsqueeze(0))
    output = model.network(tokens, entries)
    was_read = output.reading.columns.unique()
    unread = next(i for i in range(40) if i not in was_read)
    for column, same in ((int(was_read[0]), False), (unread, True)):
        changed = entries._replace(tokens=entries.tokens.clone())
        changed.tokens[0, column] = 77
        assert torch.equal(model.network(tokens, changed).logits, output.logits) is same


def test_reading_is_exact_and_its_weights_sum_to_one() -> None:
    generator = torch.Generator().manual_seed(0)
    reader = Reader(4, 4, k=3, original=True)
    inputs, vectors = (torch.randn(2, n, 4, generator=generator) for n in (5, 9))
    ids = torch.arange(9).expand(2, 9)
    reading = reader(inputs, Entries(vectors, ids, torch.zeros(2, 9), ids), None)
    distances = (inputs.unsqueeze(2) - vectors.unsqueeze(1)).square().sum(-1)
    nearest = distances.sort(-1)
    torch.testing.assert_close(reading.columns, nearest.indices[..., :3])
    logits = torch.cat([torch.zeros(2, 5, 1), -nearest.values[..., :3]], -1)
    torch.testing.assert_close(reading.weights, logits.softmax(-1))


@pytest.mark.parametrize("write", ["threshold", "surprise", "learned", "random"])
def test_writing_keeps_to_its_budget(write: str) -> None:
    model = memory_gpt(write=write, budget=0.5, remembered=())
    *_, last = model.steps(tokens_of(model)[:, :-1])
    written = model.after(last, tokens_of(model))
    share = (written.log_prior > -torch.inf).sum() / (tokens_of(model).shape[1] - 1)
    if write == "threshold":
        assert share < 1  # an untrained decision refuses some
    else:
        assert share == pytest.approx(0.5, abs=0.1)


def test_surprise_writes_what_was_least_expected() -> None:
    model = memory_gpt(write="surprise", budget=0.3, remembered=())
    tokens = tokens_of(model)[:, :7]
    (step,) = model.steps(tokens[:, :6])
    written = model.after(step, tokens)
    nats = -model.target_log_probabilities(tokens)[0]
    assert set(written.positions[0].tolist()) == set(nats.topk(2).indices.tolist())


def test_a_deleted_entry_is_never_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frugal.memory.writing.DELETE_THRESHOLD", 3.0)  # unit vectors are nearer than that
    model = memory_gpt(read="knn", deletes=True, remembered=())
    writer = model.network.writer
    torch.nn.init.zeros_(writer.delete_decision.weight)
    torch.nn.init.ones_(writer.delete_decision.bias)
    steps = list(model.steps(tokens_of(model)))
    dead = [set((step.entries.log_prior[0] == -torch.inf).nonzero().flatten().tolist()) for step in steps]
    assert dead[-1]
    for step, gone in zip(steps, dead, strict=True):
        assert gone.isdisjoint(step.output.reading.columns.flatten().tolist())


def test_the_far_are_not_deleted() -> None:
    model = memory_gpt(deletes=True)
    torch.nn.init.ones_(model.network.writer.delete_decision.bias)
    (step,) = model.steps(tokens_of(model)[:, :6])
    writer, output = model.network.writer, step.output
    meant = writer.marked_for_deletion(output.hidden, output.reading)
    assert bool((writer.distances(output.hidden, output.reading)[meant] < 0.5).all())


@pytest.mark.parametrize("write", ["threshold", "learned"])
@each_read
def test_the_gradient_reaches_the_heads_that_write(read: str, write: str) -> None:
    model = memory_gpt(read=read, write=write, deletes=True, remembered=())
    model.network.train()
    tokens = tokens_of(model)
    plan = MemoryPlan(write_rate=0)
    losses = [
        memory_loss(model, step, tokens[:, step.begin + 1 : step.begin + 1 + step.output.hidden.shape[1]], plan)
        for step in model.steps(tokens[:, :-1])
    ]
    torch.stack(losses).sum().backward()
    for name in ("storable_vector", "store_decision", "deletable_vector", "delete_decision"):
        assert getattr(model.network.writer, name).weight.grad.abs().sum() > 0, name


def test_training_text_cannot_leak_into_validation() -> None:
    """The poison: training text and memory hold the validation text itself, and validation must not know it."""
    model = memory_gpt(read="knn", remembered=())
    before = validate(model, TEXTS[:1]).validation_nats
    model.remember(TEXTS[0])
    assert evaluate(model, TEXTS[0]).nats < 0.9 * before * evaluate(model, TEXTS[0]).tokens  # it can be read
    frozen = MemoryPlan(epochs=1, learning_rate=1e-12, windows=2, scope="stream")
    scores = train_memory(model, [TEXTS[0]], TEXTS[:1], frozen)
    assert scores[-1].validation_nats == pytest.approx(before, abs=1e-4)


def test_training_lowers_the_loss_and_keeps_the_best(tmp_path: Path) -> None:
    model = memory_gpt(read="knn", write="learned", remembered=())
    plan = MemoryPlan(epochs=3, learning_rate=1e-2, windows=3, batch_size=2, patience=3)
    text = [LONG * 2]
    scores = train_memory(model, text, text, plan, folder=tmp_path / "state")
    best = min(scores, key=lambda score: score.validation_nats)
    assert best.validation_nats < scores[0].validation_nats
    assert validate(model, text).validation_nats == pytest.approx(best.validation_nats)
    again = memory_gpt(read="knn", write="learned", remembered=())
    resumed = train_memory(again, text, text, plan, folder=tmp_path / "state")  # found finished
    assert [score.validation_nats for score in resumed] == [score.validation_nats for score in scores]


@pytest.mark.parametrize("scope", ["step", "stream"])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(scope: str, tmp_path: Path) -> None:
    plan, text = MemoryPlan(epochs=3, learning_rate=1e-2, windows=2, scope=scope), [LONG * 2]

    def stop(score: MemoryScore) -> None:
        if score.epoch == 1:
            raise KeyboardInterrupt

    broken, resumed, whole = (memory_gpt(read="knn", remembered=()) for _ in range(3))
    with pytest.raises(KeyboardInterrupt):
        train_memory(broken, text, text, plan, folder=tmp_path / "state", on_epoch=stop)
    found = train_memory(resumed, text, text, plan, folder=tmp_path / "state")
    expected = train_memory(whole, text, text, plan)
    assert [s.validation_nats for s in found] == [s.validation_nats for s in expected]


def test_a_training_on_other_documents_or_of_another_model_is_not_gone_on_with(tmp_path: Path) -> None:
    plan, text = MemoryPlan(epochs=1, windows=2), [LONG * 2]

    def train(text: list[str] = text, unseen: list[str] = text, **settings: Any) -> None:
        model = memory_gpt(**{"read": "knn", "remembered": (), **settings})
        train_memory(model, text, unseen, plan, folder=tmp_path / "state")

    train()
    train()
    for changes, name in (
        ({"text": [LONG * 2 + "."]}, "documents"),
        ({"unseen": [LONG]}, "validation"),
        ({"seed": 5}, "model"),
    ):
        with pytest.raises(InputError, match=f"holds another training, which differs in {name}:"):
            train(**changes)


def test_a_training_with_another_kept_memory_is_not_gone_on_with(tmp_path: Path) -> None:
    plan, text = MemoryPlan(epochs=1, windows=2), [LONG]

    def train(remembered: list[str], folder: Path) -> None:
        train_memory(memory_gpt(read="knn", remembered=remembered), text, text, plan, folder=folder)

    for remembered in ([], TEXTS[:1], TEXTS[1:]):
        folder = tmp_path / str(len(remembered))
        train(remembered, folder)
        train(remembered, folder)
        for other in ([], TEXTS[:1], TEXTS[2:]):
            if other != remembered:
                with pytest.raises(InputError, match="holds another training, which differs in memory:"):
                    train(other, folder)


def test_documents_may_come_from_a_generator(tmp_path: Path) -> None:
    plan, text, unseen = MemoryPlan(epochs=2, windows=2), [LONG, TEXTS[0]], TEXTS[:2]

    def train(text: Any, unseen: Any) -> list[float]:
        model = memory_gpt(read="knn", remembered=())
        scores = train_memory(model, text, unseen, plan, folder=tmp_path / "state")
        return [score.validation_nats for score in scores]

    expected = train(iter(text), iter(unseen))
    assert train(text, unseen) == expected
    found, same = (validate(memory_gpt(remembered=()), given).validation_nats for given in (iter(unseen), unseen))
    assert found == same
    for changes, name in (((iter([LONG]), unseen), "documents"), ((text, iter([LONG])), "validation")):
        with pytest.raises(InputError, match=f"differs in {name}:"):
            train(*changes)


@pytest.mark.parametrize("scope", ["step", "stream"])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_empty_documents_change_nothing(where: int, scope: str) -> None:
    plan, text = MemoryPlan(epochs=1, windows=2, scope=scope), [LONG, TEXTS[0]]
    more = [*text[:where], "", *text[where:]]
    found, expected = (
        train_memory(memory_gpt(read="knn", remembered=()), own, own, plan)[1].validation_nats for own in (more, text)
    )
    assert found == expected


@pytest.mark.parametrize("scope", ["step", "stream"])
@pytest.mark.parametrize("nothing", [[], [""], ["", ""], iter([])])
def test_where_there_is_no_text_one_sentence_says_so(nothing: Any, scope: str) -> None:
    model, plan = memory_gpt(remembered=()), MemoryPlan(epochs=1, windows=2, scope=scope)
    for name, documents, validation in (("documents", nothing, TEXTS), ("validation", TEXTS, nothing)):
        with pytest.raises(InputError, match=rf"^{name}: there is no text in them; give"):
            train_memory(model, documents, validation, plan)
    with pytest.raises(InputError, match=r"^documents: there is no text in them; give"):
        validate(model, nothing)


def test_more_streams_than_the_text_can_fill_are_refused() -> None:
    model, plan = memory_gpt(remembered=()), MemoryPlan(epochs=1, scope="stream", batch_size=64)
    with pytest.raises(
        InputError, match=r"batch_size=64: each stream takes 2 tokens, and the documents have [34]; give"
    ):
        train_memory(model, ["abc"], TEXTS, plan)


def test_training_stops_when_validation_no_longer_gains() -> None:
    model = memory_gpt(read="knn", remembered=())
    far_too_fast = MemoryPlan(epochs=9, learning_rate=0.3, windows=2, patience=2)
    scores = train_memory(model, [LONG * 2], [LONG], far_too_fast)
    best = min(scores, key=lambda score: score.validation_nats)
    assert scores[-1].epoch == best.epoch + 2 < 9
    assert validate(model, [LONG]).validation_nats == pytest.approx(best.validation_nats)


def test_a_saved_model_is_trained_on(tmp_path: Path) -> None:
    model, text = memory_gpt(read="knn", remembered=()), [LONG * 2]
    plan = MemoryPlan(epochs=2, learning_rate=1e-2, windows=2)
    first = train_memory(model, text, text, plan)
    model.save(tmp_path / "model")
    gentler = replace(plan, learning_rate=1e-3)
    second = train_memory(MemoryGPT.load(tmp_path / "model"), text, text, gentler)
    assert second[0].validation_nats == pytest.approx(min(score.validation_nats for score in first), rel=1e-5)
    assert second[-1].validation_nats < second[0].validation_nats


def test_forgetting_leaves_a_stream_less_to_read() -> None:
    losses = []
    for share in (0.0, 0.999):
        model = memory_gpt(read="knn", remembered=())
        plan = MemoryPlan(
            epochs=1, learning_rate=1e-12, windows=2, scope="stream", retrieval=0.0, forgetfulness_factor=share
        )
        losses.append(train_memory(model, [TEXTS[0] * 4], TEXTS[:1], plan)[1].training_loss)
    assert losses[0] < losses[1]  # the text repeats itself


def test_validation_measures_what_a_count_by_hand_gives() -> None:
    model = memory_gpt(read="knn", remembered=())
    torch.nn.init.constant_(model.network.reader.null_key.bias, 0.9)  # some of what is useful is not read
    score, tokens = validate(model, [LONG]), tokens_of(model)
    steps = list(model.steps(tokens[:, :-1]))
    reads = torch.cat([step.output.reading.weights[0, :, 0] < 0.5 for step in steps]).tolist()
    held = torch.cat([step.output.reading.tokens[0] for step in steps]).tolist()
    useful = [target in entries for target, entries in zip(tokens[0, 1:].tolist(), held, strict=True)]
    right = sum(map(operator.and_, reads, useful))
    precision, recall = right / sum(reads), right / sum(useful)
    assert 0 < right < sum(useful)
    assert score.retrieval_f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert score.hit_rate == pytest.approx(sum(useful) / len(useful))
    scored = evaluate(model, [LONG])
    assert score.validation_accuracy == pytest.approx(scored.accuracy)
    assert score.validation_perplexity == pytest.approx(scored.perplexity, rel=1e-4)


def test_a_model_elsewhere_may_have_an_index_on_the_processor() -> None:
    memory = Datastore.empty(4, 10, index="flat", device="cuda")
    memory.add(torch.arange(3), torch.eye(4)[:2])
    assert memory.search(torch.eye(4)[1:2], 1).tokens.tolist() == [[2]]


def test_what_is_remembered_shows_in_the_next_answer_and_what_is_forgotten_does_not() -> None:
    model = memory_gpt(read="knn", gate=1.0, remembered=())
    torch.nn.init.constant_(model.network.reader.log_scale, 5.0)
    torch.nn.init.constant_(model.network.reader.null_key.bias, 0.7)
    likeliest = Sampling(max_tokens=8, temperature=0)
    unaware = generate(model, "the cat sat", likeliest)
    assert model.remember("the cat sat on a blue log.") > 0
    assert generate(model, "the cat sat", likeliest).startswith(" on a")
    model.forget("the cat sat on a blue log.")
    assert (len(model.memory), generate(model, "the cat sat", likeliest)) == (0, unaware)
    with pytest.raises(InputError, match="not in the memory"):
        model.forget("the cat sat on a blue log.")


def test_working_memory_is_read_only_when_asked() -> None:
    model = memory_gpt()
    tokens = tokens_of(model)[:, :5]
    vectors = model.foundation.model.get_input_embeddings()(tokens)
    unread = model.work(vectors)
    assert torch.equal(unread, model.work(tokens))
    torch.testing.assert_close(unread.log_softmax(-1), model.foundation.log_probabilities(tokens), rtol=0, atol=1e-5)
    assert not torch.equal(model.work(vectors, memory_input=vectors), unread)


@each_read
def test_a_saved_model_comes_back_with_its_memory(read: str, tmp_path: Path) -> None:
    model = memory_gpt(read=read, train_base=read == "concat")
    model.save(tmp_path / "model", notes="a test")
    again = MemoryGPT.load(tmp_path / "model")
    assert torch.equal(again.log_probabilities(tokens_of(model)), model.log_probabilities(tokens_of(model)))
    assert again.forget(TEXTS[1]) > 0


def test_a_folder_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    model, folder = memory_gpt(read="concat", write="threshold", original=True), tmp_path / "model"
    model.save(folder)
    config = json.loads((folder / "config.json").read_text())
    config["faithful"] = config.pop("original")
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    old = {name.replace("reader.null_key", "reader.nothing"): values for name, values in weights.items()}
    assert old.keys() != weights.keys()
    save_file(old, folder / "model.safetensors")
    again = MemoryGPT.load(folder)
    assert torch.equal(again.log_probabilities(tokens_of(model)), model.log_probabilities(tokens_of(model)))


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    memory_gpt().save(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UnavailableError, match="save the model again"):
        MemoryGPT.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"read": "guess"}, "read='guess': must be one of"),
        ({"write": "never"}, "write='never': must be one of"),
        ({"budget": 0.0}, "share of positions"),
        ({"layer": 5}, "layer=5: must lie in -2 to 1"),
        ({"context": 99}, "context=99: must lie in 4 to 16"),
        ({"original": True, "read": "knn"}, "the original concatenates"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MemoryGPT(random_gpt2(), **{"context": 6, **settings})  # type: ignore[arg-type]


def test_ablations_leave_the_model_as_it_was_and_off_is_the_gpt_alone() -> None:
    model = memory_gpt(read="attention", write="learned", remembered=())
    before = evaluate(model, TEXTS).nats
    found = ablations(model, TEXTS, LONG)
    assert (model.network.writer.write, evaluate(model, TEXTS).nats) == ("learned", before)
    alone = evaluate(WindowedFoundation(model.foundation, context=6), TEXTS).nats
    assert found["off"].nats == pytest.approx(alone, rel=1e-4)
    others = [scores.nats for name, scores in found.items() if name != "off"]
    assert len(set(others)) == len(others) == 6
    assert all(nats != pytest.approx(before, rel=1e-6) for nats in others)


def test_a_memory_is_refused_where_the_parts_do_not_fit() -> None:
    from transformers import GraniteConfig, GraniteForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = GraniteConfig(vocab_size=273, num_key_value_heads=2, logits_scaling=8.0, **sizes)
    granite = Foundation(GraniteForCausalLM(config), random_gpt2().tokenizer, name="granite")
    with pytest.raises(InputError, match="a memory is built into models of the GPT-2 or Llama kind only"):
        MemoryGPT(granite)
