"""Unified concept editing: cross-attention's K/V matrices in closed form (arXiv 2308.14761)."""

from __future__ import annotations

from dataclasses import dataclass

from concept_probe.erasers.closed_form.alignment import TokenPolicy
from concept_probe.erasers.closed_form.solve import Balance, solve_uce
from concept_probe.erasers.closed_form.states import READERS, fit_of, gather, measured_over, multiplied
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.families import DiffusionSubject
from concept_probe.types import FORGET_KINDS, OTHER_KINDS, Concept, Kind, Subspace


@dataclass(frozen=True)
class Uce(Eraser[DiffusionSubject, Edit]):
    """Make every to_k and to_v answer the concept's tokens as it answers those of their destinations, and other prompts as before.

    >>> edit = Uce(policy="suffix", alpha=1.0, beta=0.1)(subject, concept)
    """

    name = "uce"
    makes = "edit"
    on = "pictures"
    needs = Needs(anchor=True)
    aims = "prompts"
    solves = True
    origin = "published"
    authors = Published(
        {
            "policy": "last_subject",
            "sources": ("target",),
            "lam": 0.5,
            "balance": "sum",
            "kept_tokens": "last_subject",
        },
        apart="bare names are erased and kept, and five more phrases with each where that is asked for",
    )
    policy: TokenPolicy = "suffix"
    """Which tokens of the concept's prompts are edited: `last_subject`, `subject` (all tokens that name it),
    `suffix` (those and all after them, through the end token and padding), `last_suffix` (the last of them and all after
    it), `all` (every token but bos)."""
    guide: str | None = None
    """What stands in for the concept. None: the concept's anchor prompts. A text: put in place of the subject in
    each of its prompts. The empty text: the subject is left out."""
    sources: tuple[Kind, ...] = FORGET_KINDS
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that are kept, all of their tokens."""
    lam: float = 0.1
    """λ: weight of staying near the old matrix everywhere."""
    alpha: float = 1.0
    """α: weight of each edited token."""
    beta: float = 1.0
    """β: weight of each retained token."""
    balance: Balance = "mean"
    """`sum` takes the sums of the paper; `mean` divides each sum by its number of tokens and multiplies by d,
    so that α, β and λ mean the same whatever the number of prompts."""
    roles: tuple[str, ...] = READERS
    """Roles of the matrices that are edited."""
    within: tuple[str, ...] = ()
    """Beginnings of the paths of the matrices that are edited, as `up_blocks.1`; empty: all of them."""
    strength: float = 1.0
    """Factor on the change of the weights."""
    kept_tokens: TokenPolicy | None = None
    """Which tokens of the kept prompts, by the same names; None: all, the beginning token once."""

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts to erase."""
        groups = gather(subject, concept, self, self.name)
        deltas, measured = {}, []
        for group in groups:
            states, sums = group.states, group.states.moments()
            alpha, beta = sums.weights(self.alpha, self.beta, self.balance)
            solution = solve_uce(sums, lam=self.lam, alpha=alpha, beta=beta, method=self.name)
            deltas |= multiplied(subject, group.sites, solution.change, len(states.target), self.strength)
            solved = {"condition": solution.condition, "residual": solution.residual}
            measured.append(solved | fit_of(solution.change, states))
        return self.edit(
            subject,
            concept,
            deltas,
            moved_tokens=sum(len(g.states.target) for g in groups),
            preserved_tokens=sum(len(g.states.retained) for g in groups),
            guides=groups[0].states.texts,
            **measured_over(groups, measured),
        )
