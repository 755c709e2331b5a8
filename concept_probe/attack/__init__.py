"""Attacks: each tries to bring an erased concept back within a budget."""

from __future__ import annotations

from concept_probe.attack.base import Attack, NothingToAsk, label_of
from concept_probe.attack.budget import Attempt, Budget, Spent
from concept_probe.attack.guidance import ClassifierGuidance
from concept_probe.attack.implicit import ImplicitPrompts
from concept_probe.attack.in_context import InContext
from concept_probe.attack.inversion import EmbeddingInversion
from concept_probe.attack.latent_inversion import LatentInversion
from concept_probe.attack.lora import LoraRelearning
from concept_probe.attack.merging import Merging, Weights
from concept_probe.attack.p4d import P4D
from concept_probe.attack.paraphrase import Paraphrases
from concept_probe.attack.prefix_search import PrefixSearch
from concept_probe.attack.pruning import Pruning
from concept_probe.attack.quantisation import Quantisation
from concept_probe.attack.relearning import Relearning
from concept_probe.attack.ring_a_bell import RingABell
from concept_probe.attack.roles import RolePrompts
from concept_probe.attack.soft_prefix import SoftPrefix
from concept_probe.attack.temperature import Temperature
from concept_probe.attack.token_search import TokenSearch
from concept_probe.attack.trajectory import NoiseTrajectory
from concept_probe.attack.translation import Translation
from concept_probe.attack.unablation import UnAblation
from concept_probe.attack.unlearndiffatk import UnlearnDiffAtk
from concept_probe.attack.visual import VisualContext

ATTACKS: dict[str, type[Attack]] = {
    "paraphrases": Paraphrases,
    "embedding_inversion": EmbeddingInversion,
    "relearning": Relearning,
    "lora_relearning": LoraRelearning,
    "quantisation": Quantisation,
    "pruning": Pruning,
    "merging": Merging,
    "unablation": UnAblation,
    "role_prompts": RolePrompts,
    "in_context": InContext,
    "translation": Translation,
    "temperature": Temperature,
    "implicit_prompts": ImplicitPrompts,
    "visual_context": VisualContext,
    "latent_inversion": LatentInversion,
    "noise_trajectory": NoiseTrajectory,
    "classifier_guidance": ClassifierGuidance,
    "unlearndiffatk": UnlearnDiffAtk,
    "ring_a_bell": RingABell,
    "p4d": P4D,
    "token_search": TokenSearch,
    "soft_prefix": SoftPrefix,
    "prefix_search": PrefixSearch,
}
"""By name; a new attack is one file and one line here."""

STANDARD = ("paraphrases", "embedding_inversion", "relearning")
"""Those that an audit runs unless it is told otherwise: words, vectors and weights, one of each."""

ON_TEXTS = ("paraphrases", "role_prompts", "in_context", "temperature", "relearning")
"""The same for a language model."""

__all__ = [
    "ATTACKS",
    "ON_TEXTS",
    "P4D",
    "STANDARD",
    "Attack",
    "Attempt",
    "Budget",
    "ClassifierGuidance",
    "EmbeddingInversion",
    "ImplicitPrompts",
    "InContext",
    "LatentInversion",
    "LoraRelearning",
    "Merging",
    "NoiseTrajectory",
    "NothingToAsk",
    "Paraphrases",
    "PrefixSearch",
    "Pruning",
    "Quantisation",
    "Relearning",
    "RingABell",
    "RolePrompts",
    "SoftPrefix",
    "Spent",
    "Temperature",
    "TokenSearch",
    "Translation",
    "UnAblation",
    "UnlearnDiffAtk",
    "VisualContext",
    "Weights",
    "label_of",
]
