"""What a text becomes before it is written: token ids, content hash and duplicate sketch.

    for encoded in encode(["one text", "another"], tokenizer): encoded.ids

Each text is encoded by itself, so that how texts are grouped, and which process encodes them, does
not change a byte.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from workbench.data.duplicates import sketch
from workbench.data.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Encoded:
    """digest: content hash, 16 bytes; text_bytes: length in UTF-8; sketch: scalar of dtype
    `duplicates.SKETCH`; ids: tokens with end-of-text, (tokens,) in the stored type."""

    digest: bytes
    text_bytes: int
    sketch: np.ndarray
    ids: np.ndarray


def encode(texts: list[str], tokenizer: TextTokenizer) -> list[Encoded]:
    """Encode texts, in order."""
    dtype = stored_type(tokenizer.vocab_size)
    found = []
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        digest = content_digest(text)
        stored = np.array([*ids, tokenizer.eos_id], dtype=dtype)
        found.append(Encoded(digest, len(text.encode()), sketch(text, digest), stored))
    return found


def stored_type(vocab_size: int) -> np.dtype:
    """Type that token ids are stored in."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def content_digest(text: str) -> bytes:
    """blake2b of a text in UTF-8, 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
