"""An intervention: what is changed while the subject runs. No weight is touched."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from concept_probe.activations.tap import refuse_shared_modules, tap
from concept_probe.erasers.erasure.base import check_base, moved
from concept_probe.erasers.erasure.provenance import check_strength, condensed
from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.families.diffusion.trajectory import SamplingHook
from concept_probe.storage import text_sha256
from concept_probe.types import Moment, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject
    from concept_probe.families.diffusion.trajectory import Trajectory

Change = Callable[[Tensor, Moment], Tensor | None]
"""(x, moment) -> what to add to x at strength 1, in the shape of x; None where nothing changes."""
Between = Callable[["Trajectory", int], Tensor | None]
"""(trajectory, step) -> what to add to the latents of a trajectory after a step at strength 1; None where nothing changes."""


@dataclass(frozen=True)
class Intervention:
    """Changes at sites, added while it is on.

    >>> with intervention.on(subject):
    ...     pictures = subject.generate(queries)
    """

    name: str
    """The method that made it."""
    concept: str
    actions: Mapping[Site, Change]
    strength: float = 1.0
    """Factor on every change; 0 changes no bit, above 1 overshoots."""
    made_by: Mapping[str, Any] = field(default_factory=dict)
    """Method and options; values that JSON can hold."""
    between: Between | None = None
    """What is done to the latents between two denoising steps."""

    leads_by_guidance: bool = False
    """Whether it can act only where guidance asks for predictions without the prompt too."""
    base_hash: str = ""
    """`subject.weight_hash()` of the weights that it was fitted on; empty where nobody says."""
    asks: Subject | None = field(default=None, repr=False, compare=False)
    """The subject that it asks more of while it acts, or reads from; None where it needs none."""

    def __post_init__(self) -> None:
        check_strength(self.name, self.strength)

    @contextlib.contextmanager
    def on(self, subject: Subject) -> Iterator[Subject]:
        """The subject with the intervention acting; it ends with the block, also after an error.

        Raises `WrongBase` for weights that it was not fitted on, edits that are on put aside; in half precision, where the
        bytes of one model differ from those in full, it warns. `meant_for` says that another model is meant.
        """
        if self.strength == 0 or not (self.actions or self.between):
            yield subject
            return
        check_base(self, "guard", subject)
        refuse_shared_modules(subject, self.actions)
        with contextlib.ExitStack() as stack:
            stack.enter_context(subject.state.acting(self._told()))
            actions = self._watched() if self.leads_by_guidance else self.actions
            stack.enter_context(tap(subject, {site: self._added(change) for site, change in actions.items()}))
            if self.between:
                stack.enter_context(_denoising(subject, self.name).hooked(self._hook(self.between)))
            yield subject

    def _watched(self) -> dict[Site, Change]:
        """The actions; the first of them to meet a trajectory in which they can do nothing says so, once."""
        said: list[bool] = []

        def watched(change: Change) -> Change:
            def acting(x: Tensor, moment: Moment) -> Tensor | None:
                if not said and moment.step is not None and "uncond" not in moment.branches and not moment.nested:
                    said.append(True)
                    warnings.warn(
                        f"{self.name} is on and changes nothing: it acts through guidance, and these pictures are made without "
                        "(guidance 1 or less, or a model that reads its weight); sample with guidance above 1, or take a "
                        "guard that needs none",
                        stacklevel=2,
                    )
                return change(x, moment)

            return acting

        return {site: watched(change) for site, change in self.actions.items()}

    def _told(self) -> str:
        """What tells it from others, as far as it says how it was made."""
        told = {**self.describe(), "made_by": dict(self.made_by)}
        told.pop("base_hash", None)  # whoever keeps this keeps the hash of the weights beside it
        return f"{self.name} of {self.concept} ({text_sha256(json.dumps(told, sort_keys=True, default=str))[:16]})"

    def _hook(self, between: Between) -> SamplingHook:
        def after(trajectory: Trajectory, step: int) -> None:
            delta = between(trajectory, step)
            if delta is not None:
                trajectory.latents = self._changed(trajectory.latents, delta)

        return SamplingHook(after_step=after)

    def _added(self, change: Change) -> Callable[[Tensor, Moment], Tensor | None]:
        def edited(x: Tensor, moment: Moment) -> Tensor | None:
            delta = change(x, moment)
            return None if delta is None else self._changed(x, delta)

        return edited

    def _changed(self, x: Tensor, delta: Tensor) -> Tensor:
        if not isinstance(delta, Tensor) or delta.shape != x.shape or not delta.is_floating_point():
            came = f"{tuple(delta.shape)} of {delta.dtype}" if isinstance(delta, Tensor) else type(delta).__name__
            raise ValueError(
                f"guard {self.name!r} gave {came} to add to {tuple(x.shape)} of {x.dtype}; a change is a tensor of floating-point "
                "numbers in that shape, or None"
            )
        # Where nothing changes, x itself: -0.0 + 0.0 would flip a sign bit.
        return torch.where(delta == 0, x, x + (self.strength * delta).to(x.dtype))

    def scaled(self, factor: float) -> Intervention:
        """The same intervention `factor` times as strong. TypeError for what is no number."""
        check_strength(self.name, factor)
        return replace(self, strength=self.strength * factor)

    def meant_for(self, subject: Subject) -> Intervention:
        """The same intervention, meant for these weights although it was fitted on others: a finetuned model's, say.

        >>> with guard.meant_for(finetuned).on(finetuned): ...

        What it does there is for you to show. ValueError for one that asks the subject it was made on while it acts, or reads
        from it: it has to be made again.
        """
        if self.asks is not None and self.asks.state is not subject.state:
            raise ValueError(
                f"guard {self.name!r} asks {self.asks.name!r}, which it was made on, while it acts, so it can't be meant for "
                f"{subject.name!r}; make it again there: erase({self.name!r}, subject, concept)"
            )
        return replace(self, base_hash=subject.weight_hash(), made_by=moved(self.made_by, self.base_hash))

    def describe(self) -> dict[str, Any]:
        """What it is, as values that JSON can hold."""
        return {
            "kind": "intervention",
            "name": self.name,
            "concept": self.concept,
            "strength": self.strength,
            "sites": [str(site) for site in self.actions],
            **({"base_hash": self.base_hash} if self.base_hash else {}),
            "made_by": condensed(self.made_by),
        }


def _denoising(subject: Subject, name: str) -> DiffusionSubject:
    if not isinstance(subject, DiffusionSubject):
        raise TypeError(f"{name}: {subject.name!r} makes no pictures by denoising, so there is no trajectory to change")
    return subject
