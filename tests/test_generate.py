import math
from typing import Any

import numpy as np
import pytest
import torch

from frugal.baselines import NGram
from frugal.corpora import CharTokenizer
from frugal.errors import InputError
from frugal.evaluate import evaluate
from frugal.generate import ChatSession, Sampling, generate, generate_batch, stream
from models import TEXTS, Table, Uniform, byte_pairs, characters


@pytest.fixture(scope="module")
def model() -> NGram:
    return NGram(6, characters()).fit(TEXTS)


def chain(text: str) -> Table:
    """A model that is sure to spell `text`, then ends the document."""
    tokenizer = CharTokenizer(text)
    table = torch.full((tokenizer.vocabulary_size, tokenizer.vocabulary_size), -20.0)
    path = [tokenizer.start_id, *tokenizer.encode(text).tolist(), tokenizer.start_id]
    table[path[:-1], path[1:]] = 0.0
    return Table(tokenizer, table.log_softmax(-1))


def test_greedy_generation_follows_the_likeliest_path_to_the_end_of_the_document() -> None:
    assert generate(chain("abcdefg"), "", Sampling(temperature=0)) == "abcdefg"
    assert generate(chain("abcdefg"), "abc", Sampling(temperature=0)) == "defg"


def test_max_tokens_bounds_the_answer(model: NGram) -> None:
    assert len(generate(chain("abcdefg"), "", Sampling(max_tokens=3, temperature=0))) == 3


