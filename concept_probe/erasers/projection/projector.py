"""From directions to an erasure that projects them out: an intervention, or folded into weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.deltas import Delta, Sum
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.projection.fold import fold
from concept_probe.families import Subject
from concept_probe.find.directions.projection import DIRECTION_KINDS, Projection, rows_to_fit
from concept_probe.find.layout import back, has_tokens, last, token_mask
from concept_probe.find.rows import ConceptRows, RowQuery
from concept_probe.types import TOKEN_KINDS, Concept, Moment, Site, Subspace

How = Literal["intervention", "bake"]
SPOKEN: Mapping[str, Any] = {
    "how": "intervention", "role": "resid", "kinds": ("subject", "content"), "tokens": ("subject", "content", "eos"),
}  # fmt: skip
"""What stands for the defaults on a language model, in which no matrix reads the text alone: after every block, at all
tokens but the first, which knows nothing of the text and is many times as long as others."""
SITES_AT_ONCE = 8
"""Sites whose rows are in memory at a time."""


@dataclass(frozen=True)
class Projector(Eraser[Subject, Edit | Intervention]):
    """Options of every method, and the way from directions to an erasure."""

    makes = "either"
    on = "both"
    needs = Needs(found="directions", optional=True)
    aims = "prompts"
    origin = "published"
    oblique: ClassVar[bool] = False
    """Whether its directions are projected out along a dual, and not at right angles."""
    how: How = "bake"
    """`intervention` projects while the subject runs; `bake` folds the projection into weights. Where the defaults of this
    and of `role` meet a language model, they stand for `SPOKEN`."""
    strength: float = 1.0
    """Factor on what is taken out; 2 reflects."""
    role: str = "text_out"
    """Role of the sites to fit at, where `found` holds no direction."""
    kinds: tuple[str, ...] = DIRECTION_KINDS
    """Kinds of token that directions are fitted on."""
    tokens: tuple[str, ...] = TOKEN_KINDS
    """For an intervention: kinds of token that are acted on. A baked projection acts on all."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(how="intervention")

    def make(self, subject: Subject, concept: Concept, found: tuple[Subspace, ...]) -> Edit | Intervention:
        """`found`: Subspaces of this method's finder; fitted at all sites of `role` where there is none.

        ValueError for two subspaces at one site.
        """
        settled = self.settled(subject)
        if settled != self:
            made = settled.make(subject, concept, found)
            chosen = {name: getattr(settled, name) for name in SPOKEN}
            options = {name: list(x) if isinstance(x, tuple) else x for name, x in chosen.items()}
            return replace(made, made_by={**made.made_by, "options": options})
        spaces = [s for s in found if (s.dual is not None) == self.oblique]
        spaces = spaces or self._fitted(subject, concept)
        ranks = {str(space.site): space.rank for space in spaces}
        if len({space.site for space in spaces}) < len(spaces):
            raise ValueError(f"{self.name}: two subspaces at one site; put them into one Subspace")
        spaces = [space for space in spaces if space.rank]
        if self.how == "intervention":
            actions: dict[Site, Change] = {}
            for space in spaces:
                tokens = self.tokens if has_tokens(subject, space.site) else TOKEN_KINDS
                actions[space.site] = _action(space, tokens)
            return self.guard(concept, actions, ranks=ranks)
        deltas: dict[str, Delta] = {}
        dropped: list[str] = []
        for space in spaces if self.strength else ():
            folded = fold(subject, space.site, as_projection(space), self.strength)
            deltas = _merged(deltas, folded.deltas)
            dropped += folded.affine_dropped
        return self.edit(subject, concept, deltas, ranks=ranks, affine_dropped=sorted(set(dropped)))

    def settled(self, subject: Subject) -> Self:
        """Itself, or, where nobody chose what can't be there: on a language model with `SPOKEN`, and as an intervention
        where more than the matrices of cross-attention read a picture's text."""
        usual = {f.name: f.default for f in fields(type(self)) if f.name in SPOKEN}
        bakes = subject.answers == "pictures" and "cross_key_weight" in subject.roles()
        if bakes or any(getattr(self, name) != usual[name] for name in ("how", "role")):
            return self
        instead = SPOKEN if subject.answers == "texts" else {"how": "intervention"}
        return replace(self, **{name: value for name, value in instead.items() if getattr(self, name) == usual[name]})

    def _fitted(self, subject: Subject, concept: Concept) -> list[Subspace]:
        """Directions of every site of `role`. The prompts are read once for `SITES_AT_ONCE` sites, not once for each."""
        sites, out = subject.sites(self.role), []
        for start in range(0, len(sites), SITES_AT_ONCE):
            rows = rows_to_fit(subject, concept, sites[start : start + SITES_AT_ONCE], RowQuery(self.kinds))
            out += [self.fit(subject, concept, site, each) for site, each in rows.items()]
        return out

    @abstractmethod
    def fit(self, subject: Subject, concept: Concept, site: Site, rows: tuple[ConceptRows, ConceptRows]) -> Subspace:
        """The directions of one site, from its rows of the fit and of the select split."""


def as_projection(space: Subspace) -> Projection:
    """The projection that a subspace stands for."""
    return Projection(space.basis, space.basis if space.dual is None else space.dual, space.mean)


def _action(space: Subspace, tokens: Sequence[str]) -> Callable[[Tensor, Moment], Tensor]:
    projection = as_projection(space)

    def change(x: Tensor, moment: Moment) -> Tensor:
        rows = last(x)
        basis, dual = projection.basis.to(rows), projection.dual.to(rows)
        shifted = rows if projection.mean is None else rows - projection.mean.to(rows)
        delta = -((shifted @ dual) @ basis.mT)
        mask = token_mask(x, moment, tokens)
        return back(delta if mask is None else delta * mask)

    return change


def _merged(first: dict[str, Delta], second: dict[str, Delta]) -> dict[str, Delta]:
    """Deltas of two sites that the same matrices read: both at once."""
    out = dict(first)
    for where, delta in second.items():
        out[where] = Sum((out[where], delta)) if where in out else delta
    return out
