"""Cooperative training where everything can be listed: the identities of the paper, and what follows from them."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frugal.combine import Extrapolated, Inverted, Mixture, Tempered, reweighted
from frugal.cooperative import (
    CooperativePlan,
    CooperativeTrainer,
    LSTMLanguageModel,
    ReinforceTrainer,
    gradient_noise,
    world,
)
from frugal.errors import InputError
from frugal.language_model import LanguageModel

V, T = 3, 4

seeds = st.integers(0, 10_000)


def random_distribution(seed: int) -> Tensor:
    """Log-probabilities [V^T] of a random distribution over all sequences."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(V**T, generator=generator, dtype=torch.float64)).log_softmax(0)


def random_model(seed: int, scale: float = 1.0, vocabulary: int = V) -> LSTMLanguageModel:
    return LSTMLanguageModel(world.symbols(vocabulary), 5, scale=scale, special=False, seed=seed)


@settings(max_examples=25)
@given(seeds)
def test_the_divergence_is_half_the_sum_of_both_to_the_middle_and_at_most_log_2(seed: int) -> None:
    p, q = random_distribution(seed), random_distribution(seed + 1)
    m = ((p.exp() + q.exp()) / 2).log()
    halves = (p.exp() @ (p - m) + q.exp() @ (q - m)) / 2
    entropies = world.entropy(m) - (world.entropy(p) + world.entropy(q)) / 2
    for value in (halves, entropies):
        assert world.jensen_shannon(p, q).item() == pytest.approx(value.item(), abs=1e-12)
    assert 0 < world.jensen_shannon(p, q) <= math.log(2)


@settings(max_examples=25)
@given(seeds)
def test_any_mediator_gives_a_bound_that_is_tight_at_the_mixture(seed: int) -> None:
    p, q, m = (random_distribution(seed + i) for i in range(3))
    best = world.mixture(p, q)
    gap = world.kullback_leibler(best, m)
    assert world.mediated(p, q, m).item() == pytest.approx((world.jensen_shannon(p, q) + gap).item(), abs=1e-10)
    entropies = (world.entropy(p) + world.entropy(q)) / 2
    explained = world.jensen_shannon(p, q) + entropies + gap
    assert world.balanced_objective(p, q, m).item() == pytest.approx(explained.item(), abs=1e-10)
    assert world.balanced_objective(p, q, best) <= world.balanced_objective(p, q, m)
    assert world.terms(p, q, m).gap == pytest.approx(gap.item())
    assert world.terms(p, q, m).error < 1e-10


def with_zeros(seed: int) -> Tensor:
    """A random distribution in which about half the sequences never come; the first always may."""
    log_p = random_distribution(seed)
    never = torch.rand(V**T, generator=torch.Generator().manual_seed(seed)) < 0.5
    never[0] = False
    return log_p.masked_fill(never, -math.inf).log_softmax(0)


@settings(max_examples=25)
@given(seeds)
def test_what_never_comes_adds_nothing(seed: int) -> None:
    p, q = with_zeros(seed), with_zeros(seed + 1)
    comes = p > -math.inf
    entropy = -(p.exp() * p)[comes].sum()
    assert world.entropy(p).item() == pytest.approx(entropy.item())
    divergence = torch.nn.functional.kl_div(q[comes], p[comes], log_target=True, reduction="sum")
    assert world.kullback_leibler(p, q).item() == pytest.approx(divergence.item())
    m = (p.exp() + q.exp()) / 2
    halves = [torch.special.xlogy(one.exp(), one.exp() / m).nan_to_num(0).sum() / 2 for one in (p, q)]
    assert world.jensen_shannon(p, q).item() == pytest.approx(sum(halves).item())  # type: ignore[union-attr]
    assert world.terms(p, q, world.mixture(p, q)).error < 1e-10
    tables = world.next_symbol(p, V)
    for t, table in enumerate(tables):
        comes = p.reshape(V**t, -1).logsumexp(1) > -math.inf
        torch.testing.assert_close(table.exp().sum(1), comes.double())
    places, tokens = [torch.arange(V**T) // V ** (T - t) for t in range(T)], world.every_sequence(V, T)
    torch.testing.assert_close(sum(tables[t][places[t], tokens[:, 1 + t]] for t in range(T)), p)


def test_divergences_of_certainties_are_differentiable() -> None:
    p = torch.tensor([0.0, -math.inf, -math.inf], dtype=torch.float64)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for value in (world.kullback_leibler(p, logits.log_softmax(0)), world.jensen_shannon(p, logits.log_softmax(0))):
        [gradient] = torch.autograd.grad(value, logits)
        assert gradient.isfinite().all()
        assert gradient[0] < 0


def test_listed_probabilities_sum_to_one_and_conditionals_multiply_to_them() -> None:
    tokens = world.every_sequence(V, T)
    assert len(tokens.unique(dim=0)) == V**T
    log_p = world.log_probabilities(random_model(0), tokens)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)
    tables = world.next_symbol(log_p, V)
    places = [torch.arange(V**T) // V ** (T - t) for t in range(T)]
    product = sum(tables[t][places[t], tokens[:, 1 + t]] for t in range(T))
    torch.testing.assert_close(product, log_p, rtol=0, atol=1e-5)


def test_a_world_too_large_to_list_is_refused() -> None:
    with pytest.raises(InputError, match=r"50\^20 sequences cannot be listed"):
        world.every_sequence(50, 20)


def test_mixing_two_models_gives_the_mean_of_their_sequence_probabilities() -> None:
    tokens, models = world.every_sequence(V, T), (random_model(0), random_model(1))
    expected = world.mixture(*(world.log_probabilities(model, tokens) for model in models))
    given = world.log_probabilities(Mixture(*models), tokens)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)


