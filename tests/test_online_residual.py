"""The residual that is learned while a text is read: against a slow loop, beside the cache, and over documents."""

import pytest
import torch

from frugal.baselines import Cache, NGram
from frugal.corpora import encode_documents
from frugal.errors import InputError
from frugal.evaluate import evaluate
from frugal.foundation import WindowedFoundation
from frugal.generate import ChatSession, Sampling
from frugal.readout import OnlineResidual
from models import TEXTS, Recurrent, characters, random_gpt2

TEXT = "the cat sat on the mat. the dog sat on the log. " * 5


@pytest.mark.parametrize("chunk", [1, 4, 7])
def test_it_is_a_loop_that_predicts_a_chunk_and_then_takes_a_step(chunk: int) -> None:
    model, rate = Recurrent(characters()), 0.3
    tokens = torch.cat(encode_documents(model.tokenizer, [TEXT[:60]]))
    hidden = model.hidden(tokens[None])[0]
    matrix = torch.zeros(16, 16, requires_grad=True)
    expected = []
    for begin in range(0, len(tokens), chunk):
        log_p = ((hidden[begin : begin + chunk] @ (torch.eye(16) + matrix.T)) @ model.output).log_softmax(-1)
        expected.append(log_p.detach())
        targets = tokens[begin + 1 : begin + 1 + chunk]
        loss = -log_p[: len(targets)].gather(1, targets[:, None]).mean()
        (gradient,) = torch.autograd.grad(loss, matrix) if len(targets) else (torch.zeros(16, 16),)
        size = hidden[begin : begin + chunk][: max(1, len(targets))].square().sum(1).mean()
        matrix = (matrix - rate / size * gradient).detach().requires_grad_()
    found = OnlineResidual(model, rate=rate, chunk=chunk).log_probabilities(tokens[None])[0]
    torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=5e-4)


def test_without_a_rate_it_is_the_model_and_with_a_cache_the_cache() -> None:
    model = Recurrent(characters())
    cache = Cache(model, weight=0.3, theta=5.0)
    tokens = encode_documents(model.tokenizer, [TEXT[:50]])[0][None]
    for residual, plain in (
        (OnlineResidual(model, rate=0.0, chunk=3), model),
        (OnlineResidual(model, rate=0.0, chunk=3, cache=cache), cache),
    ):
        torch.testing.assert_close(
            residual.log_probabilities(tokens), plain.log_probabilities(tokens), rtol=0, atol=1e-5
        )


def test_a_carried_state_goes_on_learning_and_the_end_of_a_document_teaches_nothing() -> None:
    model = OnlineResidual(Recurrent(characters()), rate=0.3, chunk=4)
    scores = evaluate(model, [TEXT, TEXT], carry=True)
    assert scores.documents[1].nats < scores.documents[0].nats < evaluate(model.model, TEXT).nats
    start = model.tokenizer.start_id
    _, state = model.advance(torch.tensor([[0, start, start, start, start, start]]), model.start(1))
    assert state.matrix.abs().max() == 0


def test_the_model_under_it_is_left_as_it_is() -> None:
    model = WindowedFoundation(random_gpt2(), context=6)
    before = [weight.clone() for weight in model.foundation.model.parameters()]
    evaluate(OnlineResidual(model, rate=1.0, chunk=4), TEXTS, carry=True)
    assert all(torch.equal(old, new) for old, new in zip(before, model.foundation.model.parameters(), strict=True))


def test_the_rate_is_the_best_of_those_tried_on_validation_text() -> None:
    model = Recurrent(characters())
    rates = (0.0, 0.1, 50.0)
    best = OnlineResidual.tuned(model, [TEXT], rates=rates, chunk=8)
    nats = {rate: evaluate(OnlineResidual(model, rate=rate, chunk=8), [TEXT], carry=True).nats for rate in rates}
    assert nats[best.rate] == min(nats.values())
    assert best.rate == 0.1


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"rate": -1.0}, "rate=-1.0"),
        ({"rate": float("nan")}, "rate=nan"),
        ({"chunk": 0}, "chunk=0"),
        ({"cache": Cache(Recurrent(characters()))}, "over another model"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        OnlineResidual(Recurrent(characters()), **settings)


def test_a_model_of_limited_context_is_refused() -> None:
    with pytest.raises(InputError, match="at once"):
        OnlineResidual(random_gpt2())


def test_any_model_with_hidden_states_can_learn_while_it_reads() -> None:
    gpt = random_gpt2()
    learning = OnlineResidual.over(gpt, rate=0.5)
    assert evaluate(learning, [TEXT, TEXT], carry=True).nats < evaluate(gpt, [TEXT, TEXT]).nats
    with pytest.raises(InputError, match="a NGram is given: must be a language model with hidden states"):
        OnlineResidual.over(NGram(2, characters()).fit([TEXT]))


def test_a_conversation_that_is_learned_from_is_the_same_when_it_is_read_again() -> None:
    model = OnlineResidual.over(random_gpt2(), rate=1.0)
    sampling = Sampling(temperature=0, max_tokens=20)
    session, plain = (ChatSession(each, sampling=sampling) for each in (model, random_gpt2()))
    for talking in (session, plain):
        for message in ("the cat sat on the mat. the cat sat on the mat.", "and the dog?"):
            "".join(talking.reply(message))
    assert session.turns != plain.turns
    again = ChatSession(model, sampling=sampling)
    for message in (turn.text for turn in session.turns[::2]):
        "".join(again.reply(message))
    assert again.turns == session.turns
