"""A pretrained model's own tokeniser, behind the interface that all tokenisers share."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from frugal.corpora import Tokenizer, Turn
from frugal.corpora.tokenizers import token_list
from frugal.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
RARE_TEXT = "ᚠ\N{ALCHEMICAL SYMBOL FOR AIR}\x07"  # no vocabulary has tokens for these, only for their bytes


class PretrainedTokenizer(Tokenizer):
    """Wraps a Hugging Face tokeniser.

    Documents start with `<|endoftext|>` where the vocabulary has it, as in pretraining (a chat model's own bos
    token may mark a turn instead), else with the bos or eos token.

    Args:
        pretrained: the tokeniser.
        end_ids: tokens at which the model's own settings end a text or a turn, beside the tokeniser's end token and
            the one that its chat template puts behind an answer.
        embedded: how many tokens the model has embeddings for; special tokens beyond, such as those that stand for
            pictures, are left out.

    Raises:
        InputError: the tokeniser cannot serve a language model, or not this one.
    """

    def __init__(
        self, pretrained: "PreTrainedTokenizerBase", end_ids: Iterable[int] = (), embedded: int | None = None
    ) -> None:
        vocabulary = pretrained.get_vocab()
        if not pretrained.encode("a", add_special_tokens=False):  # what transformers makes where no files are
            raise InputError("the model has no tokeniser: put its tokenizer.json into its folder")
        start = END_OF_TEXT if END_OF_TEXT in vocabulary else pretrained.bos_token or pretrained.eos_token
        if start is None:
            raise InputError("the tokeniser has no bos or eos token to start documents with: add one to its folder")
        pretrained.bos_token = start  # so that `load_tokenizer`, reading the saved files, finds it
        self.pretrained = pretrained
        self.start_id: int = vocabulary[start]
        special = {number for number, token in pretrained.added_tokens_decoder.items() if token.special}
        largest = max(self.start_id, *(number for number in vocabulary.values() if number not in special))
        if embedded is not None and largest >= embedded:
            raise InputError(
                f"the tokeniser's tokens go up to {largest}, the model embeds {embedded}: tokens were added without "
                "resize_token_embeddings; give the model its own tokeniser"
            )
        known = {number for number in vocabulary.values() if embedded is None or number < embedded}
        self.vocabulary_size = max(known) + 1
        ends = {self.start_id, vocabulary[pretrained.eos_token or start], *end_ids}
        self._end_ids = frozenset(ends | _ends_of_turn(pretrained))
        unknown = vocabulary.get(pretrained.unk_token or "")
        self.unknown_id = unknown if unknown in self.encode(RARE_TEXT).tolist() else None
        self._holes = frozenset(range(self.vocabulary_size)) - known

    @property
    def end_ids(self) -> frozenset[int]:
        return self._end_ids

    @property
    def unwritable_ids(self) -> frozenset[int]:
        return super().unwritable_ids | self._holes

    def encode(self, text: str) -> Tensor:
        tokens = self.pretrained.encode(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return torch.tensor(tokens, dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        ids = token_list(tokens)
        return str(self.pretrained.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def chat_prompt(self, turns: Iterable[Turn]) -> Tensor:
        """Tokens [T] of a conversation in the model's chat template, ready for the assistant's answer.

        Speakers are "system", "user" and "assistant". The turn markers of the template are special tokens, also
        where they stand in a turn's text.

        Raises:
            InputError: the model has no chat template.
        """
        if self.pretrained.chat_template is None:
            raise InputError("the model has no chat template: it continues text; give it a text to continue instead")
        messages = [{"role": turn.speaker, "content": turn.text} for turn in turns]
        text = self.pretrained.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        tokens = torch.tensor(self.pretrained.encode(text, add_special_tokens=False), dtype=torch.int64)
        if int(tokens.max()) >= self.vocabulary_size:
            raise InputError("the model's chat template uses tokens that it has no embeddings for: use another model")
        return tokens

    def save(self, folder: Path) -> None:
        self.pretrained.save_pretrained(folder)


def _ends_of_turn(pretrained: "PreTrainedTokenizerBase") -> set[int]:
    """The added token that the chat template puts behind an answer, if it puts one there."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": RARE_TEXT}]
    try:
        text = str(pretrained.apply_chat_template(turns, tokenize=False))
    except Exception:  # there is none, or whatever it wants beside turns
        return set()
    _, answer, rest = text.rpartition(RARE_TEXT)
    behind = pretrained.encode(rest.lstrip(), add_special_tokens=False) if answer else []
    return set(behind[:1]) & pretrained.added_tokens_decoder.keys()
