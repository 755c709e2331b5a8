"""Which token of a destination stands for which token of a concept's prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from concept_probe.types import BOS, CONTENT, EOS, PAD, SUBJECT, Prompt

if TYPE_CHECKING:
    from concept_probe.families import Conditioning, Subject

TokenPolicy = Literal["last_subject", "last_suffix", "subject", "suffix", "context", "all"]


def align(kinds: Tensor, destination: Tensor, policy: TokenPolicy) -> list[tuple[int, int]]:
    """Pairs (place in the prompt, place in the destination), given their token kinds (t,) each.

    Tokens of the subject go to those of the destination's subject, mention by mention and counted from the last of each
    (see `_mentions`); where that names none, and for all other tokens, a token at distance j from the end token goes
    to the one at the same distance in the destination. No token ever goes to bos, whose state is the same for every
    prompt: a place before the destination's first word means its first word, or its end token where it is empty.

    Where the prompt names no subject, all its words are the subject.
    """
    own = _places(kinds, SUBJECT) or _places(kinds, CONTENT) or [_end(kinds)]
    end, last, length = _end(kinds), _end(destination), len(kinds)
    mentions = _mentions(_runs(own), _runs(_places(destination, SUBJECT)), last - end)

    first, after = _first(kinds), _first(destination)

    def by_end(place: int) -> int:
        return min(max(last + place - end, after), len(destination) - 1)

    def by_subject(place: int) -> int:
        for mine, theirs in mentions:
            if place in mine:
                return theirs[max(len(theirs) - (len(mine) - mine.index(place)), 0)]
        return by_end(place)

    if policy == "last_subject":
        chosen = [own[-1]]
    elif policy == "subject":
        chosen = own
    elif policy == "last_suffix":  # as far as the destination goes
        chosen = [place for place in range(own[-1], length) if last + place - end < len(destination)]
    elif policy == "suffix":
        chosen = sorted({*own, *range(own[-1] + 1, length)})
    elif policy == "context":
        chosen = [place for place in range(own[0] + 1, length) if place not in own]
    else:
        chosen = list(range(first, length))
    return [(place, by_subject(place)) for place in chosen]


def _mentions(own: list[list[int]], theirs: list[list[int]], shift: int) -> list[tuple[list[int], list[int]]]:
    """Each mention of a subject, with the one of the destination's that it goes to.

    In their order where there are as many. Else the destination says its subject elsewhere too, and each goes to the one
    nearest to its own distance from the end, which is `shift` places further on; nothing where there is none.
    """
    if len(own) == len(theirs) or not theirs:
        return list(zip(own, theirs, strict=False))
    longer = len(theirs[-1]) - len(own[-1])  # by how much each mention behind it is
    behind = range(len(own) - 1, -1, -1)
    return [
        (mine, min(theirs, key=lambda run: abs(run[-1] - (mine[-1] + shift - longer * more))))
        for mine, more in zip(own, behind, strict=True)
    ]


def _runs(places: list[int]) -> list[list[int]]:
    """Rising places, in runs of neighbours."""
    out: list[list[int]] = []
    for place in places:
        if out and place == out[-1][-1] + 1:
            out[-1].append(place)
        else:
            out.append([place])
    return out


def _places(kinds: Tensor, kind: int) -> list[int]:
    return (kinds == kind).nonzero()[:, 0].tolist()


def _first(kinds: Tensor) -> int:
    """The first place behind what stands before every prompt."""
    return next((place for place, kind in enumerate(kinds.tolist()) if kind != BOS), len(kinds) - 1)


def _end(kinds: Tensor) -> int:
    """The end token; of encoders without one, the last that does not only fill up."""
    read = (kinds != PAD).nonzero()[:, 0].tolist()
    return next(iter(_places(kinds, EOS)), read[-1] if read else len(kinds) - 1)


def align_rows(own: Conditioning, theirs: Conditioning, row: int, policy: TokenPolicy) -> list[tuple[int, int]]:
    """`align` of one row of two conditions, encoder by encoder where their states stand one after another; what the
    denoiser does not look at is left out."""
    out = []
    for start, stop in own.stretches():
        mine, other = own.kinds[row, start:stop], theirs.kinds[row, start:stop]
        if own.mask is not None and theirs.mask is not None:
            mine = mine[: int(own.mask[row, start:stop].nonzero().max()) + 1]
            other = other[: int(theirs.mask[row, start:stop].nonzero().max()) + 1]
        out += [(start + a, start + b) for a, b in align(mine, other, policy)]
    return out


def places_meant(read: Conditioning, row: int, policy: TokenPolicy) -> list[int]:
    """The places of one row of a condition that a policy means."""
    return [place for place, _ in align_rows(read, read, row, policy)]


@torch.no_grad()
def paired_states(
    subject: Subject, prompts: Sequence[Prompt], destinations: Sequence[Prompt], policy: TokenPolicy
) -> tuple[Tensor, Tensor]:
    """States (n, d) of the concept's tokens, and those (n, d) of their destinations; prompts are paired by place."""
    own, theirs = subject.encode(prompts), subject.encode(destinations)
    target, goal = [], []
    for i in range(len(prompts)):
        pairs = align_rows(own, theirs, i, policy)
        target.append(own.states[i, [a for a, _ in pairs]])
        goal.append(theirs.states[i, [b for _, b in pairs]])
    return torch.cat(target).double(), torch.cat(goal).double()


@torch.no_grad()
def retained_states(subject: Subject, prompts: Sequence[Prompt], policy: TokenPolicy | None = None) -> Tensor:
    """States (n, d) of the prompts' tokens that a policy means; without one of all, bos, which all share, once."""
    read = subject.encode(prompts)
    states, kinds = read.states.double(), read.kinds
    if policy is not None:
        return torch.cat([states[i, places_meant(read, i, policy)] for i in range(len(prompts))])
    chosen = kinds != BOS if read.mask is None else (kinds != BOS) & read.mask
    before = [states[:1, 0]] if int(kinds[0, 0]) == BOS else []
    return torch.cat([states[chosen], *before])
