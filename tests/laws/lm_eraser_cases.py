"""How each unlearner of language models is made for a tiny one, and aimed elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import torch

from concept_probe.erase import AblateFeatures, Dpo, Edit, GradAscent, GradDiff, Intervention, Memit, Npo, Rmu, SimNpo
from concept_probe.erase.unlearn import Unlearner
from concept_probe.families import CausalLMSubject
from concept_probe.find import find_features
from concept_probe.learn.sae import Sae, TopK
from concept_probe.types import Concept, Prompt, Score, Splits, Subspace, unit

METHODS: dict[str, type[Unlearner] | type[Memit]] = {
    "grad_ascent": GradAscent,
    "grad_diff": GradDiff,
    "npo": Npo,
    "simnpo": SimNpo,
    "dpo": Dpo,
    "rmu": Rmu,
    "memit": Memit,
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


def options(method: str, family: str) -> dict[str, int | float | None]:
    """Few steps, large enough to move a tiny random model; whole matrices in one family, adapters in the others."""
    if method == "memit":
        return {"steps": 12}
    out: dict[str, int | float | None] = {"steps": 12, "batch": 4, "rate": 0.05}
    if method == "simnpo":
        out["beta"] = 0.1  # at the method's own, what a random model finds as unlikely as this counts as forgotten
    return out | ({"rank": None} if family == "neox" else {})


def made(method: str, family: str, subject: CausalLMSubject, of: Concept, **more: float) -> Edit:
    return METHODS[method](**{**options(method, family), **more})(subject, of)  # pyright: ignore[reportArgumentType]


def random_sae(subject: CausalLMSubject, role: str = "resid") -> Sae:
    """Random unit directions over the first site of a role, six of which fire per row."""
    site = subject.sites(role)[0]
    d = subject.matrix(subject.sites("mlp_value")[0]).shape[0]
    rows = unit(torch.randn(4 * d, d, generator=torch.Generator().manual_seed(0)), dim=1)
    zero = torch.zeros(d)
    return Sae(site, TopK(6), W_enc=rows.mT.contiguous(), b_enc=torch.zeros(4 * d), W_dec=rows, b_dec=zero)


def random_space(subject: CausalLMSubject, seed: int, count: int = 6, role: str = "resid") -> Subspace:
    """Features drawn at random."""
    sae, score = random_sae(subject, role), Score("made by the test", 1, 1, 1, 1)
    chosen = torch.randperm(sae.width, generator=torch.Generator().manual_seed(seed))[:count]
    features = tuple(chosen.tolist())
    return Subspace(sae.site, sae.decoder[chosen].mT, "activation", score, features=features, codec=sae)


def asking(words: tuple[str, ...]) -> Splits:
    """As `asked`, for both splits that features are chosen on."""
    return Splits(*(tuple(Prompt(t.format(w), w, w) for w in words for t in of) for of in TEXTS))


TEXTS = (("see the {} in", "a {} and the", "her {} is"), ("old {} in", "my {} and the", "that {} is"))


def aimed_features(subject: CausalLMSubject) -> Intervention:
    named = Concept("cat", asking(("cat",)), neighbours=asking(("dog", "hill")))
    return AblateFeatures()(subject, named, find_features(random_sae(subject), subject, named, count=6, formula="mean"))


GUARDS: dict[str, tuple[Callable[[CausalLMSubject], Intervention], Callable[[CausalLMSubject, int], Intervention]]] = {
    "ablate_features": (aimed_features, lambda s, seed: AblateFeatures()(s, concept(), [random_space(s, seed)])),
}
"""What acts while a language model runs: aimed at the concept, and as much of it aimed elsewhere (the seed says where)."""