def test_inverting_the_exact_mediator_gives_the_data_back_at_every_beginning() -> None:
    data, generator = random_model(0), random_model(1)
    inverted = Inverted(generator, Mixture(data, generator), bounds=(1e-9, 1.0))
    tokens = world.every_sequence(V, T)[:, :-1]
    assert inverted.log_probabilities(tokens)[..., :V].isfinite().all()
    torch.testing.assert_close(
        inverted.log_probabilities(tokens).exp(), data.log_probabilities(tokens).exp(), rtol=0, atol=1e-4
    )


def test_weights_of_the_exact_mediator_turn_samples_into_data() -> None:
    tokens, data, generator = world.every_sequence(V, T), random_model(0), random_model(1)
    log_p, log_g = (world.log_probabilities(model, tokens) for model in (data, generator))
    weights = reweighted(log_g, world.mixture(log_p, log_g))
    ratio = (log_p - log_g).exp()
    torch.testing.assert_close(weights, ratio / ratio.mean(), rtol=1e-8, atol=1e-10)


def test_extrapolation_goes_from_the_generator_through_the_mediator_towards_the_data() -> None:
    data, generator = random_model(0), random_model(1, scale=0.5)
    mediator, tokens = Mixture(data, generator), world.every_sequence(V, T)
    log_p = world.log_probabilities(data, tokens)

    def at(lam: float) -> Tensor:
        return world.log_probabilities(Extrapolated(generator, mediator, lam=lam), tokens)

    torch.testing.assert_close(at(0), world.log_probabilities(generator, tokens), rtol=0, atol=1e-5)
    torch.testing.assert_close(at(1), world.log_probabilities(mediator, tokens), rtol=0, atol=1e-5)
    distances = [world.jensen_shannon(log_p, at(lam)).item() for lam in (0, 1, 2)]
    assert distances == sorted(distances, reverse=True)


class Table(LanguageModel):
    """The same distribution [V] after anything."""

    def __init__(self, probabilities: list[float]) -> None:
        self.row = torch.tensor(probabilities).log()
        self.tokenizer = world.symbols(len(probabilities) - 2)
        self.vocabulary_size = len(probabilities)

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        return self.row.expand(*tokens.shape, -1)

    def start(self, batch_size: int) -> None:
        return None

    def step(self, tokens: Tensor, state: None) -> tuple[Tensor, None]:
        return self.row.expand(len(tokens), -1), None


