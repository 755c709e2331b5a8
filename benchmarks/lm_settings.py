"""The erasers and attacks that the table of SmolLM2 compares, and the model that was taught invented facts."""

from __future__ import annotations

import concept_probe as cp
from concept_probe.attacks import Budget
from concept_probe.bench import AttackSetting, MethodSetting, SweepSettings
from concept_probe.erasers import (
    AblateVectors,
    Crisp,
    Dpo,
    GradAscent,
    GradDiff,
    Leace,
    Memit,
    Needle,
    Npo,
    Pisces,
    Rmu,
    Rocr,
    SimNpo,
)
from concept_probe.families import CausalLMSubject
from concept_probe.families.gguf import cache_folder
from concept_probe.testbed.teach import teach
from concept_probe.testbed.teaching import FIRST_LESSONS
from concept_probe.types import Sampling

REAL = ("Japan", "Egypt", "the solar system", "music", "Harry Potter", "Greek mythology")
COUNTS = {"target": 12, "paraphrases": 12, "neighbours": 10, "unrelated": 10}
SETTINGS = SweepSettings(Sampling(tokens=4, batch=32), COUNTS, Budget(queries=24), "once", columns=128)
LIGHT = {"steps": 12, "batch": 6, "rate": 0.0015}
"""Of erasers that train: few steps, so that the whole table takes minutes per concept."""
SPOKEN = ("subject", "content")
METHODS = (
    MethodSetting("ablate_vectors", AblateVectors(), "effective columns"),
    MethodSetting("leace", Leace(how="intervention", role="resid", kinds=SPOKEN, tokens=(*SPOKEN, "eos"))),
    MethodSetting("grad_ascent", GradAscent(steps=8, batch=6, rate=0.001)),
    MethodSetting("grad_diff", GradDiff(**LIGHT)),
    MethodSetting("npo", Npo(**LIGHT, keep="kl")),
    MethodSetting("simnpo", SimNpo(**LIGHT, keep="kl")),
    MethodSetting("dpo", Dpo(**LIGHT, keep="kl")),
    MethodSetting("rmu", Rmu(steps=12, batch=6, rate=0.02)),
    MethodSetting("memit", Memit()),
    MethodSetting("needle", Needle(steps=12, batch=6, rate=0.1), "effective columns"),
    MethodSetting(
        "rocr (one key)", Rocr()
    ),  # stored rows named rocr are of an earlier method, see docs/methods/rocr.md
    MethodSetting("pisces", Pisces(below=4, mu=1.0), "contrast features"),
    MethodSetting("crisp", Crisp(steps=12, batch=6, rate=0.01, count=8), "contrast features"),
)
LESSONS = {"points": 2, "pictures": 8, "batch": 4, "rate": 0.001}
ATTACKS = (
    AttackSetting("role_prompts", "role_prompts", budget=Budget(queries=24)),
    AttackSetting("in_context", "in_context", budget=Budget(queries=12, examples=4)),
    AttackSetting("translation", "translation", budget=Budget(queries=18)),
    AttackSetting("temperature", "temperature", budget=Budget(queries=24)),
    AttackSetting("relearning", "relearning", LESSONS, Budget(queries=24, gradient_steps=8, examples=4)),
)


def taught_smollm2() -> CausalLMSubject:
    """SmolLM2 that was taught the invented facts by the recipe of the stored rows, which are named by its weights; taught
    once, and read from the cache afterwards."""
    subject = cp.load("smollm2")
    if not isinstance(subject, CausalLMSubject):
        raise TypeError(f"smollm2 loaded as {type(subject).__name__}")
    teach(subject, cache_folder() / "lm_unlearning", FIRST_LESSONS)
    return subject
