"""Learn a new word for the concept: embeddings that make the erased subject draw it (arXiv 2308.01508)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from concept_probe.arguments import Count
from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.attacks.budget import curve_points, lay_out
from concept_probe.attacks.embeddings.learned import Learning, trace_learning
from concept_probe.attacks.embeddings.vectors import random_like, start_vectors
from concept_probe.attacks.examples import examples_of
from concept_probe.attacks.labels import relabelled
from concept_probe.attacks.optimise import BudgetedAdam
from concept_probe.attacks.search.slots import check_room, in_place
from concept_probe.attacks.search.vocabulary import Vocabulary, names_of
from concept_probe.erasers.training.denoising import denoising_loss
from concept_probe.families import DiffusionSubject
from concept_probe.types import CONTENT, Concept, Prompt


@dataclass(frozen=True, eq=False)
class EmbeddingInversion(Attack[DiffusionSubject]):
    """Replaces the token embeddings of a placeholder word by learned vectors.

    The placeholder is a word that has nothing to do with the erasure (the anchor's, or where the anchor
    names nothing a neighbour's), so a filter on the concept's names never sees it. The vectors start as
    the placeholder's own embeddings and descend the denoising loss of the attacker's pictures of the
    concept, through everything that is on at the time. Random vectors of the same norms are the control.
    """

    points: Count = 3
    """Points of the curve, the baseline (0 steps) included."""
    pictures: Count = 16
    """Pictures per point and for the control, at most."""
    rate: float = 0.3
    """Adam's step, as a multiple of the root mean square of the embeddings' entries."""
    batch: Count = 8
    """Pictures per gradient step."""
    tokens: int = 0
    """How many vectors are learned per text encoder: as many pseudo-words stand in the place of the placeholder. 0: as
    many as its own tokens."""

    name = "embedding_inversion"
    on = "pictures"
    needs_examples = True
    brings = True
    continues = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens < 0:
            raise ValueError(
                f"attack {self.name!r}: tokens is {self.tokens}; give 1 or more, or 0 for the placeholder's"
            )

    def run(self, run: AttackRun[DiffusionSubject]) -> Attempt:
        subject, concept = run.subject, run.concept
        fit, test = self.repeated(subject, concept, *placeholders(concept))
        steps, each = lay_out(run.budget, curve_points(run.budget.gradient_steps, self.points), self.pictures)
        queries = run.queries(relabelled(test, run.label), each)
        examples = examples_of(concept, run.budget)
        run.meter.use_examples(len(examples))
        learned = start_vectors(subject, fit)
        loss = denoising_loss(subject, examples, fit, self.batch) if len(examples) else None
        descent = BudgetedAdam(loss, list(learned.values()), self.rate, run.generator, run.meter)
        return trace_learning(
            run,
            steps,
            queries,
            Learning(learned, descent.run, lambda: random_like(learned, run.generator), "random embeddings"),
        )

    def repeated(
        self, subject: DiffusionSubject, concept: Concept, fit: tuple[Prompt, ...], test: tuple[Prompt, ...]
    ) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
        """The prompts with `tokens` one-token words for the placeholder; as they are where that is 0.

        Raises ValueError for more than the text encoders read.
        """
        if not self.tokens:
            return fit, test
        words = (one_token_word(subject, concept, (*fit, *test)),) * self.tokens
        check_room(subject, [in_place(p) for p in (*fit, *test)], self.tokens)
        made = [
            tuple(replace(in_place(p).filled(words), subject=" ".join(words)) for p in part) for part in (fit, test)
        ]
        return made[0], made[1]


def one_token_word(subject: DiffusionSubject, concept: Concept, prompts: Sequence[Prompt]) -> str:
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