SURE = [1.0, 0.0, 0.0, 0.0, 0.0]
HALF = [0.5, 0.0, 0.5, 0.0, 0.0]
OTHER = [0.0, 0.5, 0.5, 0.0, 0.0]
ANY = [0.2, 0.3, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("first", [SURE, HALF, OTHER, ANY])
@pytest.mark.parametrize("second", [SURE, HALF, OTHER, ANY])
@pytest.mark.parametrize(
    "combine",
    [
        Mixture,
        Inverted,
        *(lambda one, two, lam=lam: Extrapolated(one, two, lam=lam) for lam in (0.0, 0.5, 1.0, 2.0, 10.0)),
    ],
)
def test_what_two_models_never_write_their_combination_never_writes(
    combine: Callable[..., LanguageModel], first: list[float], second: list[float]
) -> None:
    model = combine(Table(first), Table(second))
    tokens = world.every_sequence(3, 3)
    found = model.log_probabilities(tokens).exp()
    state, rows = model.start(len(tokens)), []
    for t in range(4):
        logits, state = model.step(tokens[:, t], state)
        rows.append(logits.softmax(-1))
    torch.testing.assert_close(found.sum(-1), torch.ones(len(tokens), 4))
    torch.testing.assert_close(torch.stack(rows, 1), found)
    assert (found[..., 3:] == 0).all()


@pytest.mark.parametrize(("lam", "expected"), [(0.0, HALF), (1.0, ANY)])
def test_extrapolation_by_nothing_is_the_generator_and_by_one_the_mediator_with_their_zeros(
    lam: float, expected: list[float]
) -> None:
    found = Extrapolated(Table(HALF), Table(ANY), lam=lam).log_probabilities(torch.tensor([[3]])).exp()
    torch.testing.assert_close(found[0, 0], torch.tensor(expected))


@pytest.mark.parametrize("temperature", [1e-30, 1e-9, 0.5, 1.0, 1e4, 1e20])
def test_no_temperature_makes_what_never_comes_likely_or_the_likeliest_no_number(temperature: float) -> None:
    model = random_model(0)
    cases = [(model, torch.tensor([[3, 0, 1]])), (Table([0.25, 0.75, 0, 0, 0]), torch.tensor([[3]]))]
    for base, tokens in cases:
        found = Tempered(base, temperature).log_probabilities(tokens).detach()
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(found.shape[:-1]))
        assert (found[..., 3:].exp() == 0).all()
        if temperature < 1e-3:
            likeliest = base.log_probabilities(tokens).argmax(-1, keepdim=True)
            assert (found.gather(-1, likeliest) == 0).all()
        stepped = Tempered(base, temperature).step(tokens[:, 0], base.start(1))[0].detach()
        torch.testing.assert_close(stepped.softmax(-1), found[:, 0].exp())


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1e-39, 1e39, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match="temperature="):
        Tempered(random_model(0), temperature)


