"""A decoder and its tokenizer as a model of text: how likely it finds one, what it writes next.

    model = TextModel(decoder, corpus.tokenizer, batch_rows=16, device="cpu")
    model.loglikelihood([("The sky is", " blue")])        # [(nats, whether greedy), ...]

What does not fit into a row is cut on its left and counted in `cut_requests`.
Shapes: B rows, T tokens, D width, V vocabulary, n scored positions of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.core import ConfigError
from workbench.data.tokenizer import TextTokenizer
from workbench.models import Decoder

POSITIONS_AT_ONCE = 1024
"""Positions whose logits exist at the same time: V may be a hundred thousand."""
DEFAULT_NEW_TOKENS = 256

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Window:
    """At most T + 1 tokens of a request, of which the model predicts the last `scored`."""

    request: int
    tokens: list[int]
    scored: int


def windows(request: int, tokens: list[int], scored: int, context_tokens: int) -> Iterator[Window]:
    """Cut a sequence so that each of its last `scored` tokens is predicted once.

    Every window reaches back as far as a row does, so the last one has the most context.
    """
    done = len(tokens) - scored
    while done < len(tokens):
        end = min(done + context_tokens, len(tokens))
        yield Window(request, tokens[max(0, end - context_tokens - 1) : end], end - done)
        done = end


class TextModel:
    """Scores and continues text; draws no random number.

    Args:
        model: in evaluation mode, on `device`.
        batch_rows: rows of one forward pass.
        precision: "bfloat16" computes under autocast.
        progress: told (what, requests done, requests).
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: TextTokenizer,
        *,
        batch_rows: int,
        device: str,
        precision: str = "float32",
        progress: Progress | None = None,
    ):
        self._model, self._tokenizer = model, tokenizer
        self._batch_rows, self._device, self._precision = batch_rows, device, precision
        self._progress = progress or (lambda what, done, total: None)
        self.context_tokens = model.context_tokens
        self.cut_requests = 0

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Log-probability in nats of each continuation after its context, and whether every token
        of it is the most likely one."""
        cut = []
        for request, (context, continuation) in enumerate(pairs):
            before, after = self._encoded(context, continuation)
            tokens = before + after
            self.cut_requests += len(tokens) > self.context_tokens + 1
            cut += windows(request, tokens, len(after), self.context_tokens)
        return self._score("scoring", cut, len(pairs))

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """Log-probability in nats of whole texts, each from the end-of-text token on."""
        cut = []
        for request, text in enumerate(texts):
            tokens = self._tokens(text)
            start = [self._tokenizer.eos_id]
            cut += windows(request, start + tokens, len(tokens), self.context_tokens)
        return [nats for nats, _ in self._score("reading", cut, len(texts))]

    def generate(self, pairs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Greedy continuations up to the first of each request's `until` strings.

        A row has room for `max_gen_toks` new tokens or half a row of them, whichever is less, and
        for more where the prompt is short.

        Raises:
            ConfigError: a request asks for sampling.
        """
        written = []
        for done, (prompt, options) in enumerate(pairs):
            if options.get("do_sample") and options.get("temperature", 1.0) > 0:
                raise ConfigError(
                    "the task samples its answers, and answers here are greedy",
                    remedy="choose its greedy form, or set do_sample: false in its YAML",
                )
            until = options.get("until") or []
            stops = [until] if isinstance(until, str) else list(until)
            room = int(options.get("max_gen_toks", DEFAULT_NEW_TOKENS))
            written.append(self._continued(prompt, stops, room))
            self._progress("writing", done + 1, len(pairs))
        return written

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer.encode([text])[0])

    def _encoded(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of both, cut where the tokens of the context end, as lm-eval's models do."""
        if not context:
            return [self._tokenizer.eos_id], self._tokens(continuation)
        # A space before a word is part of its token.
        bare = context.rstrip()
        context, continuation = bare, context[len(bare) :] + continuation
        whole, before = self._tokens(context + continuation), self._tokens(context)
        if len(whole) <= len(before):
            return before, self._tokens(continuation)
        if not before:
            before, whole = [self._tokenizer.eos_id], [self._tokenizer.eos_id, *whole]
        return whole[: len(before)], whole[len(before) :]

    def _score(self, what: str, cut: list[Window], requests: int) -> list[tuple[float, bool]]:
        nats, greedy = [0.0] * requests, [True] * requests
        left = [0] * requests
        for window in cut:
            left[window.request] += 1
        done = sum(count == 0 for count in left)
        # Rows of like length share a batch; the longest first, so that memory fails at once.
        ordered = sorted(cut, key=lambda window: -len(window.tokens))
        for first in range(0, len(ordered), self._batch_rows):
            batch = ordered[first : first + self._batch_rows]
            for window, (value, best) in zip(batch, self._score_batch(batch), strict=True):
                nats[window.request] += value
                greedy[window.request] &= best
                left[window.request] -= 1
                done += left[window.request] == 0
            self._progress(what, done, requests)
        return list(zip(nats, greedy, strict=True))

    def _score_batch(self, batch: list[Window]) -> list[tuple[float, bool]]:
        longest = max(len(window.tokens) for window in batch)
        # Attention looks back only, so what fills a row up on its right changes nothing.
        tokens = torch.full((len(batch), longest), self._tokenizer.eos_id)
        scored_BT = torch.zeros(len(batch), longest - 1, dtype=torch.bool)
        for row, window in enumerate(batch):
            tokens[row, : len(window.tokens)] = torch.tensor(window.tokens)
            last = len(window.tokens) - 1
            scored_BT[row, last - window.scored : last] = True
        with torch.inference_mode(), self._autocast():
            hidden_BTD = self._model.hidden(tokens[:, :-1].to(self._device))
            hidden_nD = hidden_BTD[scored_BT.to(self._device)]
            parts = [
                self._of_positions(*part)
                for part in zip(
                    hidden_nD.split(POSITIONS_AT_ONCE),
                    tokens[:, 1:][scored_BT].to(self._device).split(POSITIONS_AT_ONCE),
                    strict=True,
                )
            ]
        value_n, best_n = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        sizes = [window.scored for window in batch]
        pairs = zip(value_n.double().split(sizes), best_n.split(sizes), strict=True)
        return [(float(value.sum()), bool(best.all())) for value, best in pairs]

    def _of_positions(self, hidden_nD: Tensor, label_n: Tensor) -> tuple[Tensor, Tensor]:
        logits_nV = F.linear(hidden_nD, self._model.head_VD).float()
        value_n = -F.cross_entropy(logits_nV, label_n, reduction="none")
        return value_n, logits_nV.argmax(dim=1) == label_n

    def _continued(self, prompt: str, stops: list[str], room_tokens: int) -> str:
        from transformers import GenerationConfig, StoppingCriteriaList

        eos, tokens = self._tokenizer.eos_id, self._tokens(prompt) or [self._tokenizer.eos_id]
        half = self.context_tokens // 2
        new_tokens = min(room_tokens, max(self.context_tokens - len(tokens), half))
        self.cut_requests += len(tokens) > self.context_tokens - new_tokens
        given = torch.tensor([tokens[-(self.context_tokens - new_tokens) :]], device=self._device)
        start = given.shape[1]

        def stopped(ids: Tensor, scores: Any, **options: Any) -> Tensor:
            text = self._tokenizer.decode(ids[0, start:].tolist())
            return torch.tensor([any(stop in text for stop in stops)], device=ids.device)

        settings = GenerationConfig(
            max_new_tokens=new_tokens, do_sample=False, eos_token_id=eos, pad_token_id=eos
        )
        with torch.inference_mode(), self._autocast():
            ids = self._model.model.generate(
                given,
                attention_mask=torch.ones_like(given),
                generation_config=settings,
                stopping_criteria=StoppingCriteriaList([stopped]),  # pyright: ignore
            )[0, start:].tolist()
        text = self._tokenizer.decode(ids[: ids.index(eos)] if eos in ids else ids)
        ends = [text.find(stop) for stop in stops if stop in text]
        return text[: min(ends)] if ends else text

    def _autocast(self) -> torch.autocast:
        kind = torch.device(self._device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self._precision == "bfloat16")
