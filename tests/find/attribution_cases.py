"""Models, plans and players that attributions are tried on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from concept_probe.find import BEHAVIOURS, AttributionPlan, Player, Spot
from concept_probe.find.attribution.attribute import queries_in
from concept_probe.find.attribution.behaviours import Setting
from concept_probe.find.attribution.game import RemovalGame
from concept_probe.find.attribution.values import KeptValues
from concept_probe.find.removals import removal_of
from concept_probe.testing.concepts import tiny_concept, tiny_facts, tiny_recogniser
from concept_probe.testing.found import aimed_features
from concept_probe.types import Concept, Sampling, Subspace

SAMPLING = Sampling(steps=2, guidance=2.0, tokens=3)


FAMILIES = ("sd", "sdxl", "flux", "pixart-alpha", "gpt2", "llama")


def about(subject: Any) -> Concept:
    """A concept whose test prompts have answers where a language model is asked."""
    if subject.answers == "pictures":
        return tiny_concept()
    facts = tiny_facts()
    return replace(facts, target=replace(facts.target, test=facts.target.select))


def plan_of(subject: Any, **more: Any) -> AttributionPlan:
    judge = tiny_recogniser() if subject.answers == "pictures" else None
    given = {"prompts": 2, "sampling": SAMPLING, "judge": judge, "controls": False, "judged": None, "others": 3} | more
    return AttributionPlan(**given)


def spots(subject: Any) -> tuple[Spot, ...]:
    if subject.answers == "texts":
        return tuple(Spot(site) for site in subject.sites("mlp_out"))
    return tuple(Spot(site, ("eos",)) for site in subject.sites("text_mlp_out")[:2])


def game_of(subject: Any, players: tuple[Player, ...], removal: str = "zero", behaviour: str = "readout", **more: Any):
    concept, plan = about(subject), plan_of(subject)
    setting = Setting(subject, concept, queries_in(concept, "select", plan), SAMPLING, plan.judge)
    return RemovalGame(setting, players, removal_of(removal, **more), BEHAVIOURS[behaviour](), KeptValues(None), 3)


def one_by_one(subject: Any) -> list[Subspace]:
    """The features of largest contrast as subspaces of their own, of one autoencoder."""
    (space,) = aimed_features(subject, about(subject))
    return [replace(space, basis=space.basis[:, [i]], features=(j,)) for i, j in enumerate(space.features)]
