"""How a concept is removed: an eraser takes a subject, a concept and what was found, and returns an erasure.

An erasure is an `Intervention` (acts while it is on) or an `Edit` (a change of weights); both have `on(subject)`,
`scaled(factor)` and `describe()`. A method is a frozen dataclass of options that says what it makes, from which
subjects and what it needs (see `Eraser`), in one file of the room of its kind, and one line in `ERASERS`; then it has
its tests, its rows in the tables and its commands. A package of your own adds one by an entry point, see `Registry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from concept_probe.concepts.united import united
from concept_probe.erasers.ablation.ablate_features import AblateFeatures
from concept_probe.erasers.ablation.ablate_vectors import AblateVectors
from concept_probe.erasers.ablation.pisces import Pisces
from concept_probe.erasers.closed_form.emcid import Emcid
from concept_probe.erasers.closed_form.mace import Mace
from concept_probe.erasers.closed_form.memit import Memit
from concept_probe.erasers.closed_form.rece import Rece
from concept_probe.erasers.closed_form.rocr import Rocr
from concept_probe.erasers.closed_form.speed import Speed
from concept_probe.erasers.closed_form.uce import Uce
from concept_probe.erasers.effect import StatedEffect, state_effect, with_effect
from concept_probe.erasers.eraser import Eraser, Made
from concept_probe.erasers.erasure.base import WrongBase
from concept_probe.erasers.erasure.combine import combine
from concept_probe.erasers.erasure.deltas import Columns, Delta, LowRank, Shift
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.intervention import Intervention
from concept_probe.erasers.finetune.adv_unlearn import AdvUnlearn
from concept_probe.erasers.finetune.adversarial_preservation import AdversarialPreservation
from concept_probe.erasers.finetune.ant import Ant
from concept_probe.erasers.finetune.concept_ablation import ConceptAblation
from concept_probe.erasers.finetune.distillation import Training
from concept_probe.erasers.finetune.doco import DoCo
from concept_probe.erasers.finetune.erase_anything import EraseAnything
from concept_probe.erasers.finetune.esd import Esd
from concept_probe.erasers.finetune.few_shot import FewShot
from concept_probe.erasers.finetune.receler import Receler
from concept_probe.erasers.finetune.salun import SalUn
from concept_probe.erasers.finetune.slider import Slider
from concept_probe.erasers.finetune.spm import Spm
from concept_probe.erasers.finetune.surgical import Surgical
from concept_probe.erasers.finetune.unguide import Unguide
from concept_probe.erasers.guards.blocklist import Blocklist
from concept_probe.erasers.guards.cgce import Cgce
from concept_probe.erasers.guards.irece import Irece
from concept_probe.erasers.guards.itd import Itd
from concept_probe.erasers.guards.negative_prompt import NegativePrompt
from concept_probe.erasers.guards.patch_replacement import PatchReplacement
from concept_probe.erasers.guards.saeuron import Saeuron
from concept_probe.erasers.guards.safree import Safree
from concept_probe.erasers.guards.sld import Sld
from concept_probe.erasers.guards.steer import Steer
from concept_probe.erasers.guards.watch import Watch
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.projection.difference import DifferenceOfMeans
from concept_probe.erasers.projection.leace import Leace
from concept_probe.erasers.projection.repit import Repit
from concept_probe.erasers.projection.rlace import Rlace
from concept_probe.erasers.select.choose import Choice, Tried, choose
from concept_probe.erasers.select.features import choose_features
from concept_probe.erasers.select.strength import choose_strength
from concept_probe.erasers.select.vectors import choose_vectors
from concept_probe.erasers.unlearning.alt_po import AltPo
from concept_probe.erasers.unlearning.crisp import Crisp
from concept_probe.erasers.unlearning.dpo import Dpo
from concept_probe.erasers.unlearning.grad_ascent import GradAscent, GradDiff
from concept_probe.erasers.unlearning.needle import Needle
from concept_probe.erasers.unlearning.npo import Npo, SimNpo
from concept_probe.erasers.unlearning.rmu import Rmu
from concept_probe.erasers.unlearning.undial import Undial
from concept_probe.erasers.unlearning.wga import Wga
from concept_probe.families import Subject
from concept_probe.families.subject import SAMPLING
from concept_probe.registry import Registry, look_up
from concept_probe.types import Concept, Erasure, Judge, Sampling, Subspace

ERASERS = Registry[type[Eraser[Any, Any]]](
    "erasers",
    {
        "ablate_features": AblateFeatures,
        "ablate_vectors": AblateVectors,
        "leace": Leace,
        "difference": DifferenceOfMeans,
        "rlace": Rlace,
        "repit": Repit,
        "uce": Uce,
        "rece": Rece,
        "speed": Speed,
        "mace": Mace,
        "emcid": Emcid,
        "esd": Esd,
        "concept_ablation": ConceptAblation,
        "spm": Spm,
        "slider": Slider,
        "adv_unlearn": AdvUnlearn,
        "receler": Receler,
        "few_shot": FewShot,
        "adversarial_preservation": AdversarialPreservation,
        "surgical": Surgical,
        "unguide": Unguide,
        "doco": DoCo,
        "ant": Ant,
        "erase_anything": EraseAnything,
        "salun": SalUn,
        "blocklist": Blocklist,
        "negative_prompt": NegativePrompt,
        "sld": Sld,
        "steer": Steer,
        "itd": Itd,
        "saeuron": Saeuron,
        "safree": Safree,
        "patch_replacement": PatchReplacement,
        "cgce": Cgce,
        "irece": Irece,
        "watch": Watch,
        "grad_ascent": GradAscent,
        "grad_diff": GradDiff,
        "npo": Npo,
        "simnpo": SimNpo,
        "dpo": Dpo,
        "alt_po": AltPo,
        "undial": Undial,
        "wga": Wga,
        "rmu": Rmu,
        "memit": Memit,
        "needle": Needle,
        "rocr": Rocr,
        "pisces": Pisces,
        "crisp": Crisp,
    },
)


@overload
def erase(
    method: str,
    subject: Subject,
    concept: Concept | Sequence[Concept],
    found: Sequence[Subspace] = (),
    *,
    judge: Judge | None = None,
    sampling: Sampling = SAMPLING,
) -> Erasure: ...
@overload
def erase(
    method: Eraser[Any, Made], subject: Subject, concept: Concept | Sequence[Concept], found: Sequence[Subspace] = (),
    *, judge: Judge | None = None, sampling: Sampling = SAMPLING,
) -> Made: ...  # fmt: skip
def erase(
    method: str | Eraser[Any, Any], subject: Subject, concept: Concept | Sequence[Concept], found: Sequence[Subspace] = (),
    *, judge: Judge | None = None, sampling: Sampling = SAMPLING,
) -> Erasure:  # fmt: skip
    """Make an erasure with a method's default options (by name) or with options of your own (an instance).

    Nothing is applied until `with erasure.on(subject)` or, for an edit, `bake`.

    >>> edit = erase("uce", subject, concept)
    >>> guard = erase(AblateFeatures(strength=2.0), subject, concept, found)
    >>> edit = erase("speed", subject, [camel, rocket])                  # several at once, see `Eraser.together`

    What it did to a few select prompts stands under `effect` of its `made_by`, and is warned of where it is nothing, or
    more to others than to the concept. With a `judge`, what answers made by `sampling` show too: what is left of the
    concept, what others keep, and pictures in which nothing is seen. A method that is called itself says none of it.
    """
    for given, kind, mend in (
        (subject, Subject, "adopt(pipeline) makes one of a pipeline, load of a name or folder"),
        *((one, Concept, "concept(name) has the embedded ones") for one in _each(concept)),
    ):
        if not isinstance(given, kind):
            raise TypeError(f"erase got a {type(given).__name__} in the place of a {kind.__name__}; {mend}")
    if isinstance(method, type) or not (isinstance(method, str) or callable(method)):
        raise TypeError(
            f"erase got {method!r} for the method; give a name, or an eraser with its options: Leace(how='bake')"
        )
    if isinstance(method, str):
        method = look_up(ERASERS, method, "eraser", "the list: concept_probe.erasers.ERASERS")()
    whole = united(_each(concept))
    return with_effect(method(subject, whole, found), subject, whole, judge, sampling)


def _each(concept: Any) -> Sequence[Any]:
    """Concepts that were given in a list or tuple; anything else is one."""
    return tuple(concept) if isinstance(concept, list | tuple) else (concept,)


__all__ = [
    "ERASERS",
    "Choice",
    "Columns",
    "Delta",
    "Edit",
    "Eraser",
    "Intervention",
    "LowRank",
    "Needs",
    "Shift",
    "StatedEffect",
    "Training",
    "Tried",
    "WrongBase",
    "choose",
    "choose_features",
    "choose_strength",
    "choose_vectors",
    "combine",
    "erase",
    "state_effect",
]
