"""Nearest-neighbour prediction: exact, causal, tuned where it claims to be, and worth nothing when shuffled."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frugal.baselines import Cache
from frugal.baselines.cache import Neighbours, mixture_weights
from frugal.corpora import encode_documents
from frugal.errors import InputError
from frugal.evaluate import evaluate
from frugal.generate import Sampling, generate
from frugal.memory import Datastore, Interpolation, MemoryGPT, NearestNeighbourLM
from frugal.memory.controls import oracle_values, shuffled_values, with_foreign_documents
from frugal.memory.mixture import Retrieved
from models import (
    ROUNDING,
    TEXTS,
    Recurrent,
    characters,
    memory_gpt,
    neighbour_model,
    random_gpt2,
    set_everywhere,
)

pytestmark = pytest.mark.usefixtures("own_data_folder")


def recurrent(*weights: float) -> NearestNeighbourLM:
    return NearestNeighbourLM(Recurrent(characters()), mixture=Interpolation.constant(weights, (5.0, 5.0), (512, 128)))


def made_retrieval(tokens: int = 60, known: float = 0.5, seed: int = 0) -> Retrieved:
    """A document whose source of neighbours holds the right token for about the share `known` of its tokens."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(5, (tokens,), generator=generator)
    values = torch.randint(5, (tokens, 4), generator=generator)
    right = torch.rand(tokens, generator=generator) < known
    values[right] = targets[right].unsqueeze(1)
    similarity = torch.where(right, 0.9, 0.1).unsqueeze(1).expand(-1, 4).clone()
    similarity[0] = -torch.inf
    ids = torch.arange(tokens * 4).view(tokens, 4)
    own = torch.full((tokens,), 0.2).log()
    return Retrieved(own, torch.full((tokens,), 1.6), targets, (Neighbours(ids, similarity, values),))


def mean_nats(mixture: Interpolation, retrieved: Retrieved) -> float:
    return -mixture.log_probabilities(retrieved).mean().item()


def test_with_no_weight_the_scores_are_the_models_own() -> None:
    model = neighbour_model()
    model.mixture = Interpolation.constant((0.0, 0.0), (5.0, 5.0), (8, 8))
    tokens = encode_documents(model.tokenizer, TEXTS)[0].unsqueeze(0)
    assert torch.equal(model.log_probabilities(tokens), model.model.log_probabilities(tokens))


def test_looking_only_into_the_document_it_is_a_continuous_cache() -> None:
    model = recurrent(0.3, 0.0)
    cache = Cache(model.model, weight=0.3, theta=5.0)
    tokens = encode_documents(model.tokenizer, TEXTS)[0].unsqueeze(0)
    torch.testing.assert_close(model.log_probabilities(tokens), cache.log_probabilities(tokens), rtol=0, atol=1e-5)


def test_mixtures_of_what_was_retrieved_give_what_evaluate_gives() -> None:
    model = neighbour_model()
    nats = [-model.mixture.log_probabilities(retrieved).sum().item() for retrieved in model.retrieve(TEXTS)]
    assert nats == pytest.approx([document.nats for document in evaluate(model, TEXTS).documents], rel=1e-3)


def test_a_document_is_retrieved_for_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = neighbour_model()
    (whole,) = model.retrieve(TEXTS[:1])
    set_everywhere(monkeypatch, "LOGITS_AT_ONCE", 2 * len(whole.own))  # two rows of the document, no two of logits
    (again,) = model.retrieve(TEXTS[:1])
    torch.testing.assert_close((again.own, again.entropy), (whole.own, whole.entropy), rtol=0, atol=ROUNDING)
    for source, expected in zip(again.sources, whole.sources, strict=True):
        torch.testing.assert_close(source.similarity, expected.similarity, rtol=0, atol=1e-5)
    log_probabilities = (model.mixture.log_probabilities(retrieved) for retrieved in (again, whole))
    torch.testing.assert_close(*log_probabilities, rtol=0, atol=ROUNDING)


