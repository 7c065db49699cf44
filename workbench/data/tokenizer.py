"""Text to token ids: byte-level BPE trained on the corpus, or any tokenizer of `transformers`.

    tokenizer = train_bpe(texts, vocab_size=4096)
    tokenizer.encode(["one document"])        # list of int lists, without special tokens
    tokenizer.save(folder); load_tokenizer(folder)

A literal `<|endoftext|>` inside a document is encoded as ordinary text, never as the token.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from workbench.core import DataError
from workbench.data.hub import answers, is_repository_name, reason_of

END_OF_TEXT = "<|endoftext|>"


class TextTokenizer(Protocol):
    """vocab_size: ids are below it; eos_id: the id that ends a document."""

    vocab_size: int
    eos_id: int

    def encode(self, texts: list[str]) -> list[list[int]]: ...

    def decode(self, ids: list[int]) -> str: ...

    def save(self, folder: Path) -> None: ...


class SpreadSample:
    """A bounded sample of texts with an equal share for each domain, chosen by content hash."""

    def __init__(self, max_bytes: float):
        self.max_bytes = max_bytes
        self._chosen: dict[str, list[tuple[int, str]]] = {}
        self._bytes: dict[str, int] = {}

    def add(self, domain: str, rank: int, text: str) -> None:
        """Offer a text; those of the lowest rank stay."""
        new = domain not in self._chosen
        heap = self._chosen.setdefault(domain, [])
        heapq.heappush(heap, (-rank, text))
        self._bytes[domain] = self._bytes.get(domain, 0) + len(text)
        share = self.max_bytes / len(self._chosen)
        for name in self._chosen if new else (domain,):
            self._shrink(name, share)

    def _shrink(self, domain: str, share: float) -> None:
        heap = self._chosen[domain]
        while len(heap) > 1 and self._bytes[domain] > share:
            self._bytes[domain] -= len(heapq.heappop(heap)[1])

    def texts(self) -> Iterator[str]:
        for heap in self._chosen.values():
            yield from (text for _, text in sorted(heap, reverse=True))


class BytePairTokenizer:
    """A `tokenizers` byte-level BPE with one special token."""

    def __init__(self, tokenizer: Any):
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.vocab_size = tokenizer.get_vocab_size()
        self.eos_id = tokenizer.token_to_id(END_OF_TEXT)

    def encode(self, texts: list[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        self._tokenizer.save(str(folder / "tokenizer.json"))


class PretrainedTokenizer:
    """A tokenizer of `transformers`, used without its special tokens except the end of text."""

    def __init__(self, tokenizer: Any, name: str):
        if tokenizer.eos_token_id is None:
            raise DataError(
                f"tokenizer '{name}' has no end-of-sequence token to put between documents",
                remedy="choose one that has, set eos_token in tokenizer_config.json, or use bpe",
            )
        self._tokenizer = tokenizer
        self.vocab_size = len(tokenizer)
        self.eos_id = int(tokenizer.eos_token_id)

    def encode(self, texts: list[str]) -> list[list[int]]:
        return self._tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)

    def save(self, folder: Path) -> None:
        self._tokenizer.save_pretrained(str(folder / "tokenizer"))


def train_bpe(texts: Iterable[str], vocab_size: int) -> BytePairTokenizer:
    """Train byte-level BPE; the vocabulary may end up smaller when the text yields fewer merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return BytePairTokenizer(tokenizer)


def pretrained(name: str) -> PretrainedTokenizer:
    """A tokenizer of `transformers` by name or folder.

    Raises:
        DataError: it cannot be loaded, or has no end-of-sequence token.
    """
    folder = Path(name).expanduser()
    here = folder.exists()
    if not here and not is_repository_name(name):
        raise _unloadable(name, "no such folder exists here")
    try:
        from_files = here or not answers("model", name)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            str(folder) if here else name, local_files_only=from_files
        )
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and others
        raise _unloadable(name, reason_of(error)) from None
    return PretrainedTokenizer(tokenizer, name)


def _unloadable(name: str, reason: str) -> DataError:
    return DataError(
        f"tokenizer '{name}' cannot be loaded: {reason}",
        remedy="use name='bpe', a folder with tokenizer.json, or check name and network",
    )


def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer saved in a prepared corpus."""
    if (folder / "tokenizer").is_dir():
        return pretrained(str(folder / "tokenizer"))
    from tokenizers import Tokenizer

    return BytePairTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")))


def tokenizer_fingerprint(name: str) -> str:
    """What a tokenizer setting depends on: the files of a folder, else the name itself."""
    folder = Path(name).expanduser()
    if name == "bpe" or not folder.is_dir():
        return name
    states = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir())]
    return json.dumps(states)
