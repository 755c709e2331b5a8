"""How each unlearner of language models is made for a tiny one, and aimed elsewhere."""

from __future__ import annotations

from concept_probe.erase import Dpo, Edit, GradAscent, GradDiff, Memit, Npo, Rmu, SimNpo
from concept_probe.erase.unlearn import Unlearner
from concept_probe.families import CausalLMSubject
from concept_probe.types import Concept, Prompt, Splits

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
