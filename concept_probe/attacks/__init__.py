"""Attacks: each tries to bring an erased concept back within a budget, with the erasure on.

An attack is a frozen dataclass of options that says what it is on and what it needs (see `Attack`); called with a
subject, a concept and a budget it returns an `Attempt`: success along the budget with intervals, a control, what was
spent. The subject is as before afterwards, and no attack can spend more than its budget: it asks through an
`AttackRun`. The rooms go by what the attacker holds:

- `prompts/` a keyboard, `search/` gradients of prompts that can be typed, `embeddings/` the token embeddings,
  `latents/` the trajectory from noise to picture, `weights/` the weights;
- `curve.py` and `best_of_n.py` are the two ways to ask, `examples.py` what is known of the concept.

A new one is one file in the room of its kind, which imports no other attack, and one line in `ATTACKS`; then it has its
tests, its rows in tables and its commands. A package of your own adds one by an entry point, see `Registry`.
"""

from __future__ import annotations

from typing import Any

from concept_probe.attacks.answers import AnswerCache, AskedBefore
from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import Attempt, NothingToAsk
from concept_probe.attacks.budget import Budget, Spent
from concept_probe.attacks.embeddings.soft_prefix import SoftPrefix
from concept_probe.attacks.embeddings.textual_inversion import EmbeddingInversion
from concept_probe.attacks.labels import label_of
from concept_probe.attacks.latents.classifier_guidance import ClassifierGuidance
from concept_probe.attacks.latents.ddim_inversion import LatentInversion
from concept_probe.attacks.latents.renoising import NoiseTrajectory
from concept_probe.attacks.latents.sdedit import VisualContext
from concept_probe.attacks.prompts.implicit import ImplicitPrompts
from concept_probe.attacks.prompts.in_context import InContext
from concept_probe.attacks.prompts.paraphrase import Paraphrases
from concept_probe.attacks.prompts.role_prompts import RolePrompts
from concept_probe.attacks.prompts.temperature import Temperature
from concept_probe.attacks.prompts.translation import Translation
from concept_probe.attacks.search.p4d import P4D
from concept_probe.attacks.search.prefix_search import PrefixSearch
from concept_probe.attacks.search.ring_a_bell import RingABell
from concept_probe.attacks.search.token_search import TokenSearch
from concept_probe.attacks.search.unlearndiffatk import UnlearnDiffAtk
from concept_probe.attacks.weights.lora_relearning import LoraRelearning
from concept_probe.attacks.weights.merging import Merging
from concept_probe.attacks.weights.pruning import Pruning
from concept_probe.attacks.weights.quantisation import Quantisation
from concept_probe.attacks.weights.relearning import Relearning
from concept_probe.attacks.weights.unablation import UnAblation
from concept_probe.registry import Registry

ATTACKS = Registry[type[Attack[Any]]](
    "attacks",
    {
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
    },
)
"""By name."""

STANDARD = ("paraphrases", "embedding_inversion", "relearning")
"""Those that an audit runs unless it is told otherwise: words, vectors and weights, one of each."""

ON_TEXTS = ("paraphrases", "role_prompts", "in_context", "temperature", "relearning")
"""The same for a language model."""

__all__ = [
    "ATTACKS",
    "ON_TEXTS",
    "STANDARD",
    "AnswerCache",
    "AskedBefore",
    "Attack",
    "Attempt",
    "Budget",
    "NothingToAsk",
    "Spent",
    "label_of",
]