def test_a_seed_gives_the_same_text_again_and_another_seed_another(model: NGram) -> None:
    texts = [generate(model, "the ", Sampling(seed=seed, max_tokens=60)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_streamed_pieces_join_to_the_generated_text(model: NGram) -> None:
    sampling = Sampling(seed=3, max_tokens=50)
    pieces = list(stream(model, "the ", sampling))
    assert len(pieces) > 5
    assert "".join(pieces) == generate(model, "the ", sampling)


@pytest.mark.parametrize("stop", ["d", "de", "defg"])
def test_generation_ends_before_a_stop_string_and_never_shows_its_beginning(stop: str) -> None:
    assert "".join(stream(chain("abcdefg"), "", Sampling(temperature=0, stop=(stop,)))) == "abc"


def test_text_that_only_begins_like_a_stop_string_is_given_in_the_end() -> None:
    assert generate(chain("abcdefg"), "", Sampling(temperature=0, stop=("fgh",))) == "abcdefg"


def test_a_batch_of_different_prompts_gives_what_each_gives_alone() -> None:
    model, prompts = chain("abcdefghij"), ["", "abcdef", "abc"]
    sampling = Sampling(temperature=0, max_tokens=4)
    assert generate_batch(model, prompts, sampling) == [generate(model, prompt, sampling) for prompt in prompts]
    assert generate_batch(model, prompts, sampling) == ["abcd", "ghij", "defg"]


def test_top_k_of_one_is_greedy(model: NGram) -> None:
    assert generate(model, "the ", Sampling(top_k=1, seed=5)) == generate(model, "the ", Sampling(temperature=0))


def test_top_p_leaves_out_the_unlikely_tail() -> None:
    tokenizer = CharTokenizer("ab")
    model = Table(tokenizer, torch.tensor([[0.9, 0.08, 0.01, 0.01]] * 4).log())
    assert set(generate(model, "a", Sampling(top_p=0.85, seed=0, max_tokens=300))) == {"a"}


def test_a_repetition_penalty_moves_on_from_what_was_said() -> None:
    tokenizer = CharTokenizer("abc")
    model = Table(tokenizer, torch.tensor([[0.5, 0.3, 0.1, 0.05, 0.05]] * 5).log())
    assert generate(model, "a", Sampling(temperature=0, repetition_penalty=5.0, max_tokens=2)) == "bc"


def test_unknown_characters_are_never_generated() -> None:
    text = generate(Uniform(CharTokenizer("ab")), "ab", Sampling(seed=0, max_tokens=50))
    assert set(text) <= {"a", "b"}


def test_characters_of_several_bytes_arrive_whole() -> None:
    tokenizer = byte_pairs()
    target = "naïve 日本語"
    path = [tokenizer.start_id, *tokenizer.encode(target).tolist(), tokenizer.start_id]

    class Spelling(Uniform):
        def step(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, int]:
            logits = torch.zeros(1, self.vocabulary_size)
            logits[0, path[state + 1]] = 50.0
            return logits, state + 1

        def start(self, batch_size: int) -> int:
            return 0

    pieces = list(stream(Spelling(tokenizer), "", Sampling(temperature=0)))
    assert "".join(pieces) == target
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_a_prompt_beyond_the_context_is_announced() -> None:
    tokenizer = characters()
    model = Table(tokenizer, torch.zeros(tokenizer.vocabulary_size, tokenizer.vocabulary_size), context_length=4)
    with pytest.warns(UserWarning, match="the prompt has 8 tokens, the model sees the last 4"):
        generate(model, "the cat", Sampling(max_tokens=1))


@pytest.mark.parametrize(
    "setting",
    [{"max_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0},
     {"top_p": 1.5}, {"repetition_penalty": 0.0}, {"stop": ("",)}, {"stop": "end"}, {"stop": (1,)}, {"top_k": 5.0},
     {"max_tokens": 2.5}, {"max_tokens": True}, {"max_tokens": None}, {"temperature": "0.7"}, {"temperature": None},
     {"temperature": math.inf}, {"top_p": "1"}, {"repetition_penalty": 1e40}, {"seed": 1.5}, {"seed": -1},
     {"seed": 2**64}],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(setting: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        Sampling(**setting)


def test_numbers_of_numpy_are_settings_too(model: NGram) -> None:
    given = Sampling(max_tokens=np.int64(3), temperature=np.float32(0.5), top_k=np.int64(2), seed=np.uint8(1))
    assert generate(model, "the", given) == generate(model, "the", Sampling(3, 0.5, 2, seed=1))


@pytest.mark.parametrize("temperature", [1e-6, 1e-9, 1e-38, 5e-324])
def test_the_colder_the_likelier_down_to_the_likeliest(model: NGram, temperature: float) -> None:
    likeliest = generate(model, "the ", Sampling(max_tokens=20, temperature=0))
    assert generate(model, "the ", Sampling(max_tokens=20, temperature=temperature, seed=1)) == likeliest


@pytest.mark.parametrize(
    ("prompt", "message"),
    [(None, "of type NoneType: expected"), (3, "of type int: expected"), ("a\ud800", r"half of .*ud800' at 1\)")],
)
def test_what_is_no_text_is_refused_wherever_it_is_given(model: NGram, prompt: Any, message: str) -> None:
    for use in (
        lambda: generate(model, prompt),
        lambda: generate_batch(model, ["b", prompt]),
        lambda: list(stream(model, prompt)),
        lambda: ChatSession(model).reply(prompt),
        lambda: evaluate(model, prompt),
        lambda: evaluate(model, ["b", prompt]),
        lambda: NGram(2, model.tokenizer).fit(prompt),
    ):
        with pytest.raises(InputError, match=message):
            use()


def test_a_batch_of_no_prompts_gives_no_texts_and_one_prompt_is_no_batch(model: NGram) -> None:
    assert generate_batch(model, []) == []
    with pytest.raises(InputError, match="`generate` takes one"):
        generate_batch(model, "the")


def test_a_row_of_a_seeded_batch_is_the_text_it_would_be_alone(model: NGram) -> None:
    prompts, sampling = ["the ", "a", "on the m"], Sampling(seed=3, max_tokens=30)
    assert generate_batch(model, prompts, sampling) == [generate(model, prompt, sampling) for prompt in prompts]


def test_a_token_costs_the_decoding_of_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = CharTokenizer("ab")
    forever = Table(tokenizer, torch.tensor([[0.1, 0.9, 0, 0], [0.9, 0.1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]).log())
    decoded: list[int] = []

    def decode(self: CharTokenizer, tokens: torch.Tensor) -> str:
        decoded.append(len(tokens))
        return "".join("ab"[token] for token in tokens if token < 2)

    monkeypatch.setattr(CharTokenizer, "decode", decode)
    assert generate(forever, "", Sampling(temperature=0, max_tokens=200)) == "ab" * 100
    assert max(decoded) < 30
