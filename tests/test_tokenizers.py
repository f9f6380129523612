"""Tokenisers: exact round trips, special tokens that text cannot produce, files that read back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from frugal.corpora import (
    BytePairTokenizer,
    CharTokenizer,
    Document,
    Tokenizer,
    encode_documents,
    letters_or_bytes,
    load_tokenizer,
)
from frugal.errors import InputError, UnavailableError

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 20
BYTE_PAIRS = BytePairTokenizer.train([TEXT], 280)
ASCII = CharTokenizer.ascii()
LEARNED = CharTokenizer.learn(["hello, wörld", "\N{GRINNING FACE}"])
ALL = pytest.mark.parametrize("tokenizer", [BYTE_PAIRS, ASCII, LEARNED], ids=["byte-pairs", "ascii", "learned"])


@given(st.text())
def test_byte_pairs_give_back_any_text(text: str) -> None:
    assert BYTE_PAIRS.decode(BYTE_PAIRS.encode(text)) == text


@given(st.text(st.characters(codec="ascii")))
def test_the_ascii_tokens_are_the_code_points(text: str) -> None:
    tokens = ASCII.encode(text)
    assert tokens.tolist() == [ord(character) for character in text]
    assert ASCII.decode(tokens) == text


@given(st.text(st.sampled_from(LEARNED.alphabet)))
def test_a_learned_alphabet_gives_back_its_own_text(text: str) -> None:
    assert LEARNED.decode(LEARNED.encode(text)) == text


@given(st.text())
def test_characters_out_of_the_alphabet_become_unknown_and_no_others(text: str) -> None:
    tokens = LEARNED.encode(text)
    expected = [character not in LEARNED.alphabet for character in text]
    assert (tokens == LEARNED.unknown_id).tolist() == expected


@ALL
@given(pieces=st.lists(st.sampled_from(["<|endoftext|>", "<|", "endoftext", "|>", "\N{REPLACEMENT CHARACTER}", " a"])))
def test_text_never_gives_the_start_token(tokenizer: Tokenizer, pieces: list[str]) -> None:
    tokens = tokenizer.encode("".join(pieces))
    assert tokens.dtype == torch.int64
    assert tokenizer.start_id not in tokens
    assert ((tokens >= 0) & (tokens < tokenizer.vocabulary_size)).all()


@ALL
def test_a_saved_tokeniser_reads_back(tokenizer: Tokenizer, tmp_path) -> None:
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = "the dog, wörld <|endoftext|>"
    assert loaded.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert (loaded.start_id, loaded.unknown_id) == (tokenizer.start_id, tokenizer.unknown_id)
    assert loaded.vocabulary_size == tokenizer.vocabulary_size


@ALL
def test_documents_begin_with_the_start_token_which_decodes_to_nothing(tokenizer: Tokenizer) -> None:
    plain, titled = encode_documents(tokenizer, ["hello", Document("a title", "hello")])
    assert plain.tolist() == [tokenizer.start_id, *tokenizer.encode("hello").tolist()]
    assert plain.tolist() == titled.tolist()
    assert tokenizer.decode(plain) == "hello"


def test_byte_pairs_learn_frequent_words() -> None:
    assert BYTE_PAIRS.vocabulary_size == 280
    assert len(BYTE_PAIRS.encode(TEXT)) < 0.6 * len(TEXT)


def test_a_start_token_of_ones_own_survives_saving(tmp_path) -> None:
    trained = BytePairTokenizer.train([TEXT], 280).tokenizer
    trained.add_special_tokens(["<s>"])
    BytePairTokenizer(trained, "<s>").save(tmp_path)
    assert load_tokenizer(tmp_path).start_id == trained.token_to_id("<s>") != BYTE_PAIRS.start_id


@given(st.text(min_size=1))
def test_letters_or_bytes_know_every_text_they_were_made_from(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    tokenizer = letters_or_bytes([text])
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.unknown_id not in tokenizer.encode(text).tolist()


def test_bytes_stand_for_an_alphabet_of_many_letters() -> None:
    many = "".join(chr(0x4E00 + n) for n in range(300))
    assert len(letters_or_bytes([many]).encode("猫 or cat")) == len("猫 or cat".encode())
    assert len(letters_or_bytes([many[:170]]).encode("猫 or cat")) == len("猫 or cat")


@ALL
def test_what_are_no_tokens_of_a_tokeniser_are_not_decoded(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(torch.tensor([])) == ""
    for tokens in ([0, 1], torch.tensor([0.5]), torch.tensor([True]), torch.tensor(0), torch.tensor([[0]]), "a"):
        with pytest.raises(InputError, match=r"tokens of .*: `decode` takes a tensor \[T\] of whole numbers"):
            tokenizer.decode(tokens)  # type: ignore[arg-type]
    for wrong in (-1, 2**40):
        with pytest.raises(InputError, match=f"token {wrong}: must lie in 0 to"):
            tokenizer.decode(torch.tensor([0, wrong]))


def test_characters_beyond_the_alphabet_are_not_decoded() -> None:
    with pytest.raises(InputError, match="token 130: must lie in 0 to 129"):
        ASCII.decode(torch.tensor([130]))


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(InputError, match="vocabulary_size=100"):
        BytePairTokenizer.train([TEXT], 100)


def test_an_empty_alphabet_is_refused() -> None:
    with pytest.raises(InputError, match="alphabet"):
        CharTokenizer.learn([""])


def test_an_unknown_start_token_is_refused() -> None:
    with pytest.raises(InputError, match="start_token"):
        BytePairTokenizer(BYTE_PAIRS.tokenizer, "<nowhere>")


def test_a_folder_without_a_tokeniser_is_refused(tmp_path) -> None:
    with pytest.raises(UnavailableError, match="no readable tokeniser"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokeniser_file_is_refused(tmp_path) -> None:
    BYTE_PAIRS.save(tmp_path)
    file = tmp_path / BytePairTokenizer.FILE
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UnavailableError, match="no readable tokeniser"):
        load_tokenizer(tmp_path)
