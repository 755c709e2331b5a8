"""Which laws are quick: methods meet one model of each kind, and of those that train or search one stands for the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from concept_probe.attacks import ATTACKS
from concept_probe.erasers import ERASERS

QUICK = ("sd", "gpt2", "any")
"""The model of pictures, that of texts whose matrices are transposed, and none."""
TRAINING = "test_training_leads_the_target_to_its_goal_and_random_words_do_not"
"""It trains four times."""
EXAMPLES = ("esd", "p4d", "prefix_search")
"""Of the erasers that train a denoiser, and of the attacks that search for words: the laws of the others come with the
slow tests."""


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
    if model is None or getattr(getattr(item, "cls", None), "__name__", "") == "TestRoles":
        return False
    if getattr(law, "__name__", "") == TRAINING or (takes_long(name) and name not in EXAMPLES):
        return True
    return model not in QUICK and not hasattr(law, "once")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and is_slow(item):
            item.add_marker(pytest.mark.slow)
