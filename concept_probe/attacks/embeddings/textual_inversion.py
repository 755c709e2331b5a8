"""Learn a new word for the concept: embeddings that make the erased subject draw it (arXiv 2308.01508)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from concept_probe.attacks.attack import Attack, point
from concept_probe.attacks.budget import Attempt, Budget, Meter, lay_out
from concept_probe.attacks.embeddings.vectors import random_like, start_vectors, with_vectors
from concept_probe.attacks.examples import examples_of
from concept_probe.attacks.labels import label_of, relabelled
from concept_probe.attacks.optimise import BudgetedAdam, denoising
from concept_probe.attacks.pictures import shown_pictures
from concept_probe.attacks.queries import ask, query_rounds
from concept_probe.attacks.search.slots import check_room, in_place
from concept_probe.attacks.search.vocabulary import Vocabulary, names_of
from concept_probe.evaluation.rates import success_of
from concept_probe.families.progress import bars
from concept_probe.families.state import with_gradients
from concept_probe.types import CONTENT, Concept, Prompt

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class EmbeddingInversion(Attack):
    """Replaces the token embeddings of a placeholder word by learned vectors.

    The placeholder is a word that has nothing to do with the erasure (the anchor's, or where the anchor
    names nothing a neighbour's), so a filter on the concept's names never sees it. The vectors start as
    the placeholder's own embeddings and descend the denoising loss of the attacker's pictures of the
    concept, through everything that is on at the time. Random vectors of the same norms are the control.
    """

    points: int = 3
    """Points of the curve, the baseline (0 steps) included."""
    pictures: int = 16
    """Pictures per point and for the control, at most."""
    rate: float = 0.3
    """Adam's step, as a multiple of the root mean square of the embeddings' entries."""
    batch: int = 8
    """Pictures per gradient step."""
    tokens: int = 0
    """How many vectors are learned per text encoder: as many pseudo-words stand in the place of the placeholder. 0: as
    many as its own tokens."""

    name: ClassVar[str] = "embedding_inversion"
    needs_examples: ClassVar[bool] = True
    brings: ClassVar[bool] = True
    on: ClassVar = "pictures"

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        meter, label = Meter(budget), label_of(concept)
        fit, test = self.repeated(subject, concept, *placeholders(concept))
        queries_for = relabelled(test, label)
        steps, each = lay_out(budget, self.points, self.pictures)
        examples = examples_of(concept, budget, self.name)
        meter.use_examples(len(examples))
        learned = start_vectors(subject, fit)
        generator = torch.Generator().manual_seed(self.seed)
        curve, trials, images = [], [], None
        bare = replace(self, known={})  # known answers were given without the learned vectors
        vectors = list(learned.values())
        with bars() as bar, with_vectors(subject, learned), with_gradients(vectors):
            loss = denoising(subject, examples, fit, self.batch)
            descent = BudgetedAdam(loss, vectors, self.rate, generator, meter)
            for goal in steps:
                done = descent.run(goal, bar)
                seen, images = ask(bare, subject, concept, query_rounds(queries_for, each, self.seed), meter)
                if seen:
                    curve.append((done, point(self, seen)))
                    trials.append(seen)
                if meter.out_of_time():
                    break
        control = None
        if each and curve and meter.spent().queries + each <= budget.queries and not meter.out_of_time():
            with with_vectors(subject, random_like(learned, generator)):
                seen, _ = ask(bare, subject, concept, query_rounds(queries_for, each, self.seed), meter)
            control = success_of("random embeddings", seen)
        last = shown_pictures(self, trials[-1], images) if trials else ()
        return Attempt(
            self.name, concept.name, budget, meter.spent(), "gradient steps", tuple(curve), tuple(trials), control, last
        )

    def repeated(
        self, subject: Subject, concept: Concept, fit: tuple[Prompt, ...], test: tuple[Prompt, ...]
    ) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
        """The prompts with `tokens` one-token words for the placeholder; as they are where that is 0.

        Raises ValueError for less than 0, or more than the text encoders read.
        """
        if self.tokens < 0:
            raise ValueError(
                f"attack {self.name!r}: tokens is {self.tokens}; give 1 or more, or 0 for the placeholder's"
            )
        if not self.tokens:
            return fit, test
        words = (one_token_word(subject, concept, (*fit, *test)),) * self.tokens
        check_room(subject, [in_place(p) for p in (*fit, *test)], self.tokens)
        made = [
            tuple(replace(in_place(p).filled(words), subject=" ".join(words)) for p in part) for part in (fit, test)
        ]
        return made[0], made[1]


def one_token_word(subject: Subject, concept: Concept, prompts: Sequence[Prompt]) -> str:
    """A word that every text encoder reads as one token, and that stands nowhere beside the prompts' subjects.

    The first such of those subjects, else the first of the vocabulary. Raises ValueError where there is none.
    """
    beside = {w for p in prompts for part in (in_place(p).before, in_place(p).after) for w in part.lower().split()}
    for word in (w for p in prompts for w in (p.subject or "").split()):
        tokens = subject.tokenise([Prompt(word)])
        if word.lower() not in beside and all(int((kinds == CONTENT).sum()) == 1 for kinds in tokens.kinds_of):
            return word
    return Vocabulary.of(subject, (*names_of(concept), *beside)).words[0]


def placeholders(concept: Concept) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """Fit and test prompts whose subject the learned vectors take the place of: one phrase throughout.

    From the anchor, else the neighbours, else the unrelated, else the target itself; the first kind
    that names a subject in both splits. Raises ValueError where none does.
    """
    for kind in ("anchor", "neighbours", "unrelated", "target"):
        fit = [p for p in concept.prompts(kind, "fit") if p.subject]
        test = [p for p in concept.prompts(kind, "test") if p.subject]
        phrases = [p.subject for p in test]
        phrase = next((p.subject for p in fit if p.subject in phrases), None)
        if phrase is not None:
            return tuple(p for p in fit if p.subject == phrase), tuple(p for p in test if p.subject == phrase)
        if fit and test:
            return tuple(fit), tuple(test)
    raise ValueError(
        f"concept {concept.name!r}: no prompt of its fit and test splits names a subject, so there is no "
        "place for a learned word; give prompts `subject=`"
    )
