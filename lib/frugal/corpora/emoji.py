"""Emoji by name, the toy text of GPT-Echo, made so that unseen lines can be told from seen ones.

Most symbols of the original's test lines never occurred in training. Here a symbol has two parts, who or what and the
colour of the skin, each of which has its name and its character; a line held out joins two known parts in a new way.
"""

import unicodedata
from itertools import product

from frugal.corpora.documents import Document

# Some of the characters that take a skin tone: Unicode Technical Standard 51, Emoji_Modifier_Base.
BEARERS = [0x1F442, 0x1F443, *range(0x1F446, 0x1F451), *range(0x1F466, 0x1F46A), 0x1F46E, *range(0x1F470, 0x1F479)]
BEARERS += [0x1F47C, *range(0x1F481, 0x1F484), *range(0x1F485, 0x1F488), 0x1F4AA, *range(0x1F645, 0x1F648)]
BEARERS += [*range(0x1F64B, 0x1F650), 0x1F6A3, *range(0x1F6B4, 0x1F6B7)]
TONES = dict(zip(("light", "medium-light", "medium", "medium-dark", "dark"), range(0x1F3FB, 0x1F400), strict=True))


def emoji_by_name() -> list[Document]:
    """A document for each of them, one line such as `emoji waving hand sign, dark=` and the symbol."""
    documents = []
    for bearer, (tone, modifier) in product(BEARERS, TONES.items()):
        name = f"{unicodedata.name(chr(bearer)).lower()}, {tone}"
        documents.append(Document(name, f"emoji {name}={chr(bearer)}{chr(modifier)}\n"))
    return documents
