import math
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from frugal.corpora import BytePairTokenizer, CharTokenizer, Document, encode_documents
from frugal.errors import InputError
from frugal.evaluate import NATS_TO_NAME_A_CHARACTER, bootstrap_difference, evaluate, sum_scores
from frugal.foundation import WindowedFoundation
from frugal.foundation.tokenizer import PretrainedTokenizer
from frugal.readout import SoftmaxReadout
from models import TEXTS, Recurrent, Table, Uniform, characters, echo_model, random_gpt2

pytestmark = pytest.mark.usefixtures("own_data_folder")


@given(text=st.text(min_size=1, max_size=60))
@settings(max_examples=50)
def test_a_uniform_model_pays_log2_of_the_vocabulary_for_each_token(text: str) -> None:
    tokenizer = BytePairTokenizer.train(TEXTS, 270)
    text = text.encode("utf-8", "ignore").decode() or "x"  # lone surrogates have no bytes
    scores = evaluate(Uniform(tokenizer), text)
    assert scores.tokens == len(tokenizer.encode(text))
    assert scores.bytes == len(text.encode())
    assert scores.bits_per_byte * scores.bytes == pytest.approx(scores.tokens * math.log2(tokenizer.vocabulary_size))
    assert scores.perplexity == pytest.approx(tokenizer.vocabulary_size)


def test_a_hand_computed_table_comes_out_to_the_last_digit() -> None:
    # Tokens a, b, start, unknown. After the start: a 1/2, b 1/4; after a: a 1/4, b 1/2; after b: a 1/8, b 3/4.
    probabilities = [
        [1 / 4, 1 / 2, 1 / 8, 1 / 8],
        [1 / 8, 3 / 4, 1 / 16, 1 / 16],
        [1 / 2, 1 / 4, 1 / 8, 1 / 8],
        [1 / 4] * 4,
    ]
    model = Table(CharTokenizer("ab"), torch.tensor(probabilities, dtype=torch.float64).log())
    scores = evaluate(model, ["abba", "b"])
    # abba: 1/2 * 1/2 * 3/4 * 1/8, b: 1/4; bits are -log2 of the products.
    bits = [1 + 1 + math.log2(4 / 3) + 3, 2]
    assert [d.nats / math.log(2) for d in scores.documents] == pytest.approx(bits)
    assert scores.bits_per_byte == pytest.approx(sum(bits) / 5)
    assert scores.perplexity == pytest.approx(2 ** (sum(bits) / 5))
    # Likeliest: a after the start (a: hit, b: miss), b after a (hit), b after b (b: hit, a: miss).
    assert scores.accuracy == 3 / 5
    assert scores.accuracy_top5 == 1
    # a: once right, twice there, twice predicted; b: twice right, three times there, three times predicted.
    assert scores.f1 == pytest.approx((2 * 1 / 4 + 2 * 2 / 6) / 2)


