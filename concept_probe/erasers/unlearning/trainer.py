"""Unlearning by gradients for causal language models: what the methods share.

Every method trains a student (low-rank adapters, or whole matrices) on answers to the concept's prompts, mostly
together with answers that are to be kept. The subject outside the student is the frozen reference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from concept_probe.detect.answers import continuation
from concept_probe.erasers.erasure.deltas import Delta
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import address
from concept_probe.erasers.erasure.provenance import made_by
from concept_probe.erasers.finetune.loop import descend, ends
from concept_probe.erasers.finetune.trainable import Adapters, Student, Whole
from concept_probe.erasers.unlearning.losses import divergence, nll
from concept_probe.registry import UnknownName
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject, Subject

Pair = tuple[Prompt, str]
"""A prompt, and a text that goes on from it."""
Term = Callable[[torch.Generator], Tensor]
"""A part of the loss, evaluated with the student on; all that it draws comes from the generator."""


def language(subject: Subject, method: str) -> CausalLMSubject:
    """The subject, as a language model. Raises TypeError where it is none."""
    from concept_probe.families import CausalLMSubject

    if not isinstance(subject, CausalLMSubject):
        raise TypeError(
            f"{method} unlearns answers in words, and {subject.name!r} is of family {subject.family!r}; "
            "it needs a causal language model"
        )
    return subject


def answered(concept: Concept, kinds: Sequence[Kind]) -> tuple[Pair, ...]:
    """Each fit prompt of these kinds that has answers, with the usual one."""
    prompts = [p for kind in kinds for p in concept.prompts(kind, "fit") if p.answers]
    return tuple((p, continuation(p, p.answers[0])) for p in prompts)


def draw(count: int, batch: int, generator: torch.Generator) -> list[int]:
    """`batch` of `count` rows, without repeats where there are enough of them."""
    if count <= batch:
        return list(range(count))
    return torch.randperm(count, generator=generator)[:batch].tolist()


def named_modules(model: CausalLMSubject, names: Sequence[str], method: str) -> tuple[Site, ...]:
    """The weights of every matrix inside the blocks whose last name is one of `names`; all down projections for none.

    Raises UnknownName for a name that no matrix has.
    """
    if not names:
        return model.sites("mlp_value")
    (component,) = model.components
    inside = tuple(block.block + "." for block in model.layout.blocks)
    paths = [
        p for p, m in model.model.named_modules() if p.startswith(inside) and getattr(m, "weight", None) is not None
    ]
    matrices = [p for p in paths if model.model.get_submodule(p).weight.ndim == 2]
    known = dict.fromkeys(p.rpartition(".")[2] for p in matrices)
    for name in names:
        if name not in known:
            raise UnknownName("module", name, known, f"{method} trains matrices inside the blocks of {model.name}")
    return tuple(Site(component, p, "weight") for p in matrices if p.rpartition(".")[2] in names)


@dataclass(frozen=True)
class Descent(ABC):
    """Options of every method that trains, and the way from a loss to the change of the weights."""

    name: ClassVar[str]
    steps: int = 60
    """Gradient steps."""
    batch: int = 8
    """Answers per step, of the concept and again of what is kept."""
    rate: float = 0.02
    """Adam's step, as a multiple of the root mean square of each matrix; falls to 0 along a cosine."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""
    seed: int = 0
    """Of everything that is drawn."""

    def taught(self, student: Student, terms: Sequence[Term]) -> tuple[dict[str, Delta], list[float]]:
        """What the student becomes where the sum of the terms is least, times `strength`; and the loss at both ends.

        Raises FloatingPointError for a loss that is no number.
        """
        losses = descend(
            student, lambda _, generator: torch.stack([term(generator) for term in terms]).sum(), steps=self.steps,
            rate=self.rate, generator=torch.Generator().manual_seed(self.seed), method=self.name,
        )  # fmt: skip
        return {where: delta.scaled(self.strength) for where, delta in student.deltas().items()}, ends(losses)


