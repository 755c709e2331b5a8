"""Which laws are quick: registries meet one family of each kind; the other families come with the slow tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from concept_probe.testing.models import TINY_MODELS

QUICK = ("sd", "gpt2")
"""The family of pictures, and that of texts whose matrices are transposed."""
REGISTRIES = (
    "test_erasers",
    "test_eraser_aims",
    "test_lm_erasers",
    "test_lm_guards",
    "test_attacks",
    "test_lm_attacks",
)
"""Laws over every method times every family: they grow with both."""


def family_of(item: pytest.Item) -> str | None:
    """The family that a law is parametrised by, None where it is by none."""
    values = getattr(getattr(item, "callspec", None), "params", {}).values()
    return next((value for value in values if isinstance(value, str) and value in TINY_MODELS), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and item.path.stem in REGISTRIES and family_of(item) not in (None, *QUICK):
            item.add_marker(pytest.mark.slow)
