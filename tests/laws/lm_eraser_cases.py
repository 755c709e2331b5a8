"""How each unlearner of language models is made for a tiny one, and aimed elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from concept_probe.erasers import (
    Crisp,
    Dpo,
    Edit,
    GradAscent,
    GradDiff,
    Memit,
    Needle,
    Npo,
    Pisces,
    Rmu,
    Rocr,
    SimNpo,
)
from concept_probe.families import CausalLMSubject
from concept_probe.find import concept_rows, find_features
from concept_probe.find.vectors.columns import matrix_site
from concept_probe.learn.sae import Sae, TopK
from concept_probe.testing.models.language import LM_HIDDEN, LM_WIDTH
from concept_probe.types import Concept, Prompt, Site, Splits, Subspace
from tests.laws.eraser_aims import score

METHODS: dict[str, Any] = {
    "grad_ascent": GradAscent,
    "grad_diff": GradDiff,
    "npo": Npo,
    "simnpo": SimNpo,
    "dpo": Dpo,
    "rmu": Rmu,
    "memit": Memit,
    "needle": Needle,
    "rocr": Rocr,
    "pisces": Pisces,
    "crisp": Crisp,
}


def asked(word: str, answer: str, label: str) -> tuple[Prompt, ...]:
    """Two wordings with an answer of several tokens and a wrong one."""
    texts = (f"see the {word} in", f"a {word} and the")
    return tuple(Prompt(t, word, label, answers=(answer,), distractors=("the dog",)) for t in texts)


def concept(word: str = "cat", answer: str = "red sun") -> Concept:
    """A concept with answers; neighbours and unrelated prompts share neither word nor answer with it."""
    rest = Splits(fit=(*asked("dog", "big house", "dog"), *asked("tree", "old road", "tree")))
    test = Splits(test=asked("pen", "my hat", "pen"))
    return Concept(word, Splits(fit=asked(word, answer, word), test=test.test), neighbours=rest)


def lm_sae(subject: CausalLMSubject, role: str = "resid", block: int = 0, width: int = LM_WIDTH) -> Sae:
    """TopK autoencoder with random unit directions over one block."""
    generator = torch.Generator().manual_seed(block)
    rows = torch.nn.functional.normalize(torch.randn(4 * width, width, generator=generator), dim=1)
    enc, off = rows.mT.contiguous(), torch.zeros(width)
    return Sae(subject.sites(role)[block], TopK(6), W_enc=enc, b_enc=torch.zeros(4 * width), W_dec=rows, b_dec=off)


def column(subject: CausalLMSubject, site: Site) -> Subspace:
    values = subject.matrix(matrix_site(site)).detach()[:, site.item, None].clone()
    return Subspace(site, values, "parameter", score(), "cat", "mlp_value")


def columns(subject: CausalLMSubject, of: Concept) -> tuple[Subspace, ...]:
    """Of each layer, the columns that write more on the concept's prompts than on others."""
    out = []
    for value, hidden in zip(subject.sites("mlp_value"), subject.sites("mlp_hidden"), strict=True):
        rows = concept_rows(subject, of, [hidden])[hidden]
        more = rows.x[rows.concept].abs().mean(0) - rows.x[~rows.concept].abs().mean(0)
        size = torch.linalg.vector_norm(subject.matrix(value).detach().float(), dim=0)
        out += [column(subject, replace(value, item=int(j))) for j in (more * size).topk(4).indices]
    return tuple(out)


def random_columns(subject: CausalLMSubject, seed: int) -> tuple[Subspace, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        column(subject, replace(value, item=int(j)))
        for value in subject.sites("mlp_value")
        for j in torch.randperm(LM_HIDDEN, generator=generator)[:4]
    )


def features(subject: CausalLMSubject, of: Concept, *saes: Sae) -> tuple[Subspace, ...]:
    """Features of largest contrast; the fit prompts stand in for those to select on."""
    both = replace(
        of, target=replace(of.target, select=of.target.fit), neighbours=replace(of.neighbours, select=of.neighbours.fit)
    )
    return find_features(saes or [lm_sae(subject)], subject, both, count=4)


FOUND: dict[str, Callable[[CausalLMSubject, Concept], tuple[Subspace, ...]]] = {
    "needle": columns,
    "pisces": features,
    "crisp": features,
}
"""What is found for the methods that ask for it."""


def options(method: str, family: str) -> dict[str, Any]:
    """Few steps, large enough to move a tiny random model; whole matrices in one family, adapters in the others."""
    if method in ("rocr", "pisces"):
        return {}
    if method == "memit":
        return {"steps": 12}
    out: dict[str, Any] = {"steps": 12, "batch": 4, "rate": 0.05}
    if method == "crisp":
        return out | {"features": "found"}
    if method == "simnpo":
        out["beta"] = 0.1  # at the method's own, what a random model finds as unlikely as this counts as forgotten
    return out | ({"rank": None} if family == "neox" and method != "needle" else {})


def made(method: str, family: str, subject: CausalLMSubject, of: Concept, **more: float) -> Edit:
    found = FOUND[method](subject, of) if method in FOUND else ()
    return METHODS[method](**{**options(method, family), **more})(subject, of, found)


WORDS = (("tub", "low wall"), ("jug", "new door"), ("fox", "cold rain"))


def elsewhere(method: str, family: str, subject: CausalLMSubject, of: Concept, seed: int) -> Edit:
    """The same method aimed at other words with other answers; one that takes columns, at random ones."""
    if FOUND.get(method) is columns:
        return METHODS[method](**options(method, family))(subject, of, random_columns(subject, seed))
    return made(method, family, subject, concept(*WORDS[seed]))
