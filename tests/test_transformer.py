"""The transformer trained from nothing: its windows, its training, its files."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from frugal.baselines import NGram, SmallTransformer, TransformerPlan
from frugal.baselines.transformer import RandomWindows, _rotation, _turned
from frugal.corpora import BytePairTokenizer, CharTokenizer
from frugal.errors import InputError
from frugal.evaluate import evaluate
from frugal.language_model import load_model

TEXT = "the cat sat on the mat. the dog sat on the log. a cat and a dog met on a mat. " * 10


def small(**settings: Any) -> SmallTransformer:
    return SmallTransformer(CharTokenizer.learn([TEXT]), **{"blocks": 2, "width": 16, "context": 8, **settings})


@pytest.mark.parametrize("context", [2, 3, 8, 9])
@pytest.mark.parametrize("cut", [1, 5, 8, 9, 20])
def test_a_stream_read_in_two_parts_has_the_predictions_of_one_read_at_once(context: int, cut: int) -> None:
    model, generator = small(context=context), torch.Generator().manual_seed(0)
    tokens = torch.randint(model.vocabulary_size, (2, 30), generator=generator)
    with torch.no_grad():
        whole = model.log_probabilities(tokens)
        first, state = model.advance(tokens[:, :cut], model.start(2))
        second, state = model.advance(tokens[:, cut:], state)
        torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-5)
        stepped, _ = model.step(tokens[:, 0], state)
        longer = model.log_probabilities(torch.cat([tokens, tokens[:, :1]], 1))
    torch.testing.assert_close(stepped.log_softmax(-1), longer[:, -1], rtol=0, atol=1e-5)


def test_a_prediction_sees_its_window_and_nothing_before_it() -> None:
    model = small(context=8)  # windows begin at 0, 4, 8, ..
    tokens = torch.arange(20)[None] % model.vocabulary_size
    with torch.no_grad():
        before = model.log_probabilities(tokens)
        for changed, row, seen in [(4, 11, True), (3, 11, False), (4, 12, False), (0, 7, True)]:
            other = tokens.clone()
            other[0, changed] += 1
            same = torch.allclose(model.log_probabilities(other)[0, row], before[0, row], atol=1e-6)
            assert same != seen


def test_one_block_is_attention_and_a_map_written_out() -> None:
    model = small(blocks=1, width=4).double()
    tokens = torch.tensor([[3, 1, 2]])
    block, embedding = model.blocks[0], model.embedding.weight

    def normalised(x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    with torch.no_grad():
        x = embedding[tokens[0]]
        q, k, v = (normalised(x) @ block.queries_keys_values.weight.T).split(4, -1)

        def rotated(rows: Tensor) -> Tensor:
            """Coordinates i and i + 2 of each row as a complex number, turned by place * 10000 ** (-i / 2)."""
            places, i = torch.arange(3).unsqueeze(1), torch.arange(2)
            turn = torch.polar(torch.ones(3, 2, dtype=torch.float64), (places * 10_000.0 ** (-i / 2)).double())
            points = torch.complex(rows[:, :2], rows[:, 2:]) * turn
            return torch.cat([points.real, points.imag], 1)

        similarity = rotated(q) @ rotated(k).T / 2  # the root of the head's width
        similarity = similarity.masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
        x = x + similarity.softmax(-1) @ v @ block.mix.weight.T
        x = x + torch.nn.functional.gelu(normalised(x) @ block.widen.weight.T) @ block.narrow.weight.T
        expected = normalised(x) @ embedding.T
        torch.testing.assert_close(model(tokens)[0], expected, rtol=0, atol=1e-6)


def test_turning_keeps_lengths_and_makes_products_depend_on_distance_alone() -> None:
    first, second = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0))
    turn = _rotation(0, 50, 8, torch.device("cpu"))
    one, other = _turned(first.expand(50, 8), turn), _turned(second.expand(50, 8), turn)
    torch.testing.assert_close(one.norm(dim=1), first.norm().expand(50))
    products = [(one[place] @ other[place + 7]).item() for place in range(0, 43, 6)]
    assert all(a == pytest.approx(b, abs=1e-5) for a, b in pairwise(products))


@pytest.mark.parametrize("tokenizer", [CharTokenizer.learn([TEXT]), BytePairTokenizer.train([TEXT], 270)])
def test_training_beats_a_bigram_where_longer_contexts_tell_more(
    tokenizer: CharTokenizer | BytePairTokenizer,
) -> None:
    model = SmallTransformer(tokenizer, blocks=2, width=32, context=16)
    plan = TransformerPlan(examples=1000, learning_rate=1e-2, batch_size=16, epochs=2)
    scores = model.fit([TEXT], plan, valid=[TEXT], progress=False)
    bigram = evaluate(NGram(2, tokenizer).fit([TEXT]), TEXT)
    assert evaluate(model, TEXT).bits_per_byte < bigram.bits_per_byte
    assert scores[-1].validation_nats == pytest.approx(
        -model.target_log_probabilities(torch.cat([torch.tensor([tokenizer.start_id]), tokenizer.encode(TEXT)])[None])
        .mean()
        .item(),
        abs=1e-4,
    )


def test_a_seed_reproduces_a_training_and_another_gives_another(tmp_path: Path) -> None:
    plan = TransformerPlan(examples=64, batch_size=8, epochs=2)

    def trained(seed: int, folder: Path | None = None, **changes: int) -> Tensor:
        model = small(seed=seed)
        own = TransformerPlan(**{"examples": 64, "batch_size": 8, "epochs": 2, "seed": seed, **changes})
        model.fit([TEXT], own, valid=[TEXT], folder=folder, progress=False)
        return model.embedding.weight.detach()

    assert plan.steps == 4
    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))
    assert torch.equal(trained(1, tmp_path / "kept"), trained(1, tmp_path / "kept"))  # the second finds it done
    with pytest.raises(InputError, match="holds another training, which differs in documents:"):
        small(seed=1).fit([TEXT * 2], replace(plan, seed=1), valid=[TEXT], folder=tmp_path / "kept", progress=False)


def test_training_leaves_torch_s_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    small(seed=5).fit([TEXT], TransformerPlan(examples=8, epochs=1), progress=False)
    assert torch.equal(torch.rand(2), expected)


def test_a_text_shorter_than_a_window_trains_too() -> None:
    model = small(context=64)
    scores = model.fit(["the cat"], TransformerPlan(examples=100, batch_size=4), progress=False)
    assert scores[-1].training_loss < scores[0].training_loss


def test_windows_begin_anywhere_and_targets_follow_inputs() -> None:
    windows = RandomWindows(torch.arange(6), length=3, size=50, batches=2)
    inputs, targets = next(iter(windows))
    assert torch.equal(targets, inputs + 1)
    assert set(inputs[:, 0].tolist()) == {0, 1, 2}  # so that the last target is the text's last token


def test_a_saved_transformer_comes_back(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "saved", notes="Untrained.")
    again, tokens = load_model(tmp_path / "saved"), torch.arange(20)[None] % model.vocabulary_size
    assert isinstance(again, SmallTransformer)
    assert torch.equal(again.log_probabilities(tokens), model.log_probabilities(tokens))
    assert "Untrained." in (tmp_path / "saved" / "card.md").read_text()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"blocks": 0}, "blocks=0"),
        ({"width": 33}, "width=33"),
        ({"width": 7}, "width=7"),
        ({"context": 1}, "context=1"),
        ({"width": 64.0}, "width=64.0"),
        ({"seed": 0.5}, "seed=0.5"),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        small(**settings)


def test_a_text_without_a_token_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to train on"):
        small().fit([""], progress=False)
    with pytest.raises(InputError, match="nothing to validate on"):
        small().fit([TEXT], valid=[], progress=False)
