"""The tiny model's tokenizer: CLIP's byte-level BPE, with one token for every caption word.

Every byte has its own two tokens, so any Unicode text is encoded and nothing is unknown.
"""

from collections import Counter
from itertools import pairwise

from transformers import CLIPTokenizer

from workers.tiny.captions import vocabulary

LENGTH = 24
"""Tokens of a prompt, the start and the end included; a plain caption needs 13."""

_END_OF_WORD = "</w>"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def _byte_symbols() -> list[str]:
    """The 256 printable stand-ins of byte-level BPE, in the order of GPT-2's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(byte) for byte in printable]
    missing = 256 - len(printable)
    return symbols + [chr(256 + k) for k in range(missing)]


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    k = 0
    while k < len(parts):
        if tuple(parts[k : k + 2]) == pair:
            merged.append(pair[0] + pair[1])
            k += 2
        else:
            merged.append(parts[k])
            k += 1
    return merged


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first, until each word is a single token."""
    split = [[*word[:-1], word[-1] + _END_OF_WORD] for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while any(len(parts) > 1 for parts in split):
        pairs = Counter(pair for parts in split for pair in pairwise(parts))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [_merge(parts, best) for parts in split]
    return merges


def build_tokenizer() -> CLIPTokenizer:
    """A `CLIPTokenizer` of about 700 tokens that pads and cuts to `LENGTH`."""
    merges = learn_merges([*vocabulary(), ","])
    symbols = _byte_symbols()
    tokens = symbols + [symbol + _END_OF_WORD for symbol in symbols]
    tokens += [first + second for first, second in merges]
    tokens += [_START, _END]
    numbers = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=numbers, merges=merges, model_max_length=LENGTH)
