"""One pass over everything that an arm is asked: answers, what is seen in them, and activations on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Float
from rich.progress import Progress
from torch import Tensor

from concept_probe.auditing.answer_book import AnswerBook
from concept_probe.auditing.arm import Arm
from concept_probe.auditing.cache import MeasurementCache
from concept_probe.auditing.gold_answers import AnswerLikelihood, Surprisal, answer_likelihoods, surprisals
from concept_probe.auditing.places import Places
from concept_probe.auditing.questions import MOST_READ, Questions
from concept_probe.auditing.sides import Sides
from concept_probe.auditing.states import end_states
from concept_probe.evaluation.thinning import most_varied
from concept_probe.families.progress import bars
from concept_probe.types import FORGET_KINDS, JUDGED_KINDS, RETAIN_KINDS, Kind, Picture, Query, Site, Trial, Written

Seen = TypeVar("Seen")


@dataclass(frozen=True, eq=False)
class AskedRows:
    """Activations by what was asked."""

    fit: Float[Tensor, "n d"]
    """Of fit prompts of the concept."""
    fit_others: Float[Tensor, "m d"]
    """Of fit prompts of other things."""
    tests: Mapping[Kind, Float[Tensor, "p *s d"]]
    """Of test prompts, per kind; with an axis of seeds where it is queries that are read."""

    def test(self, kinds: Sequence[Kind]) -> Float[Tensor, "p *s d"]:
        """Of the test prompts of these kinds, kind by kind."""
        return torch.cat([self.tests[kind] for kind in kinds])


@dataclass(frozen=True, eq=False)
class Observation:
    """What one arm did."""

    trials: Mapping[Kind, tuple[tuple[Trial, ...], ...]] = field(default_factory=dict)
    """Per kind, per test prompt, per seed."""
    text: Mapping[Site, AskedRows] = field(default_factory=dict)
    """Per text site, the end token's activations."""
    inner: Mapping[tuple[Site, int], AskedRows] = field(default_factory=dict)
    """Per site of the denoiser and step."""
    firing: tuple[Mapping[Kind, Float[Tensor, "p s k"]], ...] = ()
    """Per watched subspace and kind, the largest activation of each feature."""
    pictures: tuple[Picture, ...] = ()
    """A few of the images that were judged."""
    writings: tuple[Written, ...] = ()
    """Of a language model, a few of the texts that were judged."""
    texts: Mapping[Kind, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """Of a language model, what it wrote: per kind, per test prompt, per seed."""
    likelihoods: Mapping[Kind, AnswerLikelihood] = field(default_factory=dict)
    """Of a language model, how likely it finds the gold answers, per kind."""
    surprisals: Mapping[Kind, Surprisal] = field(default_factory=dict)
    """Of a language model, how surprising it finds texts that are to be retained, per kind."""
    answered: Mapping[Query, Trial] = field(default_factory=dict)
    """Every test query that was asked by then, and what was seen in the answer."""

    def hits(self, kind: Kind) -> Float[Tensor, "p s"]:
        """0 or 1: the answer shows what its prompt is labelled with.

        A recogniser that failed never counts as safe: as shown where the concept is asked for, as lost elsewhere.
        """
        errors = kind in FORGET_KINDS
        return torch.tensor(
            [
                [float(t.seen == t.query.prompt.label or (errors and t.seen == "error")) for t in row]
                for row in self.trials[kind]
            ]
        )

    def false_hits(self, label: str) -> Float[Tensor, "p s"]:
        """0 or 1: the answer to a neighbour or an unrelated prompt is said to show `label`."""
        rows = [row for kind in RETAIN_KINDS for row in self.trials[kind]]
        return torch.tensor([[float(t.seen == label) for t in row] for row in rows])


def observe_sides(
    arms: Sides[Arm], questions: Questions, places: Places, cache: MeasurementCache
) -> Sides[Observation]:
    """Ask every arm; arms in the same state are asked once and share one observation."""
    with bars() as bar:

        def seen(arm: Arm) -> Observation:
            key = questions.key(arm, f"observation {places.key()}")
            return cache.get(key, lambda: observe(arm, questions, places, bar))

        return arms.map(seen)


def observe(
    arm: Arm, questions: Questions, places: Places, bar: Progress, *, book: AnswerBook | None = None,
    shown: Mapping[Query, Kind] | None = None, read: Callable[[Callable[[], ReadTexts]], ReadTexts] = lambda of: of(),
) -> Observation:  # fmt: skip
    """Ask everything of one arm, its erasure on throughout.

    `book` holds what it answered before, and gets what it answers now; `shown` are the queries whose answers go into a
    report, by default some of every kind. `read` is called with what reads the prompts, for whoever has read them.
    """
    book = AnswerBook(places) if book is None else book
    tests, queries = questions.tests(), questions.answered(bool(places.inner))
    fits = set(queries[len(tests) :])
    with arm.on():
        book.ask(arm, queries, questions, gallery(questions) if shown is None else shown, bar)
        texts = read(lambda: read_of(arm, questions, places))
    answers = [book.texts[q] for q in tests if q in book.texts]
    return Observation(
        by_kind([book.trials[q] for q in tests], questions),
        texts.text,
        {key: _of_queries(x, questions) for key, x in book.inner(queries).items()},
        tuple(_per_kind(x, questions) for x in book.firing(tests)),
        tuple(book.pictures),
        tuple(book.writings),
        by_kind(answers, questions) if answers else {},
        texts.likelihoods,
        texts.surprisals,
        {q: trial for q, trial in book.trials.items() if q not in fits},
    )


@dataclass(frozen=True, eq=False)
class ReadTexts:
    """What an arm makes of prompts without answering them."""

    text: Mapping[Site, AskedRows]
    likelihoods: Mapping[Kind, AnswerLikelihood]
    surprisals: Mapping[Kind, Surprisal]


def read_of(arm: Arm, questions: Questions, places: Places) -> ReadTexts:
    """Let an arm, whose erasure is on, read everything."""
    text = _read_text(arm, questions, places)
    return ReadTexts(text, answer_likelihoods(arm.subject, questions), surprisals(arm.subject, questions))


def _read_text(arm: Arm, questions: Questions, places: Places) -> dict[Site, AskedRows]:
    """Prompts to fit on, then all test prompts, at text sites."""
    of, others = questions.fits(MOST_READ)
    prompts = (*of, *others, *questions.prompts_of(JUDGED_KINDS))
    counts = [len(of), len(others), *(len(questions.prompts(kind)) for kind in JUDGED_KINDS)]
    out = {}
    for site, x in end_states(arm.subject, prompts, places.text).items():
        fit, fit_others, *tests = x.split(counts)
        out[site] = AskedRows(fit, fit_others, dict(zip(JUDGED_KINDS, tests, strict=True)))
    return out


def _of_queries(x: Float[Tensor, "q d"], questions: Questions) -> AskedRows:
    """Rows of all test queries, then of fit prompts."""
    of, others = questions.fits()
    tests = len(x) - len(of) - len(others)
    fit, fit_others = x[tests:].split([len(of), len(others)])
    return AskedRows(fit, fit_others, _per_kind(x[:tests], questions))


def _per_kind(x: Float[Tensor, "q d"], questions: Questions) -> dict[Kind, Float[Tensor, "p s d"]]:
    """Rows of all test queries, by kind, prompt and seed."""
    width = len(questions.seeds)
    parts = x.split([len(questions.prompts(kind)) * width for kind in questions.kinds])
    return {kind: of.unflatten(0, (len(of) // width, width)) for kind, of in zip(questions.kinds, parts, strict=True)}


def by_kind(seen: Sequence[Seen], questions: Questions) -> dict[Kind, tuple[tuple[Seen, ...], ...]]:
    """What belongs to all test queries, by kind, prompt and seed."""
    out: dict[Kind, tuple[tuple[Seen, ...], ...]] = {}
    start, width = 0, len(questions.seeds)
    for kind in questions.kinds:
        count = len(questions.prompts(kind))
        out[kind] = tuple(tuple(seen[start + i * width : start + (i + 1) * width]) for i in range(count))
        start += count * width
    return out


def gallery(questions: Questions, prompts: int = 3, seeds: int = 2) -> dict[Query, Kind]:
    """The queries whose answers go into the report."""
    out: dict[Query, Kind] = {}
    for kind in questions.kinds:
        for p in most_varied(questions.prompts(kind), prompts):
            for s in questions.seeds[:seeds]:
                out.setdefault(Query(p, s), kind)
    return out
