import pytest
import torch
from torch.nn.functional import one_hot

from frugal.baselines import NGram
from frugal.corpora import BytePairTokenizer, CharTokenizer, Document
from frugal.errors import InputError
from frugal.readout.recall import COLOURS, RecallTask
from models import Uniform

SOURCE = [Document("filler", "some words that say nothing of any colour at all and go on for a while")]


def a_task(count: int = 16) -> RecallTask:
    return RecallTask.make(CharTokenizer.ascii(), SOURCE, count, filler_words=4, seed=0)


def test_the_question_ends_where_the_answer_begins() -> None:
    task = a_task()
    for number, text in enumerate(task.texts):
        rest = task.tokens[number][task.asked[number] + 1 :]
        assert text.endswith("is" + CharTokenizer.ascii().decode(rest))
        assert task.until_asked(number).shape == (1, task.asked[number] + 1)


def test_states_that_hold_the_colour_are_read_perfectly() -> None:
    task = a_task(64)
    states = [
        one_hot(torch.tensor(colour), 8).float().expand(len(tokens) - 1, 8)
        for tokens, colour in zip(task.tokens, task.labels, strict=True)
    ]
    assert task.share_known(task.known(states, task.parts[2]), after=0) == 1.0


def test_a_key_that_is_the_same_at_statement_and_question_finds_the_colour() -> None:
    tokenizer = BytePairTokenizer.train([a_task().texts[0] + " ".join(COLOURS * 5)], 400)
    task = RecallTask.make(tokenizer, SOURCE, 8, filler_words=4, seed=0)
    keys = torch.eye(len(task.tokens[0]) - 1)
    keys[task.asked[0]] = keys[task.said[0] - len(tokenizer.encode(COLOURS[task.labels[0]]))]
    assert task.follows_most_similar(keys, 0)


def test_too_few_documents_are_refused() -> None:
    with pytest.raises(InputError, match="at least 8"):
        a_task(4)


def test_the_share_of_colours_that_a_model_names() -> None:
    tokenizer = BytePairTokenizer.train([a_task().texts[0] + " ".join(COLOURS * 5)], 400)
    task = RecallTask.make(tokenizer, SOURCE, 16, filler_words=4, seed=0)
    knows = NGram(30, tokenizer).fit(task.texts)
    assert task.share_named(knows, range(16)) == 1.0
    assert task.share_named(Uniform(tokenizer), range(16)) == task.labels.count(0) / 16  # of equals, the first


def test_a_source_shorter_than_a_filler_is_repeated() -> None:
    task = RecallTask.make(CharTokenizer.ascii(), [Document("short", "one two")], 8, filler_words=5, seed=0)
    assert all(text.count("one") + text.count("two") == 5 for text in task.texts)
    with pytest.raises(InputError, match="source: must have words in it"):
        RecallTask.make(CharTokenizer.ascii(), [Document("blank", " ")], 8, filler_words=5, seed=0)
