"""Which laws run where: all of them on one model of each kind; those that a model's layout decides on one other model
each, so that every method and every law meets every layout somewhere; and which are quick: of methods that train or
search, one stands for the rest. `pytest -m exhaustive` runs the others: every law of every method on every model."""

from __future__ import annotations

import zlib
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
BESIDES = ("paraphrases", "relearning", "embedding_inversion", "in_context")
"""The attacks that are run beside an erasure among the quick tests."""
AIMED = ("uce", "leace-bake", "ablate_features", "npo")
"""The methods whose aim is looked at among the quick tests."""
EXAMPLES = ("esd", "p4d", "prefix_search")
"""Of the erasers that train a denoiser, and of the attacks that search for words: the laws of the others come with the
slow tests."""
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
    if getattr(getattr(item, "cls", None), "__name__", "") == "TestRoles":
        return shared_subject(model).family == "dit"  # with three times as many roles as others
    if getattr(law, "__name__", "") == TRAINING or (takes_long(name) and name not in EXAMPLES):
        return True
    if getattr(law, "__name__", "") == AIM and name not in AIMED:
        return True
    if getattr(law, "__name__", "") == BESIDE and name not in BESIDES:
        return True
    return model not in QUICK and not hasattr(law, "once")


def others(model: str) -> list[str]:
    """The models of the same kind that are not quick."""
    kind = shared_subject(model).answers
    return [name for name in TINY_MODELS if name not in QUICK and shared_subject(name).answers == kind]


def is_roles_turn_of_another(model: str, role: str, law: str) -> bool:
    """Whether a role of diffusion transformers, which have many, is looked at on another of them."""
    if shared_subject(model).family != "dit":
        return False
    turn = [m for m in others(model) if shared_subject(m).family == "dit" and role in shared_subject(m).roles()]
    return bool(turn) and turn[zlib.crc32(f"{law} {role}".encode()) % len(turn)] != model


def is_exhaustive(item: pytest.Item) -> bool:
    """Whether a law of methods meets a model which neither stands for its kind nor is the law's and method's turn."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    model, law = parameters.get("model"), getattr(item, "function", None)
    if model is not None and getattr(getattr(item, "cls", None), "__name__", "") == "TestRoles":
        return is_roles_turn_of_another(model, str(parameters.get("name")), getattr(law, "__name__", ""))
    of_methods = getattr(getattr(item, "cls", None), "registry", None) in (ERASERS, ATTACKS)
    if of_methods and model not in (None, *QUICK) and shared_subject(model).family == "dit" and model not in STANDING:
        return True
    if model in (None, *QUICK) or not of_methods or hasattr(law, "once"):
        return False
    name = getattr(law, "__name__", "")
    turn = [one for one in others(model) if one in STANDING or shared_subject(one).family != "dit"]
    return name not in LAYOUT or turn[zlib.crc32(f"{name} {parameters.get('name')}".encode()) % len(turn)] != model


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent != here:
            continue
        exhaustive = is_exhaustive(item)
        if exhaustive or is_slow(item):
            item.add_marker(pytest.mark.slow)
        if exhaustive:
            item.add_marker(pytest.mark.exhaustive)
