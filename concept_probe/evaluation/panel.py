"""The answers that a removal is judged on: which are asked for, what is seen, which list of prompts is worst off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.evaluation.bootstrap import mean_score
from concept_probe.evaluation.thinning import scattered
from concept_probe.evaluation.trials import judge_answers
from concept_probe.types import (
    FORGET_KINDS,
    RETAIN_KINDS,
    Concept,
    Judge,
    Kind,
    Prompt,
    Query,
    Recogniser,
    Sampling,
    Score,
    Split,
)
from concept_probe.types.evidence import Better

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class Panel:
    """The queries that a removal is judged on: those that ask for what is to be forgotten, and for what is retained."""

    forget: tuple[Query, ...]
    retain: tuple[Query, ...]
    concept: str
    """The label that answers to `forget` must no longer show."""
    forget_lists: tuple[int, ...] = ()
    """Which list of prompts each query of `forget` is from; empty if they are judged together."""
    retain_lists: tuple[int, ...] = ()
    """The same of `retain`."""


def panel(
    concept: Concept,
    *,
    split: Split = "select",
    forget: Sequence[Kind] = FORGET_KINDS,
    retain: Sequence[Kind] = RETAIN_KINDS,
    images: int = 16,
    others: int | None = None,
    seed: int = 0,
) -> Panel:
    """About `images` queries from the lists `forget` and `others` (as many, if None) from the lists `retain`.

    They are spread over the lists and their prompts; each has a seed of its own. ValueError where a side has no prompts.
    """
    what = f"{concept.name!r}, {split} split"
    own, own_lists = _queries([concept.prompts(kind, split) for kind in forget], images, seed, what)
    rest, rest_lists = _queries([concept.prompts(kind, split) for kind in retain], others or images, seed + 1000, what)
    return Panel(own, rest, concept.label, own_lists, rest_lists)


def _queries(
    lists: Sequence[tuple[Prompt, ...]], images: int, seed: int, what: str
) -> tuple[tuple[Query, ...], tuple[int, ...]]:
    """Queries, and which of the lists each is from."""
    lists = [prompts for prompts in lists if prompts]
    if not lists:
        raise ValueError(f"concept {what}: no prompts to make images from")
    share = -(-images // len(lists))
    out = []
    for number, prompts in enumerate(lists):
        out += [(prompts[place], number) for place in scattered(share, len(prompts))]
    out = out[: max(images, len(lists))]
    return tuple(Query(prompt, seed + i) for i, (prompt, _) in enumerate(out)), tuple(number for _, number in out)


def recognition(
    subject: Subject, queries: Sequence[Query], recogniser: Judge, sampling: Sampling, label: str | None
) -> Tensor:
    """(n, 2) float: 1 where `label` is seen, or the query's own label where it is None; and its probability."""
    found = judge_answers(recogniser, subject.generate(queries, sampling), queries, label)
    wanted = [label if label is not None else query.prompt.label for query in queries]
    return torch.tensor([[float(t.seen == want), t.probability] for t, want in zip(found, wanted, strict=True)])


def recognised(
    subject: Subject, queries: Sequence[Query], recogniser: Recogniser, sampling: Sampling, label: str | None
) -> Tensor:
    """(n,) float: 1 where the recogniser sees `label`, or the query's own label where `label` is None."""
    return recognition(subject, queries, recogniser, sampling, label)[:, 0]


def share_of_control(score: Score) -> float:
    """`value` as a share of `control`; NaN where that is 0: what was never there can't be kept."""
    return score.value / score.control if score.control else math.nan


def unrecognised(tested: Panel, before: Tensor) -> tuple[str, ...]:
    """Which lists of others show what they were asked for in none of their answers, in words; `before` (m,) is of the
    untouched subject.

    `worst_retention` leaves these lists out. Raises NothingSeen where that is every list.
    """
    place = torch.tensor(tested.retain_lists or (0,) * len(tested.retain))
    dead = [i for i in place.unique().tolist() if not before[place == i].any()]
    firsts = [next(q.prompt for q, j in zip(tested.retain, place.tolist(), strict=True) if j == i) for i in dead]
    if dead and len(dead) == len(place.unique()):
        raise NothingSeen(
            f"of what others ask for, {firsts[0].label!r} in {firsts[0].text!r} among it, nothing is seen in {len(before)} answers "
            "of the untouched subject, so what they keep can't be said; check their labels, the recogniser and the sampling"
        )
    return tuple(
        f"{p.label!r} and what else the list of {p.text!r} asks for is seen in none of {int((place == i).sum())} answers of the "
        "untouched subject, so what that list keeps can't be said and it counts for nothing"
        for i, p in zip(dead, firsts, strict=True)
    )


class NothingSeen(ValueError):
    """What is looked for is seen in no answer of the untouched subject: whatever is done, nothing can be said of it."""


def worst_residual(
    tested: Panel, after: Tensor, before: Tensor, seed: int, name: str = "detection of the concept"
) -> Score:
    """Detection on the list of the concept's prompts that keeps most: its name may be gone while a synonym still works.

    `after` and `before` are (n,), one value per query of `forget`; `control` is the mean of `before` on the same list.
    """
    return max(_per_list(tested.forget_lists, after, before, name, "lower", seed), key=lambda s: s.value)


def worst_retention(
    tested: Panel, after: Tensor, before: Tensor, seed: int, name: str = "recognition of others"
) -> Score:
    """Recognition, after over before, on the list of others that keeps least: neighbours hide behind no one.

    Lists that the untouched subject shows nothing of are left out (see `unrecognised`).
    """
    scores = _per_list(tested.retain_lists, after, before, name, "higher", seed)
    return min([s for s in scores if s.control] or scores, key=share_of_control)


def _per_list(lists: Sequence[int], after: Tensor, before: Tensor, name: str, better: Better, seed: int) -> list[Score]:
    place = torch.tensor(lists or (0,) * len(after))
    return [
        mean_score(after[place == i], name, control=float(before[place == i].mean()), better=better, seed=seed)
        for i in place.unique().tolist()
    ]