def test_weights_bear_any_ratio() -> None:
    log_g = torch.zeros(4)
    log_m = torch.tensor([1e5, 1e5 - math.log(3), 0.0, -1e5], dtype=torch.float64)
    torch.testing.assert_close(reweighted(log_g, log_m), torch.tensor([3.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(
        reweighted(log_g, torch.tensor([0.0, 0.0, -math.inf, -9.0])), torch.tensor([2.0, 2, 0, 0])
    )
    with pytest.raises(InputError, match="all weights are zero"):
        reweighted(log_g, log_g - 1)
    with pytest.raises(InputError, match="must be numbers"):
        reweighted(log_g, log_g * math.nan)


@pytest.mark.parametrize("bounds", [(0.1, 0.5, 0.9), (0.5,), (0.9, 0.1), (0.0, 1.0)])
def test_bounds_that_are_none_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="must be two numbers in"):
        Inverted(random_model(0), random_model(1), bounds=bounds)  # type: ignore[arg-type]


def gradient(loss: Tensor, model: LSTMLanguageModel) -> Tensor:
    return torch.cat(
        [part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)]
    )


@pytest.mark.parametrize("seed", range(3))
def test_with_the_prefix_term_the_gradient_is_that_of_the_divergence_and_without_it_nearly(seed: int) -> None:
    """The trainer's loss, averaged over all samples by their probability, against autograd through the exact JSD."""
    data, generator = random_model(seed), random_model(seed + 100)
    tokens = world.every_sequence(V, T)
    log_p, log_g = (world.log_probabilities(model, tokens) for model in (data, generator))
    true = gradient(world.jensen_shannon(log_p, log_g), generator)
    conditional_g = generator.log_probabilities(tokens[:, :-1])
    conditional_m = Mixture(data, generator).log_probabilities(tokens[:, :-1]).detach()
    paid = (conditional_g.exp() * (conditional_g - conditional_m)).sum(-1)  # [V^T, T]
    weights = log_g.exp().detach()
    dropped = gradient((weights * paid.sum(1)).sum() / 2, generator)
    assert 0.5 < torch.cosine_similarity(dropped, true, dim=0) < 0.9999

    later = paid.detach().flip(1).cumsum(1).flip(1) - paid.detach()
    chosen = conditional_g.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    whole = gradient((weights * (paid + later * chosen).sum(1)).sum() / 2, generator)
    torch.testing.assert_close(whole, true, rtol=1e-4, atol=1e-6)


def test_the_trainers_losses_are_on_average_the_exact_ones() -> None:
    generator, mediator = random_model(1), random_model(2)
    tokens = world.every_sequence(V, T)
    plan = CooperativePlan(batch_size=4000, prefixes="own", prefix_term=True)
    trainer = CooperativeTrainer(generator, mediator, tokens, tokens, plan)  # data: all sequences, uniformly
    losses = trainer.step(0.0)
    log_g, log_m = (world.log_probabilities(model, tokens) for model in (generator, mediator))
    uniform = torch.full_like(log_g, -T * math.log(V))
    exact = world.balanced_objective(uniform, log_g, log_m)
    assert losses["mediator"].item() == pytest.approx(exact.item() / T, rel=0.02)
    true = gradient(world.kullback_leibler(log_g, log_m.detach()), generator) / T
    estimated = gradient(losses["generator"], generator)
    assert torch.cosine_similarity(estimated, true, dim=0) > 0.98
    assert estimated.norm().item() == pytest.approx(true.norm().item(), rel=0.1)


@pytest.mark.parametrize("kind", ["REINFORCE", "prefix term"])
@pytest.mark.parametrize("samples", [2, 3])
def test_estimates_of_few_samples_are_on_average_the_gradient(kind: str, samples: int) -> None:
    """Every possible batch of samples, each with its probability, on sequences of two symbols."""
    generator, mediator = random_model(1, vocabulary=2), random_model(2, vocabulary=2)
    tokens = world.every_sequence(2, 2)
    plan = CooperativePlan(batch_size=2 * samples, prefixes="own", prefix_term=kind == "prefix term")
    cls = ReinforceTrainer if kind == "REINFORCE" else CooperativeTrainer
    trainer = cls(generator, mediator, tokens, tokens, plan)
    log_g, log_m = (world.log_probabilities(model, tokens) for model in (generator, mediator))
    true = gradient(world.kullback_leibler(log_g, log_m.detach()), generator) / 2
    batches = torch.cartesian_prod(*[torch.arange(len(tokens))] * samples)
    mean = torch.zeros_like(true)
    for batch in batches:
        drawn = tokens[batch]
        rows = (model.log_probabilities(drawn[:, :-1]) for model in (generator, mediator))
        loss = trainer.generator_loss(next(rows), next(rows).detach(), drawn)
        mean += gradient(loss, generator) * log_g[batch].sum().exp().item()
    torch.testing.assert_close(mean, true, rtol=1e-3, atol=1e-6)


def test_one_sample_is_no_baseline_for_itself() -> None:
    models = random_model(1), random_model(2)
    tokens = world.every_sequence(V, T)
    with pytest.raises(InputError, match="batch_size=3: must be at least 4"):
        ReinforceTrainer(*models, tokens, tokens, CooperativePlan(batch_size=3))
    with pytest.raises(InputError, match="samples=1: must be a whole number of at least 2"):
        gradient_noise(*models, tokens, samples=1)


@pytest.mark.parametrize("prefixes", ["own", "mixed"])
def test_cooperation_brings_the_generator_to_the_data_from_nothing(prefixes: str) -> None:
    data = random_model(0)
    tokens = world.every_sequence(V, T)
    log_p = world.log_probabilities(data, tokens)
    drawn = tokens[torch.multinomial(log_p.exp(), 4000, replacement=True, generator=torch.Generator().manual_seed(0))]
    generator, mediator = random_model(1, 0.1), random_model(2, 0.1)

    def distance() -> float:
        return world.jensen_shannon(log_p, world.log_probabilities(generator, tokens)).item()

    before = distance()
    plan = CooperativePlan(steps=100, batch_size=64, prefixes=prefixes, learning_rate=0.03, mediator_rate=0.05)
    log = CooperativeTrainer(
        generator, mediator, drawn[:3500], drawn[3500:], plan, data_entropy=world.entropy(log_p).item()
    ).train()
    assert distance() < 0.1 * before
    assert log[-1].jsd_low is not None
    assert log[-1].jsd_high is not None
    assert log[-1].jsd_low - 0.05 < distance() < log[-1].jsd_high + 0.05
