"""Where a picture needs a word: without it, the denoiser predicts the word's place worse.

Weights of attention say where a patch looks, not whether what it finds there matters. Here the word is left out, of the
prompt or of what patches may look at, and the error of the prediction is compared place by place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.activations.attention import MaskOfAttention, masking
from concept_probe.arguments import Count, Natural, check_arguments
from concept_probe.families.diffusion.attentions import AttentionLayer
from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.families.progress import progress
from concept_probe.families.subject import SAMPLING
from concept_probe.families.text.tokens import queries_of
from concept_probe.find.attention.asked import Words, asked_words, kept_layers, kept_steps, latents_of
from concept_probe.find.attention.sums import AttendedRows
from concept_probe.find.attention.words import unsaid, word_places
from concept_probe.registry import UnknownName
from concept_probe.types import Prompt, Query, Sampling

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class NeedOptions:
    """What is left out, and at which noise the errors are compared."""

    without: Literal["word", "attention"] = "word"
    """The `word`: every occurrence is taken out of the prompt, so that no other token has heard of it. Or the `attention` of
    patches to its tokens alone: what other tokens, the end token above all, have gathered of it stays."""
    steps: Sequence[Natural] | None = None
    """Passes of a trajectory whose noise is mixed in, 0 the noisiest; None: the middle two fifths, where a picture is seen and
    words still matter."""
    seeds: Count = 4
    """Draws of noise, of which the mean is taken."""
    layers: Sequence[str] | None = None
    """Names or kinds of layers in which attention is left out; None: all that read the text."""

    def __post_init__(self) -> None:
        check_arguments(self, "need options")
        if self.layers is not None and self.without == "word":
            raise ValueError(
                "need options: layers were named, and a word is left out of the prompt; say without='attention'"
            )


@dataclass(frozen=True)
class NeedMaps:
    """Squared errors of the prediction, place by place, under the whole prompt and without each word."""

    queries: tuple[Query, ...]
    steps: tuple[int, ...]
    whole: Float[Tensor, "n s h w"]
    """Under the whole prompt, at the latents' resolution."""
    without: tuple[Mapping[str, Float[Tensor, "s h w"]], ...]
    """Per prompt, by word."""

    def words(self, query: int = 0) -> list[str]:
        return list(self.without[query])

    def of(self, word: str, *, against: str | None = None, query: int = 0) -> Float[Tensor, "h w"]:
        """By how much the error is larger at each place without `word`, mean over steps and draws: larger than under the whole
        prompt, or than without the word `against`.

        UnknownName, with the words that were left out, for another one.
        """
        base = self.whole[query] if against is None else self._error(against, query)
        return (self._error(word, query) - base).mean(0)

    def _error(self, word: str, query: int) -> Tensor:
        known = {name.casefold(): errors for name, errors in self.without[query].items()}
        if word.casefold() not in known:
            raise UnknownName("word", word, self.words(query), f"prompt {query}: {self.queries[query].prompt.text!r}")
        return known[word.casefold()]


