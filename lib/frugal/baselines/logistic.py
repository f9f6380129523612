"""The compiled loops of logistic mixing: tokens as paths of bits through a binary tree, and bits predicted by many.

Token v of a vocabulary of V is the leaf 2^depth + v of a heap: from the root, node 1, its bits lead from node i to
node 2 i or 2 i + 1. A node whose right half lies beyond the vocabulary has nothing to decide. Predictions of one bit
are mixed in the logistic domain (Mahoney, "Adaptive weighing of context models for lossless data compression", 2005):

    p = squash(sum_k w_k stretch(p_k)),    stretch(p) = ln(p / (1 - p)),    w_k <- w_k + rate (bit - p) stretch(p_k)

This module alone of the room imports numba, and is imported when a text is first read.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")

STEEPEST = np.float32(12)  # largest |stretch|: a probability of 6e-6, below which no expert is believed
LEAST = np.float32(1e-6)  # of a bit that is mixed
PRIME = np.uint64(0x9E3779B97F4A7C15)
# Of learning: of the weights, of a slot at least, of the corrections.
MIXING_RATE, SLOWEST, CORRECTION_RATE = np.float32(0.003), np.float32(1 / 250), np.float32(0.02)


@compiled
def stretch(p: np.float32) -> np.float32:
    """The logarithm of the odds, within bounds."""
    x = np.float32(math.log(p / (np.float32(1) - p)))
    return min(max(x, -STEEPEST), STEEPEST)


@compiled
def squash(x: np.float32) -> np.float32:
    """The inverse of `stretch`, kept away from certainty."""
    p = np.float32(1) / (np.float32(1) + np.float32(math.exp(-x)))
    return min(max(p, LEAST), np.float32(1) - LEAST)


@compiled
def mix_experts(
    said: Floats,
    targets: NDArray[np.int64],
    contexts: NDArray[np.int64],
    by_node: Floats,
    by_context: Floats,
    rate: float,
    skipped: int,
    mixed: Floats,
) -> None:
    """Mix rows of distributions, learning from each target before the next row.

    Args:
        said: log-probabilities [T, K, V] of each expert.
        targets: what came after each row, [T]; -1 where it is not known yet.
        contexts: of each row, [T], such as the token before it.
        by_node: weights [nodes, K] of each inner node of the tree; changed in place.
        by_context: weights [contexts, K]; changed in place. Those of node and context are added.
        rate: of learning.
        skipped: a token that is never learnt as a target, such as a document's start.
        mixed: log-probabilities [T, V], overwritten.
    """
    T, K, V = said.shape
    depth = math.ceil(math.log2(V))
    leaves = 1 << depth
    mass = np.zeros((2 * leaves, K), np.float32)
    log_p = np.zeros(2 * leaves, np.float32)
    x = np.zeros(K, np.float32)
    shared = by_node.shape[0] < leaves  # too many nodes: those of one depth have their weights in common
    for t in range(T):
        context = contexts[t]
        for v in range(V):
            for k in range(K):
                mass[leaves + v, k] = math.exp(said[t, k, v])
        for node in range(leaves - 1, 0, -1):
            for k in range(K):
                mass[node, k] = mass[2 * node, k] + mass[2 * node + 1, k]
        log_p[1] = 0
        for level in range(depth):
            width = 1 << (depth - level)  # leaves below a node
            for node in range(1 << level, 2 << level):
                begin = node * width - leaves
                if begin >= V:
                    break
                if begin + width // 2 >= V:
                    log_p[2 * node], log_p[2 * node + 1] = log_p[node], -np.inf
                    continue
                row = level if shared else node
                dot = np.float32(0)
                for k in range(K):
                    dot += (by_node[row, k] + by_context[context, k]) * _odds(mass[2 * node + 1, k], mass[2 * node, k])
                p = squash(dot)
                log_p[2 * node] = log_p[node] + math.log(1 - p)
                log_p[2 * node + 1] = log_p[node] + math.log(p)
        mixed[t] = log_p[leaves : leaves + V]
        if targets[t] < 0 or targets[t] == skipped:
            continue
        place = leaves + targets[t]
        for level in range(depth):
            node = place >> (depth - level)
            width = 1 << (depth - level)
            if node * width - leaves + width // 2 >= V:
                continue
            row = level if shared else node
            bit = (place >> (depth - level - 1)) & 1
            dot = np.float32(0)
            for k in range(K):
                x[k] = _odds(mass[2 * node + 1, k], mass[2 * node, k])
                dot += (by_node[row, k] + by_context[context, k]) * x[k]
            step = np.float32(rate) * (np.float32(bit) - squash(dot))
            for k in range(K):
                by_node[row, k] += step * x[k]
                by_context[context, k] += step * x[k]


@compiled
def _odds(right: np.float32, left: np.float32) -> np.float32:
    """The stretched share of the right half; 0 where an expert knows neither."""
    if right + left <= 0:
        return np.float32(0)
    return stretch(min(max(right / (right + left), np.float32(1e-7)), np.float32(1 - 1e-7)))


@compiled
def _slot(context: np.uint64, node: int, keys: NDArray[np.uint16], seen: NDArray[np.uint8]) -> np.int64:
    """Where a context's count of a node lies: of two places the one with its key, else -1 - the one to give up."""
    h = _hash(context, node)
    key = _key(h)
    place = np.int64((h >> np.uint64(8)) & np.uint64(len(keys) - 1))
    other = place ^ 1
    if keys[place] == key:
        return place
    if keys[other] == key:
        return other
    return -1 - (place if seen[place] <= seen[other] else other)


