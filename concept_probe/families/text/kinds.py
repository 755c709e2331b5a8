"""Kinds of token by name, and those that the words of a prompt can reach."""

from __future__ import annotations

from collections.abc import Collection

from concept_probe.registry import look_up
from concept_probe.types import TOKEN_KINDS

NAMED_KINDS = ("content", "subject", "eos", "pad")
"""Every token that can depend on the words of a prompt: all but `bos`."""


def kind_numbers(kinds: Collection[str]) -> tuple[int, ...]:
    """Indices into TOKEN_KINDS. Raises UnknownName."""
    table = {name: i for i, name in enumerate(TOKEN_KINDS)}
    return tuple(look_up(table, kind, "token kind") for kind in kinds)
