"""What answers in words say: right ones found in written texts, and how likely a model finds them unwritten.

Each number is per prompt, so that answers before and after an erasure are compared prompt by prompt.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from concept_probe.types import KINDS, Concept, Prompt, Query, Trial
from concept_probe.types.right_texts import is_right, place, words


@runtime_checkable
class Continues(Protocol):
    """What is needed of a language model here, see `families.CausalLMSubject`."""

    def log_probs(self, pairs: Sequence[tuple[Prompt, str]], *, batch: int = 16) -> Any:
        """`total` (n,): log probability of each text as the continuation of its prompt."""
        ...

    def next_logits(self, prompts: Sequence[Prompt], *, batch: int = 16) -> Tensor:
        """Logits (n, v) of the token that follows each prompt."""
        ...

    def spelled_after(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """Tokens that `text` adds to the prompt."""
        ...


def continuation(prompt: Prompt, answer: str) -> str:
    """`answer` as it goes on after the prompt: behind a space in a plain text, at the beginning of a turn in a chat."""
    return " " + answer if prompt.form == "plain" else answer


def answer_trials(texts: Sequence[str], queries: Sequence[Query]) -> tuple[Trial, ...]:
    """What the text written for each query says: its label if it is right, else `none`.

    >>> texts = subject.generate(queries)
    >>> sum(t.probability for t in answer_trials(texts, queries)) / len(queries)    # share of right answers
    """
    if len(texts) != len(queries):
        raise ValueError(f"{len(texts)} texts for {len(queries)} queries")
    right = [is_right(text, query.prompt) for text, query in zip(texts, queries, strict=True)]
    return tuple(
        Trial(query, (query.prompt.label or "right") if good else "none", float(good))
        for query, good in zip(queries, right, strict=True)
    )


@dataclass(frozen=True)
class GoldAnswers:
    """Reads texts by the answers that their prompts hold: a `types.AnswerReader`.

    A right text shows its prompt's label. A text for another prompt that says one of the concept's own answers, and
    is not right itself, is a mistake: it shows the concept.
    """

    concept: str
    """The label of the concept's prompts."""
    own: tuple[str, ...]
    """Answers to the concept's target prompts."""
    others: tuple[str, ...] = ()
    """Labels of the other prompts."""
    name: str = "gold answers"
    version: str = "1"

    @classmethod
    def of(cls, concept: Concept) -> GoldAnswers:
        """Made from the prompts of a concept. Raises ValueError where a target prompt has no label or no answers."""
        bare = [p for p in concept.target if not p.answers or p.label is None]
        if bare:
            raise ValueError(
                f"concept {concept.name!r}: the target prompt {bare[0].text!r} has no answers or no label, so a text can't "
                "be judged by them; give it both"
            )
        labels = {p.label for kind in KINDS for p in getattr(concept, kind) if p.label}
        own = dict.fromkeys(a for p in concept.target for a in p.answers)
        label = next(p.label for p in concept.target if p.label)
        return cls(label, tuple(own), tuple(sorted(labels - {label})))

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.concept, *self.others, "none")

    def read(self, texts: Sequence[str], queries: Sequence[Query], concept: str | None = None) -> tuple[Trial, ...]:
        """One trial per text; `probability` is 1 where it shows `concept` (or the query's own label), else 0."""
        if len(texts) != len(queries):
            raise ValueError(f"{len(texts)} texts for {len(queries)} queries")
        out = []
        for text, query in zip(texts, queries, strict=True):
            prompt = query.prompt
            if prompt.answers and is_right(text, prompt):
                seen = prompt.label or "right"
            elif prompt.label != self.concept and place(text, self.own) is not None:
                seen = self.concept
            else:
                seen = "none"
            out.append(Trial(query, seen, float(seen == (concept if concept is not None else prompt.label))))
        return tuple(out)


def answer_probability(subject: Continues, prompts: Sequence[Prompt], *, batch: int = 32) -> Tensor:
    """(n,) float32, on the CPU: probability that each prompt goes on with one of its answers, 0..1; no gradients.

    Raises ValueError for a prompt without answers.
    """
    pairs = [(prompt, continuation(prompt, answer)) for prompt in prompts for answer in _answers(prompt)]
    with torch.no_grad():
        total = subject.log_probs(pairs, batch=batch).total.cpu().exp()
    shares = total.split([len(p.answers) for p in prompts])
    return torch.stack([each.sum() for each in shares]) if prompts else torch.zeros(0)


def cloze_rank(subject: Continues, prompts: Sequence[Prompt], *, batch: int = 16) -> Tensor:
    """(n,) long, on the CPU: how many tokens are likelier than the first of an answer, plus one; 1 is the likeliest.

    Of several answers the best counts. Raises ValueError for a prompt without answers.
    """
    starts = [[subject.spelled_after(p, continuation(p, answer))[0] for answer in _answers(p)] for p in prompts]
    if not prompts:
        return torch.zeros(0, dtype=torch.long)
    with torch.no_grad():
        logits = subject.next_logits(prompts, batch=batch).float().cpu()
    best = torch.stack([row[ids].max() for row, ids in zip(logits, starts, strict=True)])
    return (logits > best[:, None]).sum(1) + 1


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L: F1 of the longest common subsequence of words, 0..1; 0 where one of the texts has no word.

    Source: Lin, "ROUGE: a package for automatic evaluation of summaries", 2004, section 3.1, with beta 1; a
    text is one sequence of words.
    """
    said, wanted = words(text), words(reference)
    longest = [0] * (len(wanted) + 1)
    for word in said:
        before = longest
        longest = [0]
        for j, other in enumerate(wanted):
            longest.append(before[j] + 1 if word == other else max(before[j + 1], longest[j]))
    return 2 * longest[-1] / (len(said) + len(wanted)) if said and wanted else 0.0


def bleu(text: str, reference: str, *, longest: int = 4) -> float:
    """BLEU of one text: brevity penalty times the geometric mean of the precisions of 1..`longest` words, 0..1.

    Texts of a few words have few runs of four, so counts of runs of two and more are raised by one (above and below
    the line), as Lin and Och do; 0 where no word is shared. Sources: Papineni et al., "BLEU: a method for automatic
    evaluation of machine translation", 2002; Lin and Och, "ORANGE: a method for evaluating automatic evaluation
    metrics for machine translation", 2004.
    """
    said, wanted = words(text), words(reference)
    if not set(said) & set(wanted):
        return 0.0
    logs = 0.0
    for n in range(1, longest + 1):
        runs, known = (Counter(each[i : i + n] for i in range(len(each) - n + 1)) for each in (said, wanted))
        more = int(n > 1)
        logs += math.log((sum((runs & known).values()) + more) / (sum(runs.values()) + more))
    short = min(0.0, 1 - len(wanted) / len(said))
    return math.exp(logs / longest + short)


def _answers(prompt: Prompt) -> tuple[str, ...]:
    if not prompt.answers:
        raise ValueError(f"{prompt.text!r} has no answers whose likelihood could be asked for")
    return prompt.answers
