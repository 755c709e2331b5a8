"""How much an audit asks, of whom, and how sure it wants to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from concept_probe.arguments import Bounds, Count, SeedNumber, check_arguments
from concept_probe.attacks import ATTACKS, ON_TEXTS, STANDARD, Attack, Budget
from concept_probe.auditing.rounds.limits import AuditRounds
from concept_probe.auditing.verdict import Thresholds
from concept_probe.registry import look_up
from concept_probe.types import Sampling

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class AuditPlan:
    """The knobs of an audit. Those of what is asked shrink its cost.

    >>> plan = AuditPlan(prompts=6, seeds=(0,), budget=Budget(queries=40, gradient_steps=30))
    >>> report = audit(subject, edit, concept, plan=plan)

    Raises ValueError for less than one prompt, no seed or under 100 resamples, UnknownName for an attack that there is
    not.
    """

    prompts: Count = 12
    """Test prompts per kind, at most; of paraphrases and implicit prompts two thirds of that, unless `even`."""
    seeds: tuple[SeedNumber, ...] = (0, 1)
    """Of the answers to each test prompt. Where texts are written without chance only the first counts."""
    sampling: Sampling = Sampling()
    """How pictures, or texts, are made."""
    fit_images: Count = 16
    """Images per side, of the concept and of others, that probes in the denoiser are fitted on."""
    styles: tuple[str, ...] = ()
    """Words of styles: target prompts that name one are also reported apart, as composed prompts."""
    attacks: tuple[str | Attack, ...] | None = None
    """Attacks by name, or as instances with options of their own; none for no recovery. None: the standard ones for
    models that answer as the subject does."""
    budget: Budget = Budget()
    """The most that each attack may spend, on the erased subject and again on the twin."""
    thresholds: Thresholds = Thresholds()
    """Where the verdict changes."""
    resamples: Annotated[int, Bounds(100)] = 2000
    """Draws of every bootstrap."""
    seed: SeedNumber = 0
    """Of every bootstrap draw, and of the random changes that are controls."""
    rounds: AuditRounds | None = None
    """Ask in rounds, only of what is in doubt; what is above is then the most. None: everything is asked at once."""
    even: bool = False
    """As many paraphrases and implicit prompts as prompts that name the concept. Always so in rounds, where each kind of
    prompt has to say for itself that nothing is left."""

    def __post_init__(self) -> None:
        check_arguments(self, "audit plan")
        if not self.seeds:
            raise ValueError("audit plan: seeds is empty; an audit needs at least one")
        for attack in self.attacks or ():
            if isinstance(attack, str):
                look_up(ATTACKS, attack, "attack", "concept-probe info attacks")

    def attacks_on(self, subject: Subject) -> tuple[str | Attack, ...]:
        """The attacks of an audit of `subject`."""
        if self.attacks is not None:
            return self.attacks
        return ON_TEXTS if subject.answers == "texts" else STANDARD