def test_remembering_helps_the_same_text_and_forgetting_undoes_it() -> None:
    model = recurrent(0.0, 0.5)
    before = evaluate(model, TEXTS[0]).bits_per_byte
    model.remember(TEXTS[0])
    assert evaluate(model, TEXTS[0]).bits_per_byte < 0.8 * before
    model.forget(TEXTS[0])
    assert evaluate(model, TEXTS[0]).bits_per_byte == pytest.approx(before)
    with pytest.raises(InputError, match="not in the memory"):
        model.forget(TEXTS[0])


def test_a_needle_is_found_then_replaced_then_forgotten() -> None:
    model = NearestNeighbourLM(
        Recurrent(characters()), mixture=Interpolation.constant((0.0, 0.95), (40.0, 40.0), (1, 1))
    )
    likeliest = Sampling(max_tokens=3, temperature=0)
    unaware = generate(model, "the cat sat on the", likeliest)
    answers = []
    for needle in ("the cat sat on the log", "the cat sat on the mat"):
        model.remember(needle)
        answers.append(generate(model, "the cat sat on the", likeliest))
        model.forget(needle)
    assert answers == [" lo", " ma"]
    assert generate(model, "the cat sat on the", likeliest) == unaware


def test_scoring_leaves_the_memory_as_it_is_unless_told_to_remember() -> None:
    model = recurrent(0.1, 0.3)
    static = model.retrieve([TEXTS[0], TEXTS[0]])
    assert len(model.memory) == 0
    dynamic = model.retrieve([TEXTS[0], TEXTS[0]], remember=True)
    assert len(model.memory) == 2 * len(dynamic[0].own)
    assert torch.equal(static[0].sources[1].found, dynamic[0].sources[1].found)  # nothing before the first
    first, second = (mean_nats(model.mixture, retrieved) for retrieved in dynamic)
    assert second < first


def test_many_texts_are_remembered_as_one_after_the_other_and_none_changes_nothing() -> None:
    together, apart = neighbour_model(), neighbour_model()
    together.remember_all(TEXTS)
    for text in TEXTS:
        apart.remember(text)
    together.remember_all([])
    assert evaluate(together, TEXTS[0]).nats == pytest.approx(evaluate(apart, TEXTS[0]).nats, rel=1e-3)
    assert len(together.memory) == len(apart.memory)


def test_an_empty_memory_that_is_given_is_the_one_that_is_used() -> None:
    memory = Datastore.empty(16, 100)
    assert NearestNeighbourLM(Recurrent(characters()), memory).memory is memory


def test_a_memory_of_another_width_is_refused_wherever_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a memory of width 7: expected 16"):
        NearestNeighbourLM(Recurrent(characters()), Datastore.empty(7, 100))
    Datastore.open(tmp_path, dim=7, capacity=100).close()
    for _ in range(2):  # a refusal lets the folder go
        with pytest.raises(InputError, match="holds entries 7 wide: expected 16"):
            NearestNeighbourLM.open(tmp_path, Recurrent(characters()))


@pytest.mark.parametrize("model", [neighbour_model, memory_gpt])
def test_an_empty_text_is_refused(model: Callable[[], NearestNeighbourLM | MemoryGPT]) -> None:
    with pytest.raises(InputError, match="nothing to remember"):
        model().remember("")


@pytest.mark.parametrize("choose", [lambda: Cache.tuned(Recurrent(characters()), []), lambda: Interpolation.fit([])])
def test_settings_are_not_chosen_without_a_text(choose: Callable[[], object]) -> None:
    with pytest.raises(InputError, match="must hold at least one"):
        choose()


def test_a_foreign_document_is_found_in_place_of_the_own_one() -> None:
    model = recurrent(0.3, 0.3)
    foreign = with_foreign_documents(model, [TEXTS[0], TEXTS[1], TEXTS[0]])
    for place, each in enumerate(foreign):
        (source,) = each.sources
        before = foreign[place - 1].targets
        assert set(source.tokens.flatten().tolist()) <= set(before.tolist())
        assert source.ids.max() < len(before)
    same = foreign[0]  # after the last one, which is the same text: its own key is the nearest
    torch.testing.assert_close(same.sources[0].similarity[:, 0], torch.ones(len(same.targets)), rtol=0, atol=1e-3)


