"""Players by name: the ways to cut a model into parts that need no finding first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from concept_probe.families import CausalLMSubject
from concept_probe.find.attribution.players import Player, Spot, players_of
from concept_probe.find.features.contrast import find_features
from concept_probe.find.language.ranking import rank_by_effect
from concept_probe.find.vectors.candidates import CROSS_ROLES, ColumnCandidates, DirectionCandidates
from concept_probe.find.vectors.ranking import rank_columns
from concept_probe.find.vectors.text_directions import text_directions
from concept_probe.learn.shipped import over_text, shipped_saes
from concept_probe.registry import look_up
from concept_probe.types import TOKEN_KINDS, Concept, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

TOKEN_PLACES = ("subject", "eos", "pad")
"""Kinds of token at which a text encoder may compute a concept."""
RANKED = 16
"""Columns that are ranked first, and play."""
DIRECTIONS = 3
"""Text directions that each matrix of cross-attention is kept from reading."""


def _mlp(subject: Subject, concept: Concept) -> tuple[Player, ...]:
    """The feed-forward part of every layer; of text encoders, at each kind of token that its prompts have."""
    if subject.answers == "texts":
        return players_of([Spot(site) for site in subject.sites("mlp_out")])
    kinds = subject.tokenise(concept.target.fit[:8] or tuple(concept.target)).kinds
    there = [kind for kind in TOKEN_PLACES if bool((kinds == TOKEN_KINDS.index(kind)).any())]
    return players_of([Spot(site, (kind,)) for site in subject.sites("text_mlp_out") for kind in there])


def _blocks(subject: Subject, concept: Concept) -> tuple[Player, ...]:
    """What each layer of the text encoders, or of the language model, adds to its stream."""
    role = "resid" if subject.answers == "texts" else "text_stream"
    sites = [site for site in subject.sites(role) if site.item is None]
    return players_of([Spot(type(site)(site.component, site.path, "change")) for site in sites])


def _columns(subject: Subject, concept: Concept) -> tuple[Player, ...]:
    """The `RANKED` columns of feed-forward matrices that rank first on the fit split."""
    ranked = (
        rank_by_effect(subject, concept) if isinstance(subject, CausalLMSubject) else rank_columns(subject, concept)
    )
    return players_of(ColumnCandidates(subject, concept, ranked).take(min(RANKED, len(ranked.sites) // 2)))


def _features(subject: Subject, concept: Concept) -> tuple[Player, ...]:
    """The concept's features of the autoencoders that are shipped for the subject, each by itself."""
    spaces = find_features(over_text(shipped_saes(subject.name)), subject, concept)
    if not spaces:
        raise ValueError(
            f"no feature of the shipped autoencoders of {subject.name!r} is selective for {concept.name!r}, so none can play; "
            "give features of your own: find_features(sae, subject, concept, count=8)"
        )
    return players_of([one for space in spaces for one in each_feature(space)])


def each_feature(space: Subspace) -> list[Subspace]:
    """Features that were found together, as subspaces of their own."""
    scores = space.scores or (space.score,) * space.rank
    return [
        replace(space, basis=space.basis[:, [i]], features=(j,), score=scores[i], scores=())
        for i, j in enumerate(space.features)
    ]


def _cross(subject: Subject, concept: Concept) -> tuple[Player, ...]:
    """Every matrix that reads the text's states, kept from reading the concept's directions."""
    found = DirectionCandidates(subject, concept, text_directions(subject, concept), CROSS_ROLES)
    return players_of(found.take(min(DIRECTIONS, found.most)))


PLAYERS: dict[str, Callable[[Subject, Concept], tuple[Player, ...]]] = {
    "mlp": _mlp,
    "blocks": _blocks,
    "columns": _columns,
    "features": _features,
    "cross": _cross,
}
"""Name to what cuts a subject into players."""


def named_players(subject: Subject, concept: Concept, name: str) -> tuple[Player, ...]:
    """The players of a name of `PLAYERS`. Raises UnknownName, also for a role that the subject lacks."""
    return look_up(PLAYERS, name, "kind of players")(subject, concept)