@dataclass(frozen=True)
class Keeping(Descent, ABC):
    """A method that keeps answers to other prompts."""

    retain: float = 1.0
    """Weight of the part of the loss that keeps other answers; at 0 there is none."""
    keep: Literal["nll", "kl"] = "nll"
    """What keeps them: `nll`, likelihood of the right answers; `kl`, divergence of the next token from the reference's."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that are kept; for `nll` those of them that have answers."""

    def kept(self, model: CausalLMSubject, concept: Concept) -> tuple[Term, ...]:
        """The part of the loss that keeps other answers; none at weight 0.

        Raises ValueError where there is nothing to keep.
        """
        if not self.retain:
            return ()
        if self.keep not in ("nll", "kl"):
            raise ValueError(f"{self.name}: keep is {self.keep!r}; it is one of nll, kl")
        pairs = answered(concept, self.preserve)
        prompts = [p for kind in self.preserve for p in concept.prompts(kind, "fit")]
        if not (pairs if self.keep == "nll" else prompts):
            raise ValueError(
                f"{self.name}: {concept.name!r} has no fit prompts in {', '.join(self.preserve)} to keep"
                f"{' answers of' if self.keep == 'nll' else ''}; give it some, or set `retain=0`"
            )
        if self.keep == "nll":
            return (lambda g: self.retain * nll(model.log_probs(pick(pairs, self.batch, g), batch=self.batch).mean),)
        before = model.next_logits(prompts).detach()

        def near(generator: torch.Generator) -> Tensor:
            rows = draw(len(prompts), self.batch, generator)
            said = model.next_logits([prompts[i] for i in rows], batch=self.batch)
            return self.retain * divergence(said, before[rows])

        return (near,)


@dataclass(frozen=True)
class Unlearner(Descent, ABC):
    """Unlearns answers with adapters, or with whole matrices."""

    sources: tuple[Kind, ...] = ("target", "paraphrases")
    """Lists of the concept's prompts (fit split) whose answers are unlearned."""
    rank: int | None = 8
    """Rank of the adapters beside each matrix; None trains whole matrices."""
    modules: tuple[str, ...] = ()
    """Last names of the matrices inside the blocks that are trained, such as `q_proj`; none: all down projections."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found` is not used.

        Raises TypeError for a subject that is no language model, ValueError where the concept's fit prompts have no
        answers, FloatingPointError for a loss that is no number; the subject has its own bytes in every case.
        """
        model = language(subject, self.name)
        forget = forgotten(concept, self.sources, self.name)
        origin: dict[str, Any] = {"loss": [], "trained": 0}
        deltas = {}
        if self.strength:
            student = self._student(model)
            with torch.no_grad():
                terms = self.terms(model, student, concept, forget)
            deltas, losses = self.taught(student, terms)
            origin = {"loss": losses, "trained": len(deltas)}
        return Edit(self.name, concept.name, deltas, subject.weight_hash(), made_by(self, subject, concept, **origin))

    def _student(self, model: CausalLMSubject) -> Student:
        sites = self.sites(model)
        if self.rank is None:
            return Whole(model, [address(site) for site in sites])
        return Adapters(model, sites, self.rank, self.seed)

    @abstractmethod
    def sites(self, model: CausalLMSubject) -> tuple[Site, ...]:
        """The matrices that are trained."""

    @abstractmethod
    def terms(
        self, model: CausalLMSubject, student: Student, concept: Concept, forget: Sequence[Pair]
    ) -> tuple[Term, ...]:
        """The parts of the loss. It is called before training: what is measured in it is the frozen reference's."""


@dataclass(frozen=True)
class Keeper(Unlearner, Keeping, ABC):
    """An unlearner that also keeps answers to other prompts."""


def forgotten(concept: Concept, kinds: Sequence[Kind], method: str) -> tuple[Pair, ...]:
    """The answers that are unlearned. Raises ValueError where there is none."""
    forget = answered(concept, kinds)
    if not forget:
        raise ValueError(
            f"{method}: no fit prompt of {concept.name!r} in {', '.join(kinds)} has `answers`, so there is nothing to "
            "unlearn; give its prompts answers"
        )
    return forget


def pick(pairs: Sequence[Pair], batch: int, generator: torch.Generator) -> list[Pair]:
    """A batch of the pairs."""
    return [pairs[i] for i in draw(len(pairs), batch, generator)]


def whole(pair: Pair) -> Prompt:
    """A prompt and its answer as one text to read; of a chat, the user's turn alone."""
    prompt, text = pair
    return replace(prompt, text=prompt.text + text) if prompt.form == "plain" else prompt
