"""What every attack has in common: how it asks for pictures, which prompts it uses, how its curve is laid out."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from rich.progress import Progress
from torch import Tensor, nn

from concept_probe import detect
from concept_probe.attacks.budget import Attempt, Budget, Meter, success_of
from concept_probe.attacks.pictures import pictures
from concept_probe.detect.answers import Continues
from concept_probe.erasers.finetune.loop import adam
from concept_probe.types import AnswerReader, Concept, Looks, Picture, Prompt, Query, Sampling, Score, Trial

if TYPE_CHECKING:
    from concept_probe.families import Subject


@runtime_checkable
class Denoiser(Protocol):
    """What attacks that train ask of a subject, beyond what every subject has."""

    def latents(self, images: Tensor) -> Tensor: ...
    def denoising_loss(self, latents: Tensor, prompts: Sequence[Prompt], generator: torch.Generator) -> Tensor: ...


class NothingToAsk(ValueError):
    """The concept lacks what the attack would ask for: nothing was tried, and nothing can be said."""


@dataclass(frozen=True, eq=False)
class Attack(ABC):
    """Tries to bring a concept back within a budget.

    It is run with the erasure on, and asks of nothing else: an attack on an intervention is an attack
    on a model that has the intervention.

    >>> with erasure.on(subject):
    ...     attempt = ATTACKS["relearning"](recogniser)(subject, concept, Budget(gradient_steps=60))
    """

    recogniser: Looks
    """Says whether an answer shows the concept; its labels must hold the label of the concept's prompts."""
    sampling: Sampling = field(default_factory=Sampling)
    """How pictures, or texts, are made."""
    seed: int = 0
    """Of everything that the attack draws; the noise of its pictures starts from it too."""
    known: Mapping[Query, Trial] = field(default_factory=dict, repr=False)
    """Answers of the subject, as it is, that are paid for already: they cost no picture, but count as queries."""

    name: ClassVar[str]
    needs_examples: ClassVar[bool]
    """Whether it can do anything without `concept.examples`."""
    brings: ClassVar[bool] = False
    """Whether it hands the model knowledge of the concept (pictures, earlier weights, a recogniser's gradient): then
    only the same attack on a model that was never taught tells how much of a success was there before."""
    learns_answers: ClassVar[bool] = False
    """Whether answers to the concept's fit prompts are examples too."""
    on: ClassVar[Literal["pictures", "texts", "both"]] = "both"
    """What it can attack: subjects that answer with pictures, with texts, or either."""

    @abstractmethod
    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt: ...


def lacks_examples(attack: Attack, concept: Concept) -> bool:
    """Whether the attack needs examples of the concept, and there are none."""
    if not attack.needs_examples or (concept.examples is not None and len(concept.examples)):
        return False
    return not (attack.learns_answers and any(p.answers for p in concept.target.fit))


def suits(attack: Attack | type[Attack], subject: Subject) -> bool:
    """Whether the subject gives answers of the kind that the attack is on."""
    return attack.on in ("both", "texts" if isinstance(subject, Continues) else "pictures")


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


def distinct(attack: Attack, prompts: Sequence[Prompt], count: int) -> int:
    """At most `count` queries that can differ: a text without chance is the same for every seed."""
    fixed = isinstance(attack.recogniser, AnswerReader) and attack.sampling.temperature == 0
    return min(count, len(prompts)) if fixed else count


def ask(
    attack: Attack, subject: Subject, concept: Concept, queries: Sequence[Query], meter: Meter
) -> tuple[tuple[Trial, ...], Sized | None]:
    """What the recogniser sees in the answers to `queries`, and the answers made for it (None if all were known)."""
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


def decoys(concept: Concept) -> tuple[Prompt, ...]:
    """Unrelated test prompts that ask for something else: whatever shows the concept there is a mistake.

    They have the concept's label; where its answers are words, any of them in a text counts.
    """
    own = tuple(dict.fromkeys(a for p in concept.target for a in p.answers))
    others = relabelled(concept.prompts("unrelated", "test"), label_of(concept))
    return tuple(replace(p, answers=own, distractors=()) for p in others) if own else others


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


Loss = Callable[[torch.Generator], Tensor]
"""A scalar with gradients; all that it draws comes from the generator."""


def denoising(subject: Subject, images: Tensor, prompts: Sequence[Prompt], batch: int) -> Loss | None:
    """The denoising loss of `images` under `prompts`, drawn independently of each other; None without images.

    Raises TypeError for a subject that does not denoise.
    """
    if not len(images):
        return None
    if not isinstance(subject, Denoiser):
        raise TypeError(f"{subject.name!r} is no denoiser, so this attack, which trains on pictures, can't run on it")
    denoiser = subject
    with torch.no_grad():
        latents = subject.latents(images.to(subject.device, subject.dtype))

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(latents), (batch,), generator=generator)
        texts = torch.randint(len(prompts), (batch,), generator=generator).tolist()
        return denoiser.denoising_loss(latents[rows.to(latents.device)], [prompts[i] for i in texts], generator)

    return loss


class Descent:
    """Adam on a loss, with gradients for `parameters`.

    Every parameter moves by about `rate` times the root mean square of its own entries per step.
    """

    def __init__(
        self, loss: Loss | None, parameters: Sequence[nn.Parameter], rate: float, generator: torch.Generator,
        meter: Meter, groups: Sequence[dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        """Without a loss there is nothing to learn from, and no step is made. `groups` are the optimiser's, where
        sizes of the parameters say nothing about their steps."""
        self.loss, self.generator, self.meter = loss, generator, meter
        self.steps = 0
        """Made so far."""
        self.rate = rate
        sizes = [float(p.detach().float().square().mean().sqrt()) for p in parameters]
        floor = 1e-2 * max(sizes)
        own = [{"params": [p], "lr": rate * max(size, floor)} for p, size in zip(parameters, sizes, strict=True)]
        self.optimiser = adam(own if groups is None else list(groups))

    def run(self, goal: int, bar: Progress) -> int:
        """Go on until `goal` steps have been made in all, or the time is spent; returns how many have been made.

        Raises FloatingPointError for a loss that is no number.
        """
        if self.loss is None:
            return 0
        task = bar.add_task("attack", total=goal, completed=self.steps)
        while self.steps < goal and not self.meter.out_of_time():
            self.meter.step()
            with torch.enable_grad():
                loss = self.loss(self.generator)
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


def point(attack: Attack, trials: Sequence[Trial]) -> Score:
    """Success in one set of trials."""
    return success_of(attack.name, trials)


def shown(attack: Attack, trials: Sequence[Trial], images: Sized | None, limit: int = 4) -> tuple[Picture, ...]:
    """The first few pictures, where they were made for these trials and no others."""
    if not isinstance(images, Tensor) or len(images) != len(trials):
        return ()
    return pictures(attack.name, "recovery", images[:limit], trials[:limit])
