"""Windows: each row kept once, context as promised, blocks that never cross a document's border."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from frugal.corpora import Blocks, strided_windows
from frugal.errors import InputError

CONTEXT_AND_STRIDE = st.integers(1, 40).flatmap(lambda context: st.tuples(st.just(context), st.integers(1, context)))


@given(st.integers(0, 300), CONTEXT_AND_STRIDE)
def test_windows_keep_each_row_exactly_once(length: int, context_and_stride: tuple[int, int]) -> None:
    windows = strided_windows(length, *context_and_stride)
    kept = [row for window in windows for row in range(window.keep, window.end)]
    assert kept == list(range(length))


@given(st.integers(0, 300), CONTEXT_AND_STRIDE)
def test_windows_fit_the_context_and_give_each_kept_row_its_history(
    length: int, context_and_stride: tuple[int, int]
) -> None:
    context, stride = context_and_stride
    for window in strided_windows(length, context, stride):
        assert 0 < window.end - window.begin <= context
        assert window.begin <= window.keep < window.end
        assert window.keep - window.begin >= min(window.keep, context - stride)


@pytest.mark.parametrize(("length", "context", "stride"), [(-1, 4, 2), (10, 0, 1), (10, 4, 0), (10, 4, 5)])
def test_impossible_windows_are_refused(length: int, context: int, stride: int) -> None:
    with pytest.raises(InputError):
        strided_windows(length, context, stride)


def numbered_documents(lengths: list[int]) -> list[torch.Tensor]:
    """Documents whose tokens count up, with a leap of 1000 at each border."""
    return [torch.arange(length) + 1000 * number for number, length in enumerate(lengths)]


@given(st.lists(st.integers(0, 50), max_size=6), st.integers(1, 12), st.integers(1, 15))
def test_blocks_are_all_that_fit_into_each_document(lengths: list[int], length: int, stride: int) -> None:
    documents = numbered_documents(lengths)
    expected = [
        document[begin : begin + length + 1].tolist()
        for document in documents
        for begin in range(0, len(document) - length, stride)
    ]
    if not expected:
        with pytest.raises(InputError, match="longest document"):
            Blocks(documents, length, stride)
        return
    blocks = Blocks(documents, length, stride)
    found = [blocks[index] for index in range(len(blocks))]
    assert [[*inputs.tolist(), targets[-1].item()] for inputs, targets in found] == expected
    assert all(torch.equal(inputs + 1, targets) for inputs, targets in found)


def test_blocks_share_the_tokens_memory() -> None:
    tokens = torch.arange(100)
    inputs, targets = Blocks(tokens, 10, stride=1)[42]
    assert inputs.untyped_storage().data_ptr() == targets.untyped_storage().data_ptr() == tokens.data_ptr()


def test_blocks_tile_the_text_by_default_and_end_where_they_end() -> None:
    blocks = Blocks(torch.arange(21), 5)
    assert [inputs[0].item() for inputs, _ in blocks] == [0, 5, 10, 15]
    with pytest.raises(IndexError):
        blocks[4]


def test_blocks_go_through_a_data_loader() -> None:
    loader = torch.utils.data.DataLoader(Blocks(torch.arange(101), 10), batch_size=4)
    assert [tuple(inputs.shape) for inputs, _ in loader] == [(4, 10), (4, 10), (2, 10)]


@pytest.mark.parametrize(("length", "stride"), [(0, 1), (5, 0), (5, -1)])
def test_impossible_blocks_are_refused(length: int, stride: int) -> None:
    with pytest.raises(InputError, match="must both be positive"):
        Blocks(torch.arange(20), length, stride)
