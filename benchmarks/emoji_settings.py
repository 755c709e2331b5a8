"""The erasers and attacks that tables of `emoji` compare: those of the registries at their defaults, and second settings."""

from __future__ import annotations

from concept_probe.attacks import ATTACKS
from concept_probe.bench import AttackSetting, MethodSetting, method_settings
from concept_probe.erasers import (
    ERASERS,
    AblateVectors,
    DifferenceOfMeans,
    Esd,
    Leace,
    Rece,
    Receler,
    Safree,
    Sld,
    Speed,
    Uce,
)

FOR_PICTURES = tuple(name for name, eraser in ERASERS.items() if eraser.on != "texts" and eraser.attention != "joint")
NAME = Uce(sources=("target",))
NAMED = (Uce(sources=("target",), beta=3.0), Uce(sources=("target",), policy="all"))
"""UCE that moves the object's own name, in other settings."""
SECOND = (
    MethodSetting("leace (guard)", Leace(how="intervention")),
    MethodSetting("difference (guard)", DifferenceOfMeans(how="intervention")),
    MethodSetting("uce (chosen)", NAME, "chosen settings", others=(*NAMED, Uce(), Uce(policy="all"))),
    MethodSetting("esd (anchor)", Esd(base="anchor")),
    MethodSetting("receler (anchor)", Receler(base="anchor")),
    MethodSetting("safree (suffix)", Safree(alpha=0.0, tokens="suffix")),
    MethodSetting("sld (maximum)", Sld(scale=5000.0, threshold=1.0, warmup=0.0)),
)
"""Published methods at a second setting."""
LEADERBOARD = (*method_settings([*FOR_PICTURES[:2], "ablate_vectors (cross-attention)", *FOR_PICTURES[2:]]), *SECOND)
CHOSEN = (
    MethodSetting("uce", NAME, "chosen settings", others=NAMED),
    MethodSetting("uce (all names)", Uce(), "chosen settings", others=(Uce(beta=3.0), Uce(policy="all"))),
    MethodSetting("leace", Leace(how="intervention")),
    MethodSetting("leace (baked)", Leace(how="bake")),
    MethodSetting("difference", DifferenceOfMeans(how="intervention")),
    MethodSetting("difference (baked)", DifferenceOfMeans(how="bake")),
    MethodSetting("rece", Rece(sources=("target",))),
    MethodSetting("speed", Speed(sources=("target",))),
    MethodSetting("ablate_vectors (columns of the text encoder)", AblateVectors(), "chosen columns"),
    MethodSetting("ablate_vectors (cross-attention keys and values)", AblateVectors(), "chosen cross-attention"),
)
"""Those that one object at a time is erased with, settings chosen on the select split."""
_OTHERS = ("ablate_vectors", "leace", "difference", "uce", "rece", "speed")
ERASURE = (
    *(m for m in method_settings(FOR_PICTURES) if m.name not in _OTHERS),
    *CHOSEN,
    *(m for m in SECOND if "guard" not in m.name),
)
ATTACK_SETTINGS = (
    *(AttackSetting(name, name) for name in ATTACKS),
    AttackSetting("relearning (text encoder)", "relearning", {"part": "text_encoder", "rate": 0.02}),
    AttackSetting("relearning (both)", "relearning", {"part": "both", "rate": 0.02}),
    AttackSetting("embedding_inversion (3 tokens)", "embedding_inversion", {"tokens": 3}),
    AttackSetting("p4d (every 2)", "p4d", {"every": 2, "words": 4}),
)
"""Attacks of the registry, and second settings of some."""