@compiled
def _hash(context: np.uint64, node: int) -> np.uint64:
    h = (context + np.uint64(node)) * PRIME
    return (h ^ (h >> np.uint64(29))) * PRIME


@compiled
def _key(h: np.uint64) -> np.uint16:
    return np.uint16((h >> np.uint64(48)) | np.uint64(1))  # 0 is of an empty slot


@compiled
def _bucket(seen: int) -> int:
    """0 for nothing, then 1, 2, 3, 4-5, 6-11, 12-63, more."""
    if seen < 4:
        return seen
    return 4 if seen < 6 else (5 if seen < 12 else (6 if seen < 64 else 7))


@compiled
def set_contexts(history: NDArray[np.int64], is_word: NDArray[np.bool_], contexts: NDArray[np.uint64]) -> None:
    """Hashes of the last 0, 1, .. tokens, and in the last place of the word so far with the token before it.

    `history` holds the last tokens, the latest last.
    """
    orders = len(contexts) - 1
    h = np.uint64(0)
    for k in range(orders):
        contexts[k] = (h + np.uint64(k + 1)) * PRIME
        if k < orders - 1:
            h = (h + np.uint64(history[len(history) - 1 - k] + 1)) * PRIME
            h ^= h >> np.uint64(31)
    h = np.uint64(0)
    for i in range(len(history) - 1, -1, -1):
        h = (h + np.uint64(history[i] + 1)) * PRIME
        h ^= h >> np.uint64(31)
        if not is_word[history[i]]:
            break
    contexts[orders] = (h + np.uint64(orders + 1)) * PRIME


