"""What every attack has in common: how it asks for pictures, which prompts it uses, how its curve is laid out."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from concept_probe import detect
from concept_probe.attack.budget import Attempt, Budget, Meter, succeeded, success_rate
from concept_probe.attack.pictures import pictures
from concept_probe.types import Concept, Picture, Prompt, Query, Recogniser, Sampling, Score, Trial

if TYPE_CHECKING:
    from concept_probe.families import Subject


@runtime_checkable
class Denoiser(Protocol):
    """What attacks that train ask of a subject, beyond what every subject has."""

    def latents(self, images: Tensor) -> Tensor: ...
    def denoising_loss(self, latents: Tensor, prompts: Sequence[Prompt], generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Attack(ABC):
    """Tries to bring a concept back within a budget.

    It is run with the erasure on, and never takes it off: an attack on an intervention is an attack
    on a model that has the intervention.

    >>> with erasure.on(subject):
    ...     attempt = ATTACKS["relearning"](recogniser)(subject, concept, Budget(gradient_steps=60))
    """

    recogniser: Recogniser
    """Says whether a picture shows the concept; its labels must hold the label of the concept's prompts."""
    sampling: Sampling = field(default_factory=Sampling)
    """How pictures are made."""
    seed: int = 0
    """Of everything that the attack draws; the noise of its pictures starts from it too."""
    known: Mapping[Query, Trial] = field(default_factory=dict, repr=False)
    """Answers of the subject, as it is, that are paid for already: they cost no picture, but count as queries."""

    name: ClassVar[str]
    needs_examples: ClassVar[bool]
    """Whether it can do anything without `concept.examples`."""

    @abstractmethod
    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt: ...


def label_of(concept: Concept) -> str:
    """The label that pictures of the concept should get: that of its target prompts.

    Raises ValueError where the target prompts have none.
    """
    labels = [p.label for p in concept.target if p.label is not None]
    if not labels:
        raise ValueError(
            f"concept {concept.name!r}: no target prompt has a label, so no picture can be said to show it; "
            "give its prompts `label=`, one of the recogniser's labels"
        )
    return max(dict.fromkeys(labels), key=labels.count)