@pytest.mark.parametrize("at_once", [1, 7, 4096])
def test_a_carried_state_reads_all_documents_as_one_stream(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frugal.evaluate.TOKENS_AT_ONCE", at_once)
    model = Recurrent(characters())
    scores = evaluate(model, TEXTS, carry=True)
    stream = torch.cat(encode_documents(model.tokenizer, TEXTS))
    each = -model.target_log_probabilities(stream[None])[0]
    scored = stream[1:] != model.tokenizer.start_id  # a document's end is read, never predicted
    assert scores.nats == pytest.approx(each[scored].sum().item(), rel=1e-5)
    assert scores.documents[0].nats == pytest.approx(evaluate(model, TEXTS[0]).nats, rel=1e-5)
    assert scores.documents[1].nats != pytest.approx(evaluate(model, TEXTS[1]).nats, rel=1e-5)


def test_a_carried_state_changes_nothing_for_a_model_that_looks_at_the_last_token_alone() -> None:
    size = characters().vocabulary_size
    model = Table(characters(), torch.randn(size, size, generator=torch.Generator().manual_seed(0)).log_softmax(-1))
    carried, apart = evaluate(model, TEXTS, carry=True), evaluate(model, TEXTS)
    assert [document.nats for document in carried.documents] == pytest.approx([d.nats for d in apart.documents])
    assert (carried.carried, apart.carried) == (True, False)
    assert carried.measure != apart.measure


def test_a_stream_is_not_cut_into_windows() -> None:
    with pytest.raises(InputError, match="a stream is not cut"):
        evaluate(Recurrent(characters()), TEXTS, carry=True, context=4)


def test_equally_likely_tokens_are_not_all_hits() -> None:
    scores = evaluate(Uniform(CharTokenizer("abcdefgh")), "abcdefgh")
    assert scores.accuracy == 1 / 8
    assert scores.accuracy_top5 == 5 / 8


def test_an_unknown_character_costs_its_name_and_is_never_a_hit() -> None:
    model = Uniform(CharTokenizer("ab"))
    scores = evaluate(model, "aé")
    assert scores.nats == pytest.approx(2 * math.log(4) + NATS_TO_NAME_A_CHARACTER)
    assert (scores.documents[0].top1, scores.bytes) == (1, 3)
    assert scores.f1 == pytest.approx((2 / 3 + 0) / 2)


LEARNED_FROM = ["the old king of the café and his three sons, all of them bold."] * 20
MARKS = ["<|endoftext|>", "<unk>"]


def of_bytes(normalizer: normalizers.Normalizer | None) -> PretrainedTokenizer:
    """A tokeniser over bytes, which Pythia and Qwen put behind the normaliser NFC."""
    backend = tokenizers.Tokenizer(models.BPE())
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learn = trainers.BpeTrainer(vocab_size=300, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(LEARNED_FROM, learn)
    return wrapped(backend)


def of_words() -> PretrainedTokenizer:
    """A tokeniser as openai-gpt's: small letters, no white space, what is rare unknown."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.BertPreTokenizer(), decoders.BPEDecoder(suffix="</w>")
    ends = {"end_of_word_suffix": "</w>"}
    backend.train_from_iterator(LEARNED_FROM, trainers.BpeTrainer(special_tokens=MARKS, show_progress=False, **ends))
    return wrapped(backend, unk_token="<unk>")


def wrapped(backend: tokenizers.Tokenizer, **marks: str) -> PretrainedTokenizer:
    end = "<|endoftext|>"
    return PretrainedTokenizer(
        transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end, **marks)
    )


@pytest.mark.parametrize(
    ("normalizer", "text", "lost"),
    [
        (None, "The old KING of the cafe\u0301.", 0),
        (normalizers.NFC(), "The old KING of the café, again and again and again. ", 0),
        (normalizers.NFC(), "The old KING of the cafe\u0301, again and again and again. ", 2),  # e and accent, for é
        (normalizers.Lowercase(), "The old king of the Café, again and again and again. ", 2),
    ],
)
def test_what_a_normaliser_loses_is_charged(normalizer: normalizers.Normalizer | None, text: str, lost: int) -> None:
    tokenizer = of_bytes(normalizer)
    scores = evaluate(Uniform(tokenizer), text)
    assert scores.lost == lost
    paid = len(tokenizer.encode(text)) * math.log(tokenizer.vocabulary_size)
    assert scores.nats == pytest.approx(paid + lost * NATS_TO_NAME_A_CHARACTER)
    assert sum(scores.documents[0].blocks) == pytest.approx(scores.nats)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: of_bytes(normalizers.Lowercase()), "THE OLD KING"),
        (lambda: of_bytes(normalizers.NFC()), unicodedata.normalize("NFD", "éèüé" * 8)),
        (of_words, "The old king,\n\nhis sons:\n  all of them.\n"),
    ],
    ids=["small letters", "composed accents", "openai-gpt"],
)
def test_a_tokeniser_that_changes_much_of_a_text_is_refused(make: Callable[[], PretrainedTokenizer], text: str) -> None:
    with pytest.raises(InputError, match=f"of {len(text)} characters"):
        evaluate(Uniform(make()), text)


def test_all_characters_of_an_unknown_word_are_charged() -> None:
    scores = evaluate(Uniform(of_words()), "the old king of the three sons and his bold king ☃☃☃☃")
    assert scores.lost == 5  # and the space before it


@given(text=st.text(st.sampled_from("abéÄ \n"), min_size=1, max_size=40))
@settings(max_examples=50)
def test_unknown_characters_are_lost_once_each(text: str) -> None:
    tokenizer = CharTokenizer("ab \n")
    scores = evaluate(Uniform(tokenizer), text)
    assert scores.lost == sum(character in "éÄ" for character in text)
    paid = len(text) * math.log(tokenizer.vocabulary_size) + scores.lost * NATS_TO_NAME_A_CHARACTER
    assert scores.nats == pytest.approx(paid)


@given(context=st.integers(1, 30), stride=st.integers(1, 30), batch_tokens=st.integers(1, 100))
@settings(max_examples=40)
def test_windows_score_every_token_once_whatever_their_size(context: int, stride: int, batch_tokens: int) -> None:
    table = torch.randn(20, 20, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    tokenizer = characters()
    size = tokenizer.vocabulary_size
    table = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    whole = evaluate(Table(tokenizer, table), TEXTS)
    cut = evaluate(
        Table(tokenizer, table, context_length=64),
        TEXTS,
        context=context,
        stride=min(stride, context),
        batch_tokens=batch_tokens,
    )
    assert [d.nats for d in cut.documents] == pytest.approx([d.nats for d in whole.documents], abs=1e-4)


def test_a_prediction_looks_back_no_further_than_the_context() -> None:
    model = Recurrent(characters())
    tokens = torch.tensor([model.tokenizer.start_id, *model.tokenizer.encode(TEXTS[0])])
    by_hand = [
        model.log_probabilities(tokens[None, at : at + 1])[0, 0, tokens[at + 1]].item() for at in range(len(tokens) - 1)
    ]
    assert evaluate(model, TEXTS[0], context=1).nats == pytest.approx(-sum(by_hand), rel=1e-5)


def test_documents_are_scored_each_from_the_start() -> None:
    model = Recurrent(characters())
    together = evaluate(model, TEXTS)
    assert [d.nats for d in together.documents] == pytest.approx([evaluate(model, text).nats for text in TEXTS])


def test_a_document_by_itself_is_a_text() -> None:
    document = Document("a", "abba")
    assert (
        evaluate(Uniform(CharTokenizer("ab")), document).nats == evaluate(Uniform(CharTokenizer("ab")), [document]).nats
    )


@pytest.mark.parametrize("text", ["", [], ["some", ""], [Document("blank", "")]])
def test_an_empty_text_is_refused(text: str | list[str]) -> None:
    with pytest.raises(InputError, match="is empty; give some text"):
        evaluate(Uniform(characters()), text)


@pytest.mark.parametrize(("context", "stride"), [(0, None), (65, None), (8, 9), (8, 0)])
def test_impossible_windows_are_refused(context: int, stride: int | None) -> None:
    model = Table(characters(), torch.zeros(30, 30), context_length=64)
    with pytest.raises(InputError, match=r"(context|stride)=\d+: must be"):
        evaluate(model, "the cat", context=context, stride=stride)


def test_a_model_that_answers_nan_is_named_not_averaged() -> None:
    model = Table(characters(), torch.full((30, 30), torch.nan))
    with pytest.raises(InputError, match="answered NaN on 'text 0'"):
        evaluate(model, "the cat")


def test_the_bootstrap_interval_holds_the_difference_and_narrows_to_it_when_documents_agree() -> None:
    model, uniform = Recurrent(characters()), Uniform(characters())
    first, second = evaluate(model, TEXTS), evaluate(uniform, TEXTS)
    difference = bootstrap_difference(first, second)
    assert difference.bits_per_byte == pytest.approx(first.bits_per_byte - second.bits_per_byte)
    assert difference.low < difference.bits_per_byte < difference.high
    same = bootstrap_difference(second, second)
    assert (same.low, same.high) == (0, 0)
    alike = bootstrap_difference(evaluate(model, [TEXTS[0]] * 5), evaluate(uniform, [TEXTS[0]] * 5))
    assert alike.high - alike.low == pytest.approx(0, abs=1e-6)


def test_the_bootstrap_refuses_scores_of_different_texts() -> None:
    model = Uniform(characters())
    with pytest.raises(InputError, match="different documents"):
        bootstrap_difference(evaluate(model, TEXTS), evaluate(model, TEXTS[:2]))


def test_blocks_are_drawn_where_documents_are_too_few() -> None:
    model, uniform = Recurrent(characters()), Uniform(characters())
    for documents, unit in (
        (["the cat sat on the mat " * 9], "blocks"),
        (["the cat", "a"], "blocks"),
        (TEXTS * 3, "documents"),
    ):
        first, second = evaluate(model, documents), evaluate(uniform, documents)
        assert sum(sum(document.blocks) for document in first.documents) == pytest.approx(first.nats)
        difference = bootstrap_difference(first, second)
        assert difference.unit == unit
        assert difference.low < first.bits_per_byte - second.bits_per_byte < difference.high


def test_a_model_on_kept_features_is_scored_from_them_as_from_its_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path))
    for model in (WindowedFoundation(random_gpt2(), context=6), echo_model("residual", SoftmaxReadout(44, 273))):
        encoded = encode_documents(model.tokenizer, TEXTS)
        kept = model.document_scores(encoded)
        assert list(tmp_path.iterdir())
        for tokens, scores in zip(encoded, kept, strict=True):
            expected = model.target_scores(tokens[None])
            torch.testing.assert_close(scores.log_probabilities, expected.log_probabilities[0], rtol=0, atol=2e-2)
            assert (scores.ranks == expected.ranks[0]).float().mean() > 0.9  # features are kept in float16
        cut = evaluate(model, TEXTS, context=4)
        assert (cut.context, cut.stride) == (4, 4)
        assert cut.nats != pytest.approx(evaluate(model, TEXTS).nats, rel=1e-3)


def test_a_document_on_kept_features_is_scored_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for model in (WindowedFoundation(random_gpt2(), context=6), echo_model("residual", SoftmaxReadout(44, 273))):
        whole = evaluate(model, TEXTS)
        with monkeypatch.context() as patch:
            patch.setattr("frugal.foundation.windowed.TOKENS_AT_ONCE", 7)
            patch.setattr("frugal.readout.rows.ROWS_AT_ONCE", 7)
            pieces = evaluate(model, TEXTS)
        assert [d.tokens for d in pieces.documents] == [d.tokens for d in whole.documents]
        assert [d.nats for d in pieces.documents] == pytest.approx([d.nats for d in whole.documents], rel=1e-4)


def test_an_echo_that_is_never_reset_begins_each_scored_document_from_nothing() -> None:
    model = echo_model("concat", SoftmaxReadout(44, 273), reset="never")
    alone = [evaluate(model, text).nats for text in TEXTS]
    assert [document.nats for document in evaluate(model, TEXTS).documents] == pytest.approx(alone, rel=1e-5)


def test_known_scores_are_summed_as_evaluation_sums_them() -> None:
    model = Recurrent(characters())
    expected = evaluate(model, TEXTS)
    scores = model.document_scores(encode_documents(model.tokenizer, TEXTS))
    summed = sum_scores(model.tokenizer, TEXTS, scores)
    assert (summed.documents, summed.f1) == (expected.documents, expected.f1)
    unranked = sum_scores(model.tokenizer, TEXTS, [each.log_probabilities for each in scores])
    assert unranked.nats == expected.nats
    assert (unranked.accuracy, unranked.accuracy_top5, unranked.f1) == (None, None, None)
    with pytest.raises(InputError, match="give those of each document"):
        sum_scores(model.tokenizer, TEXTS, scores[:2])


def test_the_name_of_a_file_is_no_text_to_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate(Uniform(characters()), "valid.txt").bytes == 9  # there is no such file: these are the words
    Path("valid.txt").write_text("the cat sat on the mat. " * 20)
    with pytest.raises(InputError, match=r"text='valid\.txt': names a file"):
        evaluate(Uniform(characters()), "valid.txt")
