"""How each guard is made for a tiny language model, and aimed elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import torch

from concept_probe.erasers import AblateFeatures, Intervention
from concept_probe.families import CausalLMSubject
from concept_probe.find import find_features
from concept_probe.types import Concept, Prompt, Score, Splits, Subspace
from tests.laws.lm_eraser_cases import concept, lm_sae


def random_space(subject: CausalLMSubject, seed: int, count: int = 6, role: str = "resid") -> Subspace:
    """Features drawn at random."""
    sae, score = lm_sae(subject, role), Score("made by the test", 1, 1, 1, 1)
    chosen = torch.randperm(sae.width, generator=torch.Generator().manual_seed(seed))[:count]
    features = tuple(chosen.tolist())
    return Subspace(sae.site, sae.decoder[chosen].mT, "activation", score, features=features, codec=sae)


def asking(words: tuple[str, ...]) -> Splits:
    """As `asked`, for both splits that features are chosen on."""
    return Splits(*(tuple(Prompt(t.format(w), w, w) for w in words for t in of) for of in TEXTS))


TEXTS = (("see the {} in", "a {} and the", "her {} is"), ("old {} in", "my {} and the", "that {} is"))


def aimed_features(subject: CausalLMSubject) -> Intervention:
    named = Concept("cat", asking(("cat",)), neighbours=asking(("dog", "hill")))
    return AblateFeatures()(subject, named, find_features(lm_sae(subject), subject, named, count=6, formula="mean"))


GUARDS: dict[str, tuple[Callable[[CausalLMSubject], Intervention], Callable[[CausalLMSubject, int], Intervention]]] = {
    "ablate_features": (aimed_features, lambda s, seed: AblateFeatures()(s, concept(), [random_space(s, seed)])),
}
"""What acts while a language model runs: aimed at the concept, and as much of it aimed elsewhere (the seed says where)."""