def test_entries_say_where_they_were_read() -> None:
    model = recurrent(0.1, 0.3)
    model.remember(TEXTS[1])
    number = model.remember(TEXTS[0])
    entry = int(model.memory.store.ids()[-1])
    place = model.memory.place(entry)
    tokens = encode_documents(model.tokenizer, [TEXTS[0]])[0]
    assert (place.text, place.token) == (number, len(tokens) - 1)
    before, value = model.memory.text_at(entry, model.tokenizer)
    assert TEXTS[0].endswith(before + value)
    assert (len(before), len(value)) == (6, 1)


def test_a_memory_of_texts_survives_being_saved(tmp_path: Path) -> None:
    model = neighbour_model()
    model.save(tmp_path / "model")
    again = NearestNeighbourLM.load(tmp_path / "model")
    tokens = encode_documents(model.tokenizer, TEXTS)[2].unsqueeze(0)
    torch.testing.assert_close(again.log_probabilities(tokens), model.log_probabilities(tokens), rtol=0, atol=1e-6)
    assert again.forget(TEXTS[1]) == len(model.memory)


@pytest.mark.parametrize("kernels", ["one", "two"])
def test_the_notebook_s_second_run_on_a_folder_reads_what_the_first_one_remembered(
    kernels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cell, with a small net in place of the foundation."""
    notebook = nbformat.read(Path(__file__).parents[1] / "notebooks" / "06_memory_gpt.ipynb", 4)
    (cell,) = [cell.source for cell in notebook.cells if cell.cell_type == "code" and "toy = " in cell.source]
    names: dict[str, Any] = {
        "memory_folder": str(tmp_path),
        "memory_size": 100,
        "index_type": "flat",
        "num_clusters": 1,
        "np": np,
    }
    names |= {"text": "", "seed": 0, "load_corpus": lambda *_, **__: None, "dtype": "float32"}
    names |= {"device": "cpu", "foundation": "", "context_length": 8, "NearestNeighbourLM": NearestNeighbourLM}
    names |= {"record": lambda **_: None}
    net = Recurrent(characters())
    net.dtype = torch.float32  # as a foundation has it
    names |= {"load_foundation": lambda *_, **__: net, "WindowedFoundation": lambda gpt, _: gpt}
    first = dict(names)
    exec(cell, first)
    second = first if kernels == "one" else dict(names)
    exec(cell, second)
    told = capsys.readouterr().out
    assert "0 texts were remembered by an earlier run, 1 by this one" in told
    assert "1 texts were remembered by an earlier run, 0 by this one" in told
    fresh = NearestNeighbourLM(Recurrent(characters()))
    texts = ["The old mill stood by the river. In spring the miller left for the city."]
    assert evaluate(second["toy"], texts).nats < 0.9 * evaluate(fresh, texts).nats


def test_a_model_with_a_limited_context_is_refused() -> None:
    with pytest.raises(InputError, match="16 tokens at once"):
        NearestNeighbourLM(random_gpt2())  # type: ignore[arg-type]


@given(st.floats(0.05, 0.95), st.integers(0, 1000))
@settings(max_examples=5)
def test_the_constant_weight_is_the_best_there_is(known: float, seed: int) -> None:
    retrieved = made_retrieval(known=known, seed=seed)
    fitted = Interpolation.fit([retrieved], adaptive=False)
    for weight in torch.linspace(0, 0.99, 12).tolist():
        other = Interpolation.constant([weight], fitted.thetas, fitted.counts)
        assert mean_nats(fitted, retrieved) <= mean_nats(other, retrieved) + 1e-4


@pytest.mark.parametrize("adaptive", [False, True])
def test_weights_lie_between_0_and_1_also_where_the_model_is_never_right(adaptive: bool) -> None:
    retrieved = made_retrieval(known=1.0)._replace(own=torch.full((60,), -80.0))
    weights = Interpolation.fit([retrieved], adaptive=adaptive).weights(retrieved.entropy, retrieved.sources)
    assert bool(((weights >= 0) & (weights <= 1)).all())
    torch.testing.assert_close(weights.sum(1), torch.ones(60))


def test_what_a_very_sure_model_rules_out_keeps_its_logarithm_in_a_mixture() -> None:
    """exp(-200) is no number of float32: its logarithm is not that of zero."""
    model = Recurrent(characters())
    model.output *= 60
    tokens = encode_documents(model.tokenizer, ["the cat sat on the mat and the cat"])[0][None]
    own = model.log_probabilities(tokens)
    assert own.min() < -150
    mixture = Interpolation.constant((0.2, 0.3), (5.0, 5.0), (8, 8))
    for mixed in (Cache(model, weight=0.25, theta=5.0), NearestNeighbourLM(model, mixture=mixture)):
        found = mixed.log_probabilities(tokens)
        assert bool((found > own + math.log(0.49)).all())  # what the others leave to it
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(tokens.shape))
    retrieved = made_retrieval(known=0.0)._replace(own=torch.full((60,), -200.0))
    told = Interpolation.constant([0.2], [5.0], [4]).log_probabilities(retrieved)
    assert bool((told >= -200 + math.log(0.79)).all())


def test_a_feature_beyond_those_of_the_fitted_text_counts_as_the_farthest_of_them() -> None:
    retrieved = made_retrieval()
    entropy = 5.0 + 1e-4 * (retrieved.sources[0].similarity[:, 0] > 0.5)  # tells where the neighbours are right
    fitted = Interpolation.fit([retrieved._replace(entropy=entropy)])
    highest, lowest = (fitted.weights(torch.full((60,), float(end)), retrieved.sources) for end in entropy.aminmax())
    for far, border in ((4.0, highest), (6.0, lowest)):
        torch.testing.assert_close(fitted.weights(torch.full((60,), far), retrieved.sources), border)


def test_an_adaptive_mixture_comes_back_with_its_limits(tmp_path: Path) -> None:
    model = neighbour_model()
    model.mixture = Interpolation.fit(model.retrieve(TEXTS))
    model.save(tmp_path / "lm")
    loaded = NearestNeighbourLM.load(tmp_path / "lm")
    tokens = encode_documents(model.tokenizer, ["an unseen text of other words"])[0][None]
    assert torch.equal(loaded.log_probabilities(tokens), model.log_probabilities(tokens))
    assert torch.equal(loaded.mixture.limits, model.mixture.limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [(-0.1, 0.2), (0.7, 0.6), (1.0, 0.0), (float("nan"), 0.1)])
def test_weights_that_are_none_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"less than 1 together|must be a number"):
        Interpolation.constant(weights, (5.0, 5.0), (8, 8))


def test_adaptive_weights_learn_when_to_trust_a_neighbour() -> None:
    fit, held_out = made_retrieval(300, seed=1), made_retrieval(300, seed=2)
    constant, adaptive = (mean_nats(Interpolation.fit([fit], adaptive=a), held_out) for a in (False, True))
    assert adaptive < constant - 0.05


def test_shuffled_values_gain_nothing_and_an_oracle_bounds_the_gain() -> None:
    retrieved = made_retrieval(300)
    own = -retrieved.own.mean().item()
    mixture = Interpolation.fit([retrieved])
    (source,) = retrieved.sources
    shuffled = retrieved._replace(sources=(shuffled_values(source),))
    oracle = retrieved._replace(sources=(oracle_values(source, retrieved.targets),))
    assert mean_nats(mixture, oracle) < mean_nats(mixture, retrieved) < own < mean_nats(mixture, shuffled)
    retuned = Interpolation.fit([shuffled], adaptive=False)
    assert mean_nats(retuned, shuffled) == pytest.approx(own, abs=0.05)


def test_shuffling_gives_an_entry_the_same_earlier_value_everywhere() -> None:
    ids = torch.stack([torch.arange(40), torch.arange(40).roll(7)], 1)
    source = Neighbours(ids, torch.ones(40, 2), ids * 10)
    shuffled = shuffled_values(source, seed=2)
    given_to: dict[int, set[int]] = {}
    for entry, value in zip(ids.flatten().tolist(), shuffled.tokens.flatten().tolist(), strict=True):
        given_to.setdefault(entry, set()).add(value)
    assert all(len(values) == 1 for values in given_to.values())
    assert all(max(values) < entry * 10 for entry, values in given_to.items() if entry > 0)


def nearest_by_hand(keys: Tensor, query: Tensor, k: int) -> list[int]:
    similarity = torch.nn.functional.cosine_similarity(keys, query.unsqueeze(0))
    return similarity.argsort(descending=True)[:k].tolist()


def test_the_memorys_neighbours_are_those_found_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    memory = Datastore.empty(6, 100)
    keys, tokens = torch.randn(30, 6, generator=generator), torch.arange(31)
    memory.add(tokens, keys)
    queries = torch.randn(5, 6, generator=generator)
    found = memory.search(queries, 4)
    for row, query in enumerate(queries):
        by_hand = nearest_by_hand(keys, query, 4)
        assert found.tokens[row].tolist() == [place + 1 for place in by_hand]
        expected = torch.nn.functional.cosine_similarity(keys[by_hand], query.unsqueeze(0))
        torch.testing.assert_close(found.similarity[row], expected)


@pytest.mark.parametrize("theta", [torch.inf, 1e39, -50.0, torch.nan, "a"])
def test_an_inverse_temperature_that_float32_cannot_use_is_refused(theta: Any) -> None:
    for make in (
        lambda: Cache(Recurrent(characters()), theta=theta),
        lambda: Cache.tuned(Recurrent(characters()), TEXTS, thetas=[theta]),
        lambda: Interpolation.constant([0.2], [theta], [8]),
    ):
        with pytest.raises(InputError, match=r"thetas?=.*: must lie in 0 to 1e\+06"):
            make()
    strongest = Cache(Recurrent(characters()), weight=0.5, theta=1e6)
    tokens = encode_documents(characters(), ["the cat sat on the mat"])[0][None]
    torch.testing.assert_close(strongest.log_probabilities(tokens).exp().sum(-1), torch.ones(tokens.shape))


def test_a_mixture_fitted_to_next_to_nothing_is_one_of_numbers() -> None:
    retrieved = made_retrieval(known=1.0)
    for tokens in (1, 2):
        few = Retrieved(
            retrieved.own[-tokens:],
            retrieved.entropy[-tokens:],
            retrieved.targets[-tokens:],
            tuple(Neighbours(*(column[-tokens:] for column in source)) for source in retrieved.sources),
        )
        fitted = Interpolation.fit([few])
        assert fitted.gate.isfinite().all()
        assert fitted.log_probabilities(retrieved).isfinite().all()


def test_a_text_that_no_model_expects_leaves_the_weights_even() -> None:
    nothing = torch.zeros(4, 2, dtype=torch.float64)
    assert mixture_weights(nothing, torch.ones(4, 1, dtype=torch.bool)).tolist() == [0.5, 0.5]
    half = torch.cat([nothing, torch.tensor([[0.5, 0.0]], dtype=torch.float64)])
    assert mixture_weights(half, torch.ones(5, 1, dtype=torch.bool))[0] == 1


def test_what_a_cache_alone_has_not_read_is_impossible() -> None:
    tokens = torch.tensor([[1, 2, 1, 2, 1]])
    found = Cache(Recurrent(characters()), weight=1.0, theta=5.0).log_probabilities(tokens)[0]
    assert found[0].isfinite().all()  # nothing is read yet: the model speaks
    assert (found[1:] == -torch.inf).sum(1).tolist() == [found.shape[1] - n for n in (1, 2, 2, 2)]
