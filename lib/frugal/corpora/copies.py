"""Documents that are copies of one another, word for word or nearly."""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import islice

from rensa import RMinHash, RMinHashLSH

from frugal.corpora.disk import lie_on_disk
from frugal.corpora.documents import Document
from frugal.corpora.excerpts import words_and_space

COMPARED = 200_000  # characters from a document's beginning
RUN = 5  # words in a row, or characters of a script without spaces
ALIKE = 0.5  # share of the runs of two documents that both have
HASHES, BANDS = 128, 32  # pairs that are half alike meet in a band with a probability of 0.87, of 0.7 with 0.9998
SEED = 1


def without_copies(*parts: Sequence[Document]) -> list[tuple[Document, ...]]:
    """The parts without documents whose text stands in an earlier place."""
    seen: set[bytes] = set()

    def is_new(document: Document) -> bool:
        known = len(seen)
        seen.add(blake2b(document.text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
        return len(seen) > known

    return [tuple(filter(is_new, part)) for part in parts]


def near_copies(documents: Sequence[Document]) -> list[tuple[Document, ...]]:
    """Groups of documents that have half of their runs of five words in common, and each other document by itself.

    A document belongs to a group if it is alike to any one in it. Groups come in the order of their first documents.
    Those of a text that lies on disk are not compared: that takes memory for each, and longer than reading them.

    Source: Broder, On the resemblance and containment of documents, 1997 (MinHash).

    Example:
        >>> tale = "once upon a time there was an old king who had a daughter and a golden bird in a cage"
        >>> documents = [Document("first", tale), Document("other", "a letter"), Document("second", tale + " of iron")]
        >>> [[document.title for document in group] for group in near_copies(documents)]
        [['first', 'second'], ['other']]
    """
    if lie_on_disk(documents):
        return [(document,) for document in documents]
    hashes = [_min_hash(document.text) for document in documents]
    index = RMinHashLSH(threshold=ALIKE, num_perm=HASHES, num_bands=BANDS)
    groups = [[number] for number in range(len(documents))]  # of each document; those of one group share the list
    for number, each in enumerate(hashes):
        for other in index.query(each):
            if groups[other] is not groups[number] and each.jaccard(hashes[other]) >= ALIKE:
                small, large = sorted((groups[other], groups[number]), key=len)
                large += small
                for member in small:
                    groups[member] = large
        index.insert(number, each)
    different = {id(group): group for group in groups}
    return [tuple(documents[number] for number in sorted(group)) for group in different.values()]


def _min_hash(text: str) -> RMinHash:
    words, space = words_and_space(text[:COMPARED].lower())
    runs = zip(*(islice(words, begin, None) for begin in range(min(RUN, len(words)))), strict=False)
    found = RMinHash(num_perm=HASHES, seed=SEED)
    found.update(list({space.join(run) for run in runs}))
    return found
