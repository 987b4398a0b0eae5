"""The simulated tokenizer: a token is four bytes of UTF-8.

That is about what real vocabularies reach on English, costs nothing, is the same everywhere and can
be turned back into text; texts that begin alike have tokens that begin alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

BYTES_PER_TOKEN = 4
#: Goes before a token's bytes when they are read as a number, so that leading NULs are kept.
_MARKER = b"\x01"


def count_tokens(text: bytes) -> int:
    """Tokens of a text given as UTF-8."""
    return -(-len(text) // BYTES_PER_TOKEN)


def split(text: bytes) -> list[bytes]:
    """The bytes of each token, in order; the last may be shorter."""
    return [text[i : i + BYTES_PER_TOKEN] for i in range(0, len(text), BYTES_PER_TOKEN)]


def encode(text: bytes) -> list[int]:
    """Token ids of a text."""
    return [int.from_bytes(_MARKER + piece, "big") for piece in split(text)]


def decode(ids: Sequence[int]) -> str:
    """The text of token ids, none of them negative; what is no UTF-8 becomes U+FFFD."""
    pieces = (number.to_bytes((number.bit_length() + 7) // 8 or 1, "big")[1:] for number in ids)
    return b"".join(pieces).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenized prompt, as far as an engine cares.

    Attributes:
        tokens: its length.
        blocks: for each full block of the KV cache, a number that stands for the block and all
            before it; valid within one process.
        key: a number drawn from the whole prompt, the same in every process.
    """

    tokens: int
    blocks: tuple[int, ...]
    key: int

    @classmethod
    def from_text(cls, text: bytes, block_size: int) -> Prompt:
        """The prompt that a text makes, in blocks of `block_size` tokens."""
        width = block_size * BYTES_PER_TOKEN
        parts = [text[i : i + width] for i in range(0, len(text) - width + 1, width)]
        return cls(count_tokens(text), _chain(parts), _digest(text))

    @classmethod
    def from_ids(cls, ids: Sequence[int], block_size: int) -> Prompt:
        """The prompt that a client has tokenized itself."""
        full = range(0, len(ids) - block_size + 1, block_size)
        parts = [b",".join(b"%d" % number for number in ids[i : i + block_size]) for i in full]
        whole = b",".join(b"%d" % number for number in ids)
        return cls(len(ids), _chain(parts), _digest(whole))


def _chain(parts: Sequence[bytes]) -> tuple[int, ...]:
    blocks: list[int] = []
    previous = 0
    for part in parts:
        previous = hash((previous, part))
        blocks.append(previous)
    return tuple(blocks)


def _digest(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