@compiled
def read_contexts(
    tokens: NDArray[np.int64],
    learn: bool,
    wanted: bool,
    history: NDArray[np.int64],
    is_word: NDArray[np.bool_],
    chance: Floats,
    seen: NDArray[np.uint8],
    keys: NDArray[np.uint16],
    weights: Floats,
    refined: Floats,
    mixed: Floats,
    skipped: int,
) -> None:
    """Read tokens one after the other: learn each from what came before, then predict the next.

    Args:
        tokens: [T].
        learn: change the tables, in place.
        wanted: fill `mixed` [T, V] with the log-probabilities after each token.
        history: the tokens before, the latest last; changed in place.
        is_word: [V], which tokens go on a word.
        chance, seen, keys: the hashed table [slots]: probability that a bit is 1, how often it came, whose slot it is.
        weights: of the inputs, [orders, orders + 1, buckets]: by the longest context that has seen a node, by context
            (of 0 to orders - 1 tokens, and of words), and by how often its slot was seen.
        refined: [rows, 24] chances that correct a mixed one, by last token and node (an adaptive probability map).
        skipped: a token that is never learnt as a target, such as a document's start.
    """
    V = mixed.shape[1]
    depth = math.ceil(math.log2(V))
    leaves = 1 << depth
    K = weights.shape[1]
    contexts = np.zeros(K, np.uint64)
    places = np.zeros(K, np.int64)
    x = np.zeros(K, np.float32)
    buckets = np.zeros(K, np.int64)
    log_p = np.zeros(2 * leaves, np.float32)
    for t in range(len(tokens)):
        token = tokens[t]
        if learn and token != skipped:
            set_contexts(history, is_word, contexts)
            last = history[len(history) - 1]
            for level in range(depth):
                node = (leaves + token) >> (depth - level)
                width = 1 << (depth - level)
                if node * width - leaves + width // 2 >= V:
                    continue
                bit = np.float32(((leaves + token) >> (depth - level - 1)) & 1)
                longest = _look_up(contexts, node, chance, seen, keys, places, x, buckets)
                p = _weighed(weights[longest], x, buckets)
                low, share = _cell(p)
                cells = refined[(last * leaves + node) % len(refined)]
                corrected = cells[low] * (1 - share) + cells[low + 1] * share
                cells[low] += CORRECTION_RATE * (1 - share) * (bit - corrected)
                cells[low + 1] += CORRECTION_RATE * share * (bit - corrected)
                step = MIXING_RATE * (bit - p)
                for k in range(K):
                    weights[longest, k, buckets[k]] += step * x[k]
                    place = places[k]
                    if place < 0:
                        place = -1 - place
                        chance[place], seen[place], keys[place] = np.float32(0.5), 0, _key(_hash(contexts[k], node))
                    rate = max(np.float32(1) / (seen[place] + np.float32(1.6)), SLOWEST)
                    chance[place] += rate * (bit - chance[place])
                    if seen[place] < 255:
                        seen[place] += 1
        for i in range(len(history) - 1):
            history[i] = history[i + 1]
        history[len(history) - 1] = token
        if not wanted:
            continue
        set_contexts(history, is_word, contexts)
        log_p[1] = 0
        for level in range(depth):
            width = 1 << (depth - level)
            for node in range(1 << level, 2 << level):
                begin = node * width - leaves
                if begin >= V:
                    break
                if begin + width // 2 >= V:
                    log_p[2 * node], log_p[2 * node + 1] = log_p[node], -np.inf
                    continue
                longest = _look_up(contexts, node, chance, seen, keys, places, x, buckets)
                p = _weighed(weights[longest], x, buckets)
                low, share = _cell(p)
                cells = refined[(token * leaves + node) % len(refined)]
                corrected = cells[low] * (1 - share) + cells[low + 1] * share
                p = min(max((p + corrected) / 2, LEAST), 1 - LEAST)
                log_p[2 * node] = log_p[node] + math.log(1 - p)
                log_p[2 * node + 1] = log_p[node] + math.log(p)
        mixed[t] = log_p[leaves : leaves + V]


@compiled
def _look_up(
    contexts: NDArray[np.uint64],
    node: int,
    chance: Floats,
    seen: NDArray[np.uint8],
    keys: NDArray[np.uint16],
    places: NDArray[np.int64],
    x: Floats,
    buckets: NDArray[np.int64],
) -> int:
    """Fill in each context's slot, input and bucket; the longest context that has seen the node."""
    longest = 0
    for k in range(len(contexts)):
        place = _slot(contexts[k], node, keys, seen)
        places[k] = place
        if place < 0:
            x[k], buckets[k] = 0, 0
        else:
            x[k], buckets[k] = stretch(chance[place]), _bucket(seen[place])
            if k < len(contexts) - 1:
                longest = k
    return longest


@compiled
def _weighed(weights: Floats, x: Floats, buckets: NDArray[np.int64]) -> np.float32:
    dot = np.float32(0)
    for k in range(len(x)):
        dot += weights[k, buckets[k]] * x[k]
    return squash(dot)


@compiled
def _cell(p: np.float32) -> tuple[int, np.float32]:
    """Which two of 24 cells a probability lies between, by its stretch, and how near it is to the second."""
    place = (stretch(p) + STEEPEST) * np.float32(22.999 / 24)
    low = int(place)
    return low, place - low
