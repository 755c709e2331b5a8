"""Prompts as token ids, and what each position is: bos, content, subject, eos or pad."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from concept_probe.arguments import Natural
from concept_probe.families.text.several_vectors import spelled_out
from concept_probe.types import BOS, CONTENT, EOS, PAD, SUBJECT, Prompt, Query


@dataclass(frozen=True)
class Occurrence(Prompt):
    """A prompt of which one place where it says its subject is meant, and not the others."""

    nth: Natural = 0
    """The number of that place, 0 the first."""


class TooLong(ValueError):
    """A text has more tokens than the model can read."""


@dataclass(frozen=True)
class Tokens:
    """Tokenised prompts, once for every text encoder of a subject."""

    ids: tuple[Tensor, ...]
    """Per text encoder, long (n, t)."""
    kinds_of: tuple[Tensor, ...]
    """Per text encoder, long (n, t), indices into TOKEN_KINDS."""
    masks: tuple[Tensor, ...]
    """Per text encoder, long (n, t): 0 where the tokenizer padded."""

    read: tuple[int, ...] = (0,)
    """The numbers of the encoders whose states the denoiser reads token by token, one after another along t; those of
    others stand beside them along d, or are read pooled."""

    @property
    def kinds(self) -> Tensor:
        """Kinds (n, t) of the tokens that the denoiser reads."""
        return torch.cat([self.kinds_of[i] for i in self.read], 1)

    @property
    def length(self) -> int:
        return self.ids[0].shape[1]


def prompts_of(asked: Sequence[Prompt] | Sequence[Query]) -> list[Prompt]:
    """The prompts of a list of prompts or queries.

    Raises TypeError for anything else, bare strings above all.
    """
    if isinstance(asked, str | Prompt | Query) or not isinstance(asked, Iterable):
        raise TypeError(f"prompts are {asked!r:.80}; they are a list, each of it a Prompt or a Query")
    out = []
    for one in asked:
        if isinstance(one, Query):
            out.append(one.prompt)
        elif isinstance(one, Prompt):
            out.append(one)
        else:
            raise TypeError(f"expected a Prompt or a Query, found {type(one).__name__} {one!r}; write Prompt({one!r})")
    return out


def queries_of(asked: Sequence[Prompt] | Sequence[Query]) -> list[Query]:
    """Queries as they are; prompts with seed 0."""
    prompts = prompts_of(asked)
    return [one if isinstance(one, Query) else Query(prompt) for one, prompt in zip(asked, prompts, strict=True)]


def subject_spans(prompt: Prompt) -> list[tuple[int, int]]:
    """Character ranges where `prompt.text` says its subject: as whole words if it can be, else anywhere; of an `Occurrence`
    the one that is meant.

    Raises ValueError if the text does not contain the subject.
    """
    if prompt.subject is None:
        return []
    words = re.escape(prompt.subject)
    for pattern in (rf"(?<!\w){words}(?!\w)", words):
        spans = [m.span() for m in re.finditer(pattern, prompt.text, re.IGNORECASE) if m.end() > m.start()]
        if spans:
            return spans[prompt.nth : prompt.nth + 1] if isinstance(prompt, Occurrence) else spans
    raise ValueError(
        f"the subject {prompt.subject!r} is not in the text {prompt.text!r}; name words of the text, or leave it None"
    )


def tokenise(tokenizer: Any, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, kinds and padding mask, each long (n, t), padded and cut to the tokenizer's length.

    A word of several vectors (see `spelled_out`) is all of its tokens, as it is in the pipeline.

    Raises ValueError for a prompt that isn't plain text, TooLong where the cut removes all of a subject; warns, with the
    words that nobody reads, where it removes anything else.
    """
    framed = next((p for p in prompts if p.form != "plain"), None)
    if framed is not None:
        raise ValueError(
            f"prompt {framed.text!r} has form {framed.form!r}; models that make pictures read form 'plain' alone"
        )
    length = tokenizer.model_max_length
    spelled = [spelled_out(tokenizer, p.text, subject_spans(p)) for p in prompts]
    texts, spans = [text for text, _ in spelled], [of for _, of in spelled]
    more = {"return_offsets_mapping": True} if tokenizer.is_fast else {}
    cut = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt", **more)
    ids, mask = cut.input_ids, cut.attention_mask
    offsets = cut.offset_mapping.tolist() if tokenizer.is_fast else None
    kinds = torch.full_like(ids, CONTENT).masked_fill(mask == 0, PAD)
    last = mask.sum(-1) - 1
    kinds[:, 0] = BOS
    kinds[torch.arange(len(ids)), last] = EOS
    shortened: list[tuple[str, str]] = []
    for i, prompt in enumerate(prompts):
        for start, end in spans[i]:
            if offsets is not None:
                spelled_by = [p for p, (a, b) in enumerate(offsets[i]) if a < b and a < end and b > start]
            else:
                spelled_by = _positions(tokenizer, texts[i], start, end)
            positions = [p for p in spelled_by if p < int(last[i])]
            if not positions:
                raise TooLong(
                    f"the subject {prompt.subject!r} of {prompt.text!r} lies behind the {length} tokens that the text "
                    "encoder reads; shorten the text before it"
                )
            kinds[i, positions] = SUBJECT
        if int(last[i]) == length - 1:
            whole = tokenizer(texts[i], verbose=False).input_ids
            if len(whole) > length:
                shortened.append((prompt.text, tokenizer.decode(whole[length - 1 : -1]).strip()))
    if shortened:
        (text, lost), *others = shortened
        more = f", and of {len(others)} more prompts," if others else ""
        warnings.warn(f"only the first {length} tokens of {text!r}{more} are read; {lost!r:.200} is not", stacklevel=2)
    return ids, kinds, mask


def refuse_unembedded(ids: Tensor | Sequence[int], tokenizer: Any, encoder: Any) -> None:
    """Raise ValueError for a token that a text encoder, or language model, has no embedding of."""
    rows = len(encoder.get_input_embeddings().weight)
    highest = int(ids.max()) if isinstance(ids, Tensor) else max(ids, default=0)
    if highest >= rows:
        raise ValueError(
            f"the tokenizer gives token {highest} ({tokenizer.convert_ids_to_tokens(highest)!r}), and the model embeds {rows}: "
            "they belong to different models, or tokens were added without resize_token_embeddings"
        )


def _positions(tokenizer: Any, text: str, start: int, end: int) -> list[int]:
    """The token positions, bos counted, that spell text[start:end], by a tokenizer that gives no offsets."""
    # Byte-pair pieces never cross a word, so what stands before a word has the same pieces alone.
    before = len(tokenizer(text[:start], verbose=False).input_ids) - 1
    return list(range(before, len(tokenizer(text[:end], verbose=False).input_ids) - 1))
