"""Hits counted from the answers that an audit kept, as it counted them itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.types import FORGET_KINDS, KINDS, RETAIN_KINDS, AskedAnswer, Observed


def hits_again(
    observed: Observed, side: Literal["before", "after", "control"], kind: str, *, false: bool = False
) -> Float[Tensor, "f s"] | None:
    """(facts, seeds) of the prompts of one kind, float64; `false`: how often the concept is seen where others are asked for.

    None for what is no kind of its own, as prompts that name a style are.
    """
    if false:
        rows = [row for of in RETAIN_KINDS for row in _rows(observed, side, of)]
        return _per_fact(rows, [[float(a.seen == observed.label) for a in row] for row in rows])
    if kind not in KINDS:
        return None
    rows = _rows(observed, side, kind)
    wanted = kind in FORGET_KINDS
    return _per_fact(rows, [[float(a.seen == a.label or (wanted and a.seen == "error")) for a in row] for row in rows])


def _rows(observed: Observed, side: str, kind: str) -> list[list[AskedAnswer]]:
    """Per prompt, in the order of asking, its answers."""
    by: dict[str, list[AskedAnswer]] = {}
    for one in observed.asked:
        if one.side == side and one.kind == kind:
            by.setdefault(one.prompt, []).append(one)
    return list(by.values())


def _per_fact(rows: Sequence[Sequence[AskedAnswer]], hits: Sequence[Sequence[float]]) -> Tensor | None:
    facts: dict[str, list[Tensor]] = {}
    for row, of in zip(rows, hits, strict=True):
        facts.setdefault(row[0].fact or row[0].prompt, []).append(torch.tensor(of))
    return torch.stack([torch.stack(each).mean(0) for each in facts.values()]).double() if facts else None
