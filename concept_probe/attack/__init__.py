"""Attacks: each tries to bring an erased concept back within a budget."""

from __future__ import annotations

from concept_probe.attack.base import Attack, label_of
from concept_probe.attack.budget import Attempt, Budget, Spent
from concept_probe.attack.inversion import EmbeddingInversion
from concept_probe.attack.paraphrase import Paraphrases
from concept_probe.attack.relearning import Relearning

ATTACKS: dict[str, type[Attack]] = {
    "paraphrases": Paraphrases,
    "embedding_inversion": EmbeddingInversion,
    "relearning": Relearning,
}
"""By name; a new attack is one file and one line here."""

__all__ = [
    "ATTACKS",
    "Attack",
    "Attempt",
    "Budget",
    "EmbeddingInversion",
    "Paraphrases",
    "Relearning",
    "Spent",
    "label_of",
]
