"""What tests of a method need: tiny random models of every family, a small concept, and the laws.

A package that adds an eraser, an attack, a recogniser or a family by an entry point (see `Registry`) tests it with one
line in a test file of its own, which pytest collects:

>>> from concept_probe.testing import laws

What a method is, it declares itself (see `Eraser`, `Attack`), and the laws read that: which models it is tried on, what
is found for it, and by what it is seen to aim at its concept. `checks` has them by registry, for picking some.

`assert_erased` is for tests of models: it fails, with the reasons, where an audit's verdict is another.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concept_probe.testing.assertions import assert_erased
    from concept_probe.testing.gathered import laws

__all__ = ["assert_erased", "laws"]
if find_spec("pytest") is not None:  # tiny models and small concepts need none
    import pytest

    pytest.register_assert_rewrite(f"{__name__}.checks")


def __getattr__(name: str) -> object:
    if name == "assert_erased":
        from concept_probe.testing import assertions

        return assertions.assert_erased
    if name != "laws":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if find_spec("pytest") is None:
        raise ImportError(
            "concept_probe.testing.laws are collected and run by pytest, and it is not installed: pip install "
            "'concept-probe[test]'"
        )
    from concept_probe.testing import gathered

    return gathered.laws
