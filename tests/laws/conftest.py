"""Which laws are quick: methods meet one model of each kind; the other models come with the slow tests."""

from __future__ import annotations

from pathlib import Path

import pytest

QUICK = ("sd", "gpt2", "any")
"""The model of pictures, that of texts whose matrices are transposed, and none."""
TRAINING = "test_training_leads_the_target_to_its_goal_and_random_words_do_not"
"""It trains four times."""


def is_slow(item: pytest.Item) -> bool:
    model = getattr(getattr(item, "callspec", None), "params", {}).get("model")
    law = getattr(item, "function", None)
    if model is None or getattr(getattr(item, "cls", None), "__name__", "") == "TestRoles":
        return False
    return getattr(law, "__name__", "") == TRAINING or (model not in QUICK and not hasattr(law, "once"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and is_slow(item):
            item.add_marker(pytest.mark.slow)