def need_maps(
    subject: Subject,
    prompts: Sequence[Prompt] | Sequence[Query],
    *,
    words: Words = None,
    pictures: Float[Tensor, "n 3 h w"] | None = None,
    sampling: Sampling = SAMPLING,
    options: NeedOptions = NeedOptions(),
) -> NeedMaps:
    """Where pictures need each word of their prompts.

    >>> maps = need_maps(subject, [Prompt("a camel and a rocket")], words=["camel", "rocket"])
    >>> maps.of("camel", against="rocket")

    A picture, drawn or given, is mixed with the noise of each step; the denoiser predicts under the prompt, and once without
    each word, with every occurrence of it left out. One pass for each word and one more, times steps and draws; nothing is
    guided. Words and pictures are as of `attention_maps`.
    """
    if not isinstance(subject, DiffusionSubject):
        raise ValueError(
            f"{subject.name} answers with {subject.answers}; a picture's need of words is of models that draw pictures"
        )
    queries = queries_of(prompts)
    if not queries:
        raise ValueError("no prompt was given to leave words out of")
    said = asked_words(words, [query.prompt for query in queries])
    layers = kept_layers(subject, options.layers) if options.without == "attention" else ()
    every = subject.passes(sampling)
    middle = range(every * 3 // 10, max(every * 3 // 10 + 1, every * 7 // 10))
    steps = kept_steps(middle if options.steps is None else options.steps, every)
    with subject.state.alone(), torch.no_grad():
        latents = subject.sample(queries, sampling) if pictures is None else latents_of(subject, pictures, len(queries))
        places = word_places(subject, [query.prompt for query in queries], said, cut=words is None)
        said = [list(dict.fromkeys(place.word for place in of)) for of in places]
        rows: list[tuple[int, str | None]] = [(i, word) for i, of in enumerate(said) for word in (None, *of)]
        errors: dict[tuple[int, str | None], Tensor] = {}
        with progress("rows with a word left out", len(rows) if len(rows) > sampling.batch else 0) as count:
            for start in range(0, len(rows), sampling.batch):
                part = rows[start : start + sampling.batch]
                cut, asked = [], [queries[i] for i, _ in part]
                if options.without == "attention":
                    cut = [[t for place in places[i] if place.word == word for t in place.tokens] for i, word in part]
                else:
                    asked = [_without(query, word) for query, (_, word) in zip(asked, part, strict=True)]
                of = latents[[i for i, _ in part]]
                found = _errors(_Cut(subject, layers, cut), asked, of, sampling, (steps, options.seeds))
                errors |= dict(zip(part, found, strict=True))
                count(len(part))
    whole = torch.stack([errors[i, None] for i in range(len(queries))])
    return NeedMaps(
        tuple(queries), steps, whole, tuple({word: errors[i, word] for word in of} for i, of in enumerate(said))
    )


def _without(query: Query, word: str | None) -> Query:
    return query if word is None else replace(query, prompt=unsaid(query.prompt, word))


@dataclass(frozen=True)
class _Cut:
    """Attention of patches to some tokens, taken away."""

    subject: DiffusionSubject
    layers: Sequence[AttentionLayer]
    tokens: Sequence[Sequence[int]]
    """Per row of a batch, the tokens that no patch may look at."""

    def masks(self) -> dict[AttentionLayer, MaskOfAttention]:
        return {layer: self._mask(layer) for layer in self.layers}

    def _mask(self, layer: AttentionLayer) -> MaskOfAttention:
        def mask(given: Mapping[str, Any]) -> Tensor:
            query, key = given["query"], given["key"]
            columns = AttendedRows.of(self.subject, layer, query, key)
            seen = torch.ones(len(query), 1, query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
            assert columns.text is not None
            for i, tokens in enumerate(self.tokens):
                if tokens:
                    keys = columns.text[i, list(tokens)]
                    seen[i, 0, columns.queries[i][:, None], keys[None]] = False
            return seen

        return mask


def _errors(
    cut: _Cut, queries: Sequence[Query], latents: Tensor, sampling: Sampling, at: tuple[Sequence[int], int]
) -> Float[Tensor, "n s h w"]:
    """The squared error of the prediction, mean over channels and draws, at each of the steps; `at` is steps and draws."""
    subject, (steps, draws) = cut.subject, at
    condition, index = subject.text.distinct(subject, [query.prompt for query in queries])
    condition = condition.rows(index)
    guidance = subject.guidance(sampling)
    if not guidance.needs_null_text:
        condition = guidance.condition(condition, None)
    out = 0
    for draw in range(draws):
        trajectory = subject.trajectory([query.seed + 1_000_003 * draw for query in queries], sampling.steps)
        schedule, noise = trajectory.schedule, trajectory.latents / trajectory.schedule.starting_std
        clean, errors = latents.to(noise), []
        for step in steps:
            level = schedule.level(step)
            seen, times = schedule.noised(clean, noise, level), trajectory.timesteps[step].expand(len(queries))
            with masking(subject, cut.masks()) if cut.layers else nullcontext():
                predicted = subject.predict(seen, times, condition)
            errors.append((predicted.float() - schedule.prediction_of(clean, noise, level).float()).square().mean(1))
        out = out + torch.stack(errors, 1)
    found = torch.as_tensor(out / draws).cpu()
    if not bool(torch.isfinite(found).all()):
        raise FloatingPointError(
            f"{subject.name}: the prediction without a word is not finite; leave other words out, or run in float32"
        )
    return found
