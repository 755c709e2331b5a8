"""The settings of those who published a method, in the options that it has here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Literal

Known = Literal["paper", "code", "memory", "nowhere"]
"""Where settings were read: in the `paper`, in its authors' `code`, or in neither, from `memory`; `nowhere`: they are not
known here."""


@dataclass(frozen=True)
class Published:
    """What a method's authors ran, as far as its options give that.

    >>> authors = Published({"lam": 0.5}, read_in="code", apart="kept prompts are a fixed list of names")
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    """Options whose published value is not the default here; none: the defaults are the published settings."""
    read_in: Known = "code"
    apart: str = ""
    """What of theirs no option gives; empty: nothing that is known."""

    def words(self) -> str:
        """The options as they are written, in one line."""
        if self.read_in == "nowhere":
            return "not known"
        return ", ".join(f"{name}={as_code(value)}" for name, value in self.options.items()) or "the defaults"


def as_code(value: Any) -> str:
    """A value as it is written in code: of a dataclass, the fields that are not at their defaults."""
    if not is_dataclass(value) or isinstance(value, type):
        return repr(value)
    chosen = []
    for f in fields(value):
        default = f.default if f.default_factory is MISSING else f.default_factory()
        if getattr(value, f.name) != default:
            chosen.append(f"{f.name}={as_code(getattr(value, f.name))}")
    return f"{type(value).__name__}({', '.join(chosen)})"
