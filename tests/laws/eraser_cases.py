"""A case for each eraser, and what kind it is: a new line in ERASERS has to get a case here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from concept_probe.erasers import (
    AdversarialPreservation,
    AdvUnlearn,
    Ant,
    Blocklist,
    Cgce,
    ConceptAblation,
    DifferenceOfMeans,
    DoCo,
    Emcid,
    Esd,
    FewShot,
    Irece,
    Itd,
    Leace,
    Mace,
    NegativePrompt,
    Rece,
    Receler,
    Repit,
    Rlace,
    Saeuron,
    Safree,
    Sld,
    Slider,
    Speed,
    Spm,
    Steer,
    Surgical,
    Uce,
    Unguide,
)
from concept_probe.families import UNetSubject
from concept_probe.types import Prompt
from tests.laws.eraser_aims import (
    CONCEPT,
    SAMPLING,
    SCHOOL,
    Case,
    Erasure,
    aimed_features,
    aimed_vectors,
    other_concept,
    over,
    patched,
    prompted,
    random_detector,
    random_features,
    random_itd,
    random_patches,
    random_projection,
    random_safree,
    random_vectors,
    spelled,
)

CASES: dict[str, Case] = {
    "ablate_features": Case(aimed_features, random_features),
    "ablate_vectors": Case(aimed_vectors, random_vectors),
    "leace": Case(lambda s: Leace()(s, CONCEPT), lambda s, seed: random_projection(Leace(), s, seed)),
    "difference": Case(
        lambda s: DifferenceOfMeans()(s, CONCEPT), lambda s, seed: random_projection(DifferenceOfMeans(), s, seed)
    ),
    "rlace": Case(lambda s: Rlace(rounds=20)(s, CONCEPT), lambda s, seed: random_projection(Rlace(), s, seed)),
    "repit": Case(lambda s: Repit()(s, CONCEPT), lambda s, seed: random_projection(Repit(), s, seed)),
    "uce": prompted(Uce()),
    "rece": prompted(Rece()),
    "speed": prompted(Speed()),
    "mace": prompted(Mace(steps=2, pictures=2, sampling=SAMPLING)),
    "esd": prompted(Esd(training=SCHOOL)),
    "concept_ablation": prompted(ConceptAblation(training=SCHOOL)),
    "spm": prompted(Spm(training=SCHOOL)),
    "slider": prompted(Slider(training=SCHOOL)),
    "adv_unlearn": prompted(AdvUnlearn(training=replace(SCHOOL, adversary=2, steps=30, rate=0.01, retain=3.0))),
    "receler": prompted(Receler(training=replace(SCHOOL, adversary=2))),
    "few_shot": prompted(FewShot(training=replace(SCHOOL, steps=8, rate=0.01, retain=0.0))),
    "adversarial_preservation": prompted(
        AdversarialPreservation(candidates=4, worst=1, every=4, training=replace(SCHOOL, pictures=4))
    ),
    "surgical": prompted(Surgical(training=replace(SCHOOL, pictures=4))),
    "unguide": prompted(Unguide(absent=1.0, training=SCHOOL)),
    "doco": prompted(DoCo(width=8, warmup=30, critic_rate=0.01, training=replace(SCHOOL, rate=0.03))),
    "ant": prompted(Ant(early=0.0, views=1, augment=("target",), training=SCHOOL)),
    "emcid": prompted(Emcid(steps=24, batch=8, pictures=2, sampling=SAMPLING)),
    "blocklist": Case(
        lambda s: Blocklist()(s, CONCEPT), lambda s, seed: Blocklist(names=(other_concept(seed).name,))(s, CONCEPT)
    ),
}
CASES |= {
    "negative_prompt": Case(
        lambda s: NegativePrompt()(s, CONCEPT), lambda s, seed: NegativePrompt(other_concept(seed).name)(s, CONCEPT)
    ),
    "sld": Case(
        lambda s: Sld(warmup=0.0, threshold=1.0)(s, CONCEPT),
        lambda s, seed: Sld(other_concept(seed).name, warmup=0.0, threshold=1.0)(s, CONCEPT),
    ),
    "steer": Case(lambda s: Steer()(s, CONCEPT, over(s)), spelled),
    "itd": Case(lambda s: Itd(quantile=0.0, top=8)(s, CONCEPT, over(s)), random_itd),
    "saeuron": Case(lambda s: Saeuron(sampling=SAMPLING, limit=2)(s, CONCEPT, over(s, "cross_out")), random_patches),
    "safree": Case(lambda s: Safree(alpha=0.0, tokens="suffix")(s, CONCEPT), random_safree),
    "patch_replacement": Case(lambda s: patched()(s, CONCEPT, over(s, "cross_out")), random_detector),
    "cgce": prompted(Cgce(spared=0.5)),
    "irece": prompted(Irece(quantile=0.5, limit=2, sampling=SAMPLING)),
}
GUARDS = (
    "ablate_features", "blocklist", "negative_prompt", "sld", "steer", "itd", "saeuron", "safree", "receler", "unguide",
    "patch_replacement", "cgce", "irece",
)  # fmt: skip
"""Interventions: nothing of them is in the weights."""
LEADING: dict[str, Callable[[UNetSubject, str], Erasure]] = {
    "negative_prompt": lambda s, text: NegativePrompt(text)(s, CONCEPT),
    "sld": lambda s, text: Sld(text, warmup=0.0, threshold=1.0)(s, CONCEPT),
    "steer": lambda s, text: Steer(text)(s, CONCEPT, over(s)),
}
"""Those that act on every prompt alike, given a text: they are judged by whether they lead away from it."""
PATCHES = ("saeuron", "patch_replacement")
"""Those that act behind cross-attention's keys and values."""
BETWEEN = ("irece",)
"""Those that act on latents between two steps, by what is seen in the picture so far."""
TRAINED: dict[str, tuple[Prompt, ...]] = {
    "esd": (Prompt(""),) * 4,
    "adv_unlearn": (Prompt(""),) * 4,
    "receler": (Prompt(""),) * 4,
    "spm": CONCEPT.anchor.fit,
    "slider": CONCEPT.anchor.fit,
    "unguide": CONCEPT.anchor.fit,
    "doco": CONCEPT.anchor.fit,
    "ant": (Prompt(""),) * 4,
    "concept_ablation": CONCEPT.anchor.fit,
    "adversarial_preservation": (Prompt(""),) * 4,
    "surgical": CONCEPT.anchor.fit,
}
"""Those that train on predictions, and the prompts whose predictions the target's fit prompts are led towards."""
CLIMBING = ("few_shot",)
"""Those that train away from how pictures are denoised, wherever that leads: they are judged by these pictures."""
BAKED = [name for name in CASES if name not in GUARDS]
