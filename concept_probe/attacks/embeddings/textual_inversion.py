"""Learn a new word for the concept: embeddings that make the erased subject draw it (arXiv 2308.01508)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from concept_probe.activations import tap
from concept_probe.attacks.attack import (
    Attack,
    Descent,
    ask,
    denoising,
    examples_of,
    label_of,
    lay_out,
    point,
    relabelled,
    shown,
    spread,
    with_gradients,
)
from concept_probe.attacks.budget import Attempt, Budget, Meter, success_of
from concept_probe.attacks.search.vocabulary import Vocabulary, check_room, in_place, names_of
from concept_probe.families.progress import bars
from concept_probe.families.text.tokens import CONTENT
from concept_probe.types import TOKEN_KINDS, Concept, Moment, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

SUBJECT = TOKEN_KINDS.index("subject")


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
            descent = Descent(loss, vectors, self.rate, generator, meter)
            for goal in steps:
                done = descent.run(goal, bar)
                seen, images = ask(bare, subject, concept, spread(queries_for, each, self.seed), meter)
                if seen:
                    curve.append((done, point(self, seen)))
                    trials.append(seen)
                if meter.out_of_time():
                    break
        control = None
        if each and curve and meter.spent().queries + each <= budget.queries and not meter.out_of_time():
            with with_vectors(subject, random_like(learned, generator)):
                seen, _ = ask(bare, subject, concept, spread(queries_for, each, self.seed), meter)
            control = success_of("random embeddings", seen)
        last = shown(self, trials[-1], images) if trials else ()
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


def start_vectors(subject: Subject, prompts: tuple[Prompt, ...]) -> dict[Site, nn.Parameter]:
    """Per token-embedding site (L, d): the mean embedding of the j-th token of the prompts' subjects."""
    seen: dict[Site, list[tuple[Tensor, Tensor]]] = {site: [] for site in subject.sites("token_embedding")}

    def keep(site: Site) -> Callable[[Tensor, Moment], None]:
        def see(x: Tensor, moment: Moment) -> None:
            where, order = _places(x, moment)
            if where.any():
                seen[site].append((x.detach()[where], order))

        return see

    with torch.no_grad(), tap(subject, {site: keep(site) for site in seen}):
        subject.encode(list(prompts))
    out = {}
    for site, parts in seen.items():
        if not parts:
            raise ValueError(f"{site}: no token of the placeholder was seen at this site")
        rows, order = torch.cat([x for x, _ in parts]), torch.cat([o for _, o in parts])
        mean = [rows[order == j].float().mean(0) for j in range(int(order.max()) + 1)]
        out[site] = nn.Parameter(torch.stack(mean).to(rows.dtype), requires_grad=False)
    return out


@contextlib.contextmanager
def with_vectors(subject: Subject, vectors: dict[Site, nn.Parameter]) -> Iterator[None]:
    """`vectors[site]` in place of the subject's token embeddings, in conditional rows; gradients reach the vectors.

    A subject of more tokens than there are vectors repeats the last one.
    """

    def put(site: Site) -> Callable[[Tensor, Moment], Tensor | None]:
        def change(x: Tensor, moment: Moment) -> Tensor | None:
            where, order = _places(x, moment)
            if not where.any():
                return None
            v = vectors[site]
            return x.masked_scatter(where.unsqueeze(-1).expand_as(x), v[order.clamp_max(len(v) - 1)].to(x))

        return change

    with tap(subject, {site: put(site) for site in vectors}):
        yield


def random_like(vectors: dict[Site, nn.Parameter], generator: torch.Generator) -> dict[Site, nn.Parameter]:
    """Gaussian directions with the norms of `vectors`."""
    out = {}
    for site, v in vectors.items():
        noise = torch.randn(v.shape, generator=generator).to(v)
        scale = v.detach().norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
        out[site] = nn.Parameter(noise * scale, requires_grad=False)
    return out


def _places(x: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
    """Where subject tokens of conditional rows are, bool (b, t), and for each its number within its row's subject."""
    if moment.token_kinds is None:
        raise RuntimeError("the family gave no token kinds at the token embedding, so the placeholder can't be found")
    where = moment.token_kinds.to(x.device) == SUBJECT
    where = where & torch.tensor([b == "cond" for b in moment.branches], device=x.device).unsqueeze(-1)
    return where, (where.long().cumsum(-1) - 1)[where]
