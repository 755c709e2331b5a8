"""Questions of one word each, and a tiny model that knows their answers by heart."""

from __future__ import annotations

import torch

import concept_probe as cp
from concept_probe.attacks import Budget
from concept_probe.auditing import AuditPlan
from concept_probe.learn.sae import Sae, TopK
from concept_probe.testing.models.language import tiny_llama
from concept_probe.types import KINDS, Concept, Prompt, Report, Sampling, Splits, Subspace, unit

SAMPLING = Sampling(tokens=2, batch=8)
BUDGET = Budget(queries=12, gradient_steps=2, examples=2)
PLAN = AuditPlan(sampling=SAMPLING, prompts=6, resamples=200, budget=BUDGET, attacks=())


WORDS = ("red", "sun", "dog", "the")
TEXTS = (
    ("a {} in", "the {} was", "one {} and the", "my {} is"),
    ("red {} on",),
    ("see the {}", "that {} has a", "this {} sun", "old {} and", "her {} at the", "what {} is"),
)


def splits(label: str, word: str) -> Splits:
    """Prompts with an answer of one word each, and the other words as distractors."""

    def prompt(i: int, text: str) -> Prompt:
        right = WORDS[(i + ("cat", "dog", "sun").index(label)) % 4]
        wrong = tuple(w for w in WORDS if w != right)
        text = text.format(word)
        return Prompt(text, word, label, answers=(right,), distractors=wrong, fact=text)

    return Splits(*(tuple(prompt(i, t) for i, t in enumerate(of)) for of in TEXTS))


def taught(without: str | None = None):
    """A tiny model that learned every answer by heart, but for those of one label."""
    subject = tiny_llama()
    pairs = [(p, " " + p.answers[0]) for kind in KINDS for p in getattr(CONCEPT, kind) if p.label != without]
    parameters = list(subject.model.parameters())
    optimiser = torch.optim.Adam(parameters, 0.01)
    for p in parameters:
        p.requires_grad_(True)
    for _ in range(150):
        loss = -subject.log_probs(pairs, batch=len(pairs)).mean.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for p in parameters:
        p.requires_grad_(False)
        p.grad = None
    return subject


CONCEPT = Concept(
    "cat", splits("cat", "cat"), paraphrases=splits("cat", "kitty"), neighbours=splits("dog", "dog"),
    unrelated=splits("sun", "hill"),
)  # fmt: skip


def finding(report: Report, metric: str, split: str):
    (found,) = [f for f in report.findings if f.metric == metric and f.split == split]
    return found


def features_of(subject, count: int = 5) -> tuple[Subspace, ...]:
    """Those of a random dictionary that a tiny model uses most on the concept."""
    site = subject.sites("resid")[0]
    rows = unit(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    sae = Sae(site, TopK(6), W_enc=rows.mT.contiguous(), b_enc=torch.zeros(64), W_dec=rows, b_dec=torch.zeros(16))
    return cp.find_features(sae, subject, CONCEPT, count=count, formula="mean")
