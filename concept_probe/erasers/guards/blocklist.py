"""A prompt guard: a prompt that says one of a list of names is read as the anchor prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.families import DiffusionSubject
from concept_probe.types import CONTENT, SUBJECT, Concept, Moment, Prompt, Subspace


@dataclass(frozen=True)
class Blocklist(Eraser[DiffusionSubject, Intervention]):
    """Read prompts that name the concept as if the anchor had been asked for; leave every other prompt alone.

    It knows words and nothing else: a paraphrase, a description or a prompt in embeddings goes
    through. It is here as the case of a concept that is suppressed and not erased.

    >>> guard = Blocklist(names=("camel", "camels"))(subject, concept)
    """

    name = "blocklist"
    makes = "guard"
    asks = True
    on = "pictures"
    aims = "prompts"
    origin = "control"
    names: tuple[str, ...] = ()
    """Names to block; empty: those that the concept's target prompts (fit split) name it by."""
    anchor: str | None = None
    """What is read instead; None: the concept's first anchor prompt (fit split), or the empty prompt."""
    strength: float = 1.0
    """0 lets everything through; 1 replaces."""

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """ValueError where no name is known."""
        named = dict.fromkeys(prompt.subject for prompt in concept.target.fit if prompt.subject)
        names = self.names or tuple(named)
        if not names:
            raise ValueError(f"blocklist: concept {concept.name!r} has no target prompt with its name; give `names`")
        anchors = concept.anchor.fit
        anchor = Prompt(self.anchor) if self.anchor is not None else (anchors[0] if anchors else Prompt(""))
        read = subject.tokenise([anchor])
        spelled = [subject.tokenise([Prompt(name)]) for name in names]
        actions = {}
        for i, site in enumerate(subject.sites("token_embedding")):
            rows = [tokens.ids[i][0][_words(tokens.kinds_of[i][0])] for tokens in spelled]
            table = getattr(subject.module(site), "weight", None)
            if not isinstance(table, Tensor):
                kind = type(subject.module(site)).__name__
                raise ValueError(f"blocklist needs a table of token embeddings; {site} is {kind}")
            actions[site] = _action(table, rows, read.ids[i][0])
        return self.guard(concept, actions, options={"names": list(names), "anchor": anchor.text})


def _words(kinds: Tensor) -> Tensor:
    return torch.isin(kinds, torch.tensor([CONTENT, SUBJECT]))


def _action(table: Tensor, names: Sequence[Tensor], anchor: Tensor) -> Change:
    def change(x: Tensor, moment: Moment) -> Tensor | None:
        # A looked-up row equals its row of the table bit for bit, so words are recognised without their ids.
        hit = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for ids in names:
            word = table[ids.to(table.device)].to(x.device)
            if 0 < len(word) <= x.shape[1]:
                windows = x.detach().unfold(1, len(word), 1).movedim(-1, 2)
                hit |= (windows == word).flatten(2).all(-1).any(-1)
        if not hit.any():
            return None
        instead = table[anchor.to(table.device)].to(x)
        return torch.where(hit[:, None, None], instead - x, 0)

    return change
