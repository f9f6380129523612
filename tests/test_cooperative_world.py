"""Cooperative training where everything can be listed: the identities of the paper, and what follows from them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frugal.combine import Extrapolated, Inverted, Mixture, reweighted
from frugal.cooperative import CooperativePlan, CooperativeTrainer, LSTMLanguageModel, world
from frugal.errors import InputError

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
    assert inverted.log_probabilities(tokens).isfinite().all()
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
    plan = CooperativePlan(batch_size=4000, beginnings="own", prefix_term=True)
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


@pytest.mark.parametrize("beginnings", ["own", "mixed"])
def test_cooperation_brings_the_generator_to_the_data_from_nothing(beginnings: str) -> None:
    data = random_model(0)
    tokens = world.every_sequence(V, T)
    log_p = world.log_probabilities(data, tokens)
    drawn = tokens[torch.multinomial(log_p.exp(), 4000, replacement=True, generator=torch.Generator().manual_seed(0))]
    generator, mediator = random_model(1, 0.1), random_model(2, 0.1)

    def distance() -> float:
        return world.jensen_shannon(log_p, world.log_probabilities(generator, tokens)).item()

    before = distance()
    plan = CooperativePlan(steps=100, batch_size=64, beginnings=beginnings, learning_rate=0.03, mediator_rate=0.05)
    log = CooperativeTrainer(
        generator, mediator, drawn[:3500], drawn[3500:], plan, data_entropy=world.entropy(log_p).item()
    ).train()
    assert distance() < 0.1 * before
    assert log[-1].jsd_low is not None
    assert log[-1].jsd_high is not None
    assert log[-1].jsd_low - 0.05 < distance() < log[-1].jsd_high + 0.05
