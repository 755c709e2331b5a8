"""Which laws run where: all of them on one model of each kind; those that a model's layout decides on one other model
each, so that every method and every law meets every layout somewhere; and which are quick: what every method must keep at
once, and a third of the rest; of methods that train or search, one stands for the others. `pytest -m exhaustive` runs what
is left: every law of every method on every model."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from concept_probe.attacks import ATTACKS
from concept_probe.erasers import ERASERS
from concept_probe.testing.law import shared_subject
from concept_probe.testing.models import TINY_MODELS

QUICK = ("sd", "gpt2", "any")
"""The model of pictures, that of texts whose matrices are transposed, and none."""
STANDING = ("sd3", "flux")
"""The diffusion transformers whose layouts stand for those of the others: one of joint blocks alone, one with single ones."""
TRAINING = "test_training_leads_the_target_to_its_goal_and_random_words_do_not"
"""It trains four times."""
AIM = "test_the_target_moves_more_than_under_a_random_aim"
"""It makes an erasure nine times."""
BESIDE = "test_it_runs_with_an_erasure_on_and_leaves_it_as_it_was"
BESIDES = ("paraphrases", "in_context")
"""The attacks that are run beside an erasure among the quick tests."""
AIMED = ("uce", "leace-bake", "ablate_features", "npo")
"""The methods whose aim is looked at among the quick tests."""
AT_ONCE = (
    "test_it_acts_and_then_every_byte_is_back",
    "test_every_byte_is_back_after_an_exception",
    "test_it_is_what_it_says",
    "test_a_guard_leaves_the_weights_alone",
    "test_weights_and_hooks_are_clean_after_a_failure",
)
"""Laws that every method and role keeps among the quick tests; of the others every third pair of law and name does."""
TURNS = 3
EXAMPLES = ("esd", "p4d", "prefix_search")
"""Of the erasers that train a denoiser, and of the attacks that search for words: the laws of the others come with the
slow tests."""
READING_ALONE = ("ring_a_bell",)
"""Attacks that ask text encoders alone, tens of thousands of times: what denoises behind them makes no difference."""
LAYOUT = (
    "test_it_acts_and_then_every_byte_is_back",
    "test_batch_size_and_order_change_nothing",
    "test_saved_and_baked_it_is_the_same",
    AIM,
    TRAINING,
    "test_pictures_fit_the_target_worse_than_after_training_on_random_words",
    "test_a_text_leads_away_from_the_prompts_that_say_it",
    "test_same_seed_same_result_and_every_byte_comes_back",
    BESIDE,
)
"""Laws of methods that a model's layout can break: where weights and taps are, how they are stored, how prompts are filled
up. What a method says of itself, its seed, its budget and its refusals are the same on every model of a kind."""


def takes_long(name: str) -> bool:
    """Whether what a registry calls `name` trains a denoiser, or searches."""
    for registry in (ERASERS, ATTACKS):
        if name in registry:
            kind: Any = registry[name]
            return hasattr(kind, "training") or ".search." in kind.__module__
    return False


def is_slow(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    model, name, law = parameters.get("model"), str(parameters.get("name")), getattr(item, "function", None)
    if model is None:
        return False
    named, roles = getattr(law, "__name__", ""), getattr(getattr(item, "cls", None), "__name__", "") == "TestRoles"
    if roles and shared_subject(model).family == "dit":  # with three times as many roles as others
        return True
    if model not in QUICK and not roles and not hasattr(law, "once"):
        return True
    if named == TRAINING or (takes_long(name) and name not in EXAMPLES):
        return True
    if named in (AIM, BESIDE):
        return name not in (AIMED if named == AIM else BESIDES)
    return named not in AT_ONCE and bool(zlib.crc32(f"{named} {name}".encode()) % TURNS)


def is_roles_turn_of_another(model: str, role: str, law: str) -> bool:
    """Whether a role of diffusion transformers, which have many, is looked at on another of them."""
    if shared_subject(model).family != "dit":
        return False
    kind = shared_subject(model).answers
    others = [m for m in TINY_MODELS if shared_subject(m).family == "dit" and shared_subject(m).answers == kind]
    turn = [m for m in others if role in shared_subject(m).roles()]
    return bool(turn) and _turn(turn, law, role) != model


def _turn(of: Sequence[str], law: str, name: str) -> str:
    """One of several models, the same for a law and a name each time."""
    return of[zlib.crc32(f"{law} {name}".encode()) % len(of)]


def models_of(law: str, name: str, models: Sequence[str]) -> list[str]:
    """Of the models that a law can look at a method on, those that it does: one of each kind, and for what a model's
    layout decides one other. Laws that take long look at one model."""
    standard = [m for m in models if m in QUICK]
    rest = [m for m in models if m not in QUICK and (m in STANDING or shared_subject(m).family != "dit")]
    if law not in LAYOUT or not rest or (name in READING_ALONE and standard):
        return standard or rest[:1]
    other = _turn(rest, law, name)
    if law in (AIM, TRAINING, BESIDE) and standard:
        quick = law != TRAINING and name in (AIMED if law == AIM else BESIDES) and not takes_long(name)
        return standard if quick else [_turn((*standard, other), law, f"{name} alone")]
    return [*standard, other]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    own = [item for item in items if item.path.parent == here]
    models: dict[tuple[str, str, str], list[str]] = {}
    for item in own:
        if (key := _of_a_method(item)) is not None:
            models.setdefault(key[:3], []).append(key[3])
    chosen = {key: models_of(key[1], key[2], of) for key, of in models.items()}
    for item in own:
        key = _of_a_method(item)
        exhaustive = _is_role_of_another(item) if key is None else key[3] not in chosen[key[:3]]
        if exhaustive or is_slow(item):
            item.add_marker(pytest.mark.slow)
        if exhaustive:
            item.add_marker(pytest.mark.exhaustive)


def _of_a_method(item: pytest.Item) -> tuple[str, str, str, str] | None:
    """Class, law, method and model of a law of erasers or attacks that looks at one model; None for any other test, and for
    laws that look at a method once."""
    kind, law = getattr(item, "cls", None), getattr(item, "function", None)
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    model = parameters.get("model")
    if (
        model is None
        or kind is None
        or getattr(kind, "registry", None) not in (ERASERS, ATTACKS)
        or hasattr(law, "once")
    ):
        return None
    return kind.__name__, getattr(law, "__name__", ""), str(parameters.get("name")), str(model)


def _is_role_of_another(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if parameters.get("model") is None or getattr(getattr(item, "cls", None), "__name__", "") != "TestRoles":
        return False
    law = getattr(getattr(item, "function", None), "__name__", "")
    return is_roles_turn_of_another(parameters["model"], str(parameters.get("name")), law)