def spread(prompts: Sequence[Prompt], count: int, seed: int) -> tuple[Query, ...]:
    """`count` queries: every prompt once with noise `seed`, then every prompt with the next seed, and so on."""
    if not prompts:
        return ()
    return tuple(Query(prompts[i % len(prompts)], seed + i // len(prompts)) for i in range(count))


def ask(
    attack: Attack, subject: Subject, concept: Concept, queries: Sequence[Query], meter: Meter
) -> tuple[tuple[Trial, ...], Tensor | None]:
    """What the recogniser sees in the answers to `queries`, and the pictures made for it (None if all were known)."""
    if not queries:
        return (), None
    meter.pictures(len(queries))
    new = [q for q in queries if q not in attack.known]
    seen = dict(attack.known)
    images = None
    if new:
        images = subject.generate(new, attack.sampling)
        seen |= dict(zip(new, detect.trials(attack.recogniser, images, new, label_of(concept)), strict=True))
    return tuple(seen[q] for q in queries), images


def checkpoints(steps: int, points: int) -> tuple[int, ...]:
    """At most `points` step counts from 0 to `steps`, both included, evenly apart.

    >>> checkpoints(60, 4)
    (0, 20, 40, 60)
    """
    if steps <= 0 or points <= 1:
        return (0,) if steps <= 0 else (steps,)
    return tuple(sorted({round(i * steps / (points - 1)) for i in range(points)}))


def relabelled(prompts: Sequence[Prompt], label: str) -> tuple[Prompt, ...]:
    """The prompts, with `label` as what a picture for them has to show."""
    return tuple(replace(p, label=label) for p in prompts)


def examples_of(concept: Concept, budget: Budget, attack: str) -> Tensor:
    """The pictures that the attacker may use, float (n, 3, h, w), at most `budget.examples`.

    Raises ValueError where the concept has none.
    """
    if concept.examples is None or len(concept.examples) == 0:
        raise ValueError(
            f"attack {attack!r} needs pictures of concept {concept.name!r}: give it `examples` "
            "(n, 3, h, w) in 0..1, or leave the attack out"
        )
    return concept.examples[: budget.examples]


def lay_out(budget: Budget, points: int, most: int) -> tuple[tuple[int, ...], int]:
    """Step counts at which to ask, and how many pictures to ask for at each and for the control.

    A budget too small for one picture at every point keeps only the last point.
    """
    wanted = checkpoints(budget.gradient_steps, points)
    if budget.queries // (len(wanted) + 1) < 1:
        wanted = wanted[-1:]
    each = min(most, budget.queries // (len(wanted) + 1)) or min(1, budget.queries)
    return wanted, each


@contextlib.contextmanager
def with_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients for these parameters and no others, for a while."""
    before = [p.requires_grad for p in parameters]
    try:
        for p in parameters:
            p.requires_grad_(True)
        yield
    finally:
        for p, flag in zip(parameters, before, strict=True):
            p.requires_grad_(flag)
            p.grad = None


class Descent:
    """Adam on the denoising loss of `images` under `prompts`, drawn independently of each other.

    Every parameter moves by about `rate` times the root mean square of its own entries per step.
    """

    def __init__(
        self, subject: Subject, parameters: Sequence[nn.Parameter], rate: float, images: Tensor,
        prompts: Sequence[Prompt], batch: int, generator: torch.Generator, meter: Meter,
    ) -> None:  # fmt: skip
        self.subject, self.prompts, self.batch, self.generator, self.meter = subject, prompts, batch, generator, meter
        self.steps = 0
        """Made so far."""
        self.rate = rate
        self.enough = len(images) > 0
        if not self.enough:
            return
        if not isinstance(subject, Denoiser):
            raise TypeError(
                f"{subject.name!r} is no denoiser, so this attack, which trains on pictures, can't run on it"
            )
        self.denoiser = subject
        with torch.no_grad():
            self.latents = subject.latents(images.to(subject.device, subject.dtype))
        sizes = [float(p.detach().float().square().mean().sqrt()) for p in parameters]
        floor = 1e-2 * max(sizes)
        groups = [{"params": [p], "lr": rate * max(size, floor)} for p, size in zip(parameters, sizes, strict=True)]
        self.optimiser = torch.optim.Adam(groups, eps=1e-4 if subject.dtype == torch.float16 else 1e-8)

    def run(self, goal: int, bar: Progress) -> int:
        """Go on until `goal` steps have been made in all, or the time is spent; returns how many have been made.

        Raises FloatingPointError for a loss that is no number.
        """
        if not self.enough:
            return 0
        task = bar.add_task("attack", total=goal, completed=self.steps)
        while self.steps < goal and not self.meter.out_of_time():
            self.meter.step()
            rows = torch.randint(len(self.latents), (self.batch,), generator=self.generator)
            texts = torch.randint(len(self.prompts), (self.batch,), generator=self.generator).tolist()
            with torch.enable_grad():
                loss = self.denoiser.denoising_loss(
                    self.latents[rows.to(self.latents.device)], [self.prompts[i] for i in texts], self.generator
                )
                loss.backward()
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"the attack's loss is {float(loss.detach())} at step {self.steps}; lower its `rate` ({self.rate})"
                )
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            self.steps += 1
            bar.advance(task)
        bar.remove_task(task)
        return self.steps


def progress() -> Progress:
    """A bar on standard error that leaves nothing behind."""
    return Progress(console=Console(stderr=True), transient=True)


def point(attack: Attack, trials: Sequence[Trial]) -> Score:
    """Success in one set of trials."""
    return success_rate(attack.name, [succeeded(t) for t in trials])


def shown(attack: Attack, trials: Sequence[Trial], images: Tensor | None, limit: int = 4) -> tuple[Picture, ...]:
    """The first few pictures, where they were made for these trials and no others."""
    if images is None or len(images) != len(trials):
        return ()
    return pictures(attack.name, "recovery", images[:limit], trials[:limit])
