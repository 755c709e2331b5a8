"""The laws of what installed packages add, as one class that a test file imports."""

from __future__ import annotations

from typing import Any

from concept_probe.testing.checks import EVERY
from concept_probe.testing.law import Laws


def laws_that_apply(checks: type[Laws]) -> dict[str, type[Laws]]:
    """The class, without laws that hold for nothing of what was added; nothing where that is all of them."""
    laws = [name for name in dir(checks) if name.startswith("test_")]
    idle = [name for name in laws if not checks.cases_of(getattr(checks, name))]
    if len(idle) == len(laws):
        return {}
    return {checks.__name__: type(checks.__name__, (checks,), {"__test__": True, **dict.fromkeys(idle)})}


class _Gathered:
    """Laws of the erasers, attacks, recognisers and families that installed packages add."""

    __test__ = True

    def test_something_was_added(self) -> None:
        added = {checks.registry.name: list(checks.registry.added) for checks in EVERY}
        assert any(added.values()), (
            "no installed package adds an eraser, an attack, a recogniser or a tiny model; is yours installed "
            "(`pip install -e .`), with its entry points?"
        )


_applying: dict[str, Any] = {}
for _checks in EVERY:
    _applying |= laws_that_apply(_checks)
laws = type("laws", (_Gathered,), _applying)
"""Of each registry the laws that apply; pytest collects the class by its `__test__`."""
