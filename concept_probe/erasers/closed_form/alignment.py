"""Which token of a destination stands for which token of a concept's prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from concept_probe.erasers.closed_form.destinations import nearest_destinations
from concept_probe.types import BOS, CONTENT, EOS, SUBJECT, Prompt

if TYPE_CHECKING:
    from concept_probe.families import Subject

TokenPolicy = Literal["last_subject", "subject", "suffix", "context", "all"]


def align(kinds: Tensor, destination: Tensor, policy: TokenPolicy) -> list[tuple[int, int]]:
    """Pairs (place in the prompt, place in the destination), given their token kinds (t,) each.

    Tokens of the subject go to those of the destination's subject, counted from the last; where that
    names none, and for all other tokens, a token at distance j from the end token goes to the one at
    the same distance in the destination. No token ever goes to bos, whose state is the same for every
    prompt: a place before the destination's first word means its first word, or its end token where it is empty.

    Where the prompt names no subject, all its words are the subject.
    """
    own = _places(kinds, SUBJECT) or _places(kinds, CONTENT) or [_end(kinds)]
    theirs = _places(destination, SUBJECT)
    end, last, length = _end(kinds), _end(destination), len(kinds)

    def by_end(place: int) -> int:
        return min(max(last + place - end, 1), len(destination) - 1)

    def by_subject(place: int) -> int:
        if not theirs or place not in own:
            return by_end(place)
        return theirs[max(len(theirs) - (len(own) - own.index(place)), 0)]

    if policy == "last_subject":
        chosen = [own[-1]]
    elif policy == "subject":
        chosen = own
    elif policy == "suffix":
        chosen = sorted({*own, *range(own[-1] + 1, length)})
    elif policy == "context":
        chosen = [place for place in range(own[0] + 1, length) if place not in own]
    else:
        chosen = list(range(1, length))
    return [(place, by_subject(place)) for place in chosen]


def _places(kinds: Tensor, kind: int) -> list[int]:
    return (kinds == kind).nonzero()[:, 0].tolist()


def _end(kinds: Tensor) -> int:
    return next(iter(_places(kinds, EOS)), len(kinds) - 1)


@torch.no_grad()
def paired_states(
    subject: Subject, prompts: Sequence[Prompt], destinations: Sequence[Prompt], policy: TokenPolicy
) -> tuple[Tensor, Tensor, dict[str, str]]:
    """States (n, d) of the concept's tokens, those (n, d) of their destinations, and each text's destination.

    A prompt takes the destination that shares most words with it outside its subject.
    """
    own, theirs = subject.encode(prompts), subject.encode(destinations)
    kinds, other_kinds = subject.tokenise(prompts).kinds, subject.tokenise(destinations).kinds
    target, goal, texts, stands = [], [], {}, nearest_destinations(prompts, destinations)
    for i, prompt in enumerate(prompts):
        j = destinations.index(stands[prompt])
        texts[prompt.text] = destinations[j].text
        pairs = align(kinds[i], other_kinds[j], policy)
        target.append(own.states[i, [a for a, _ in pairs]])
        goal.append(theirs.states[j, [b for _, b in pairs]])
    return torch.cat(target).double(), torch.cat(goal).double(), texts


@torch.no_grad()
def retained_states(subject: Subject, prompts: Sequence[Prompt]) -> Tensor:
    """States (n, d) of every token of the prompts; bos, which all share, once."""
    states, kinds = subject.encode(prompts).states.double(), subject.tokenise(prompts).kinds
    return torch.cat([states[kinds.to(states.device) != BOS], states[:1, 0]])
