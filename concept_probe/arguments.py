"""What an argument may be, as its annotation says it; a frozen dataclass checks its fields where it is made."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Bounds:
    """From where to where a number goes, both included; in an `Annotated[int, Bounds(...)]`, or of float."""

    least: float = -math.inf
    most: float = math.inf
    infinite: bool = False
    """Whether infinity is a value too; NaN never is."""

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most and (self.infinite or math.isfinite(number))


Count = Annotated[int, Bounds(1)]
"""At least one."""
Natural = Annotated[int, Bounds(0)]
"""Zero or more."""
SeedNumber = Annotated[int, Bounds(0, 2**63 - 1)]
"""What a generator of torch can be started from."""
Nonnegative = Annotated[float, Bounds(0)]
"""A finite number, zero or more."""
Share = Annotated[float, Bounds(0, 1)]
"""Between none and all."""
Seconds = Annotated[float, Bounds(0, infinite=True)]
"""A time, which may be without end."""
WRONG_TYPE, WRONG_VALUE = object(), object()
"""What a reading gives for what is of another type, or no allowed value of the right one."""


@dataclass(frozen=True)
class Allowed:
    """What a type with its bounds allows."""

    wanted: str
    """In words, as the end of "it is ..."."""
    read: Callable[[Any], Any]
    """A value to itself, a number of numpy to Python's, anything else to WRONG_TYPE or WRONG_VALUE."""


def checked_argument(value: Any, hint: Any, what: str) -> Any:
    """`value`, if the type `hint` allows it; a number of numpy comes back as Python's. Types unknown here allow any.

    >>> checked_argument(0, Count, "steps")
    Traceback (most recent call last):
    ValueError: steps is 0; it is a whole number from 1 on

    Raises TypeError for a value of another type, ValueError for one that the type does not allow.
    """
    allowed = _allowed(hint)
    return value if allowed is None else _taken(value, allowed, what)


def check_arguments(made: Any, name: str) -> None:
    """For `__post_init__` of a dataclass, called `name` in messages: every field is what its annotation says.

    Raises as `checked_argument` does, with the first field that is not. Fields that hold numbers of numpy get Python's.
    """
    for field, allowed in _fields(type(made)):
        value = getattr(made, field)
        if allowed.read(value) is not value:
            object.__setattr__(made, field, _taken(value, allowed, f"{name}: {field}"))


@cache
def _fields(of: type) -> tuple[tuple[str, Allowed], ...]:
    hints = typing.get_type_hints(of, include_extras=True)
    known = ((f.name, _allowed(hints[f.name])) for f in dataclasses.fields(of))
    return tuple((name, allowed) for name, allowed in known if allowed is not None)


def _taken(value: Any, allowed: Allowed, what: str) -> Any:
    taken = allowed.read(value)
    if taken is not WRONG_TYPE and taken is not WRONG_VALUE:
        return taken
    text = repr(value)
    problem = f"{what} is {text if len(text) <= 80 else text[:77] + '...'}; it is {allowed.wanted}"
    raise TypeError(problem) if taken is WRONG_TYPE else ValueError(problem)


def _allowed(hint: Any) -> Allowed | None:
    """What a type allows; None where that is not known here."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        bounds = next((part for part in parts[1:] if isinstance(part, Bounds)), None)
        return _allowed(parts[0]) if bounds is None else _number(parts[0], bounds)
    if origin in (typing.Union, UnionType):
        return _either(parts)
    if origin is Literal:
        return Allowed(f"one of {', '.join(map(str, parts))}", lambda x: x if _among(x, parts) else WRONG_VALUE)
    if origin in (tuple, list, Sequence, Collection) and (len(parts) == 1 or parts[1:] == (...,)):
        return _several(parts[0])
    if hint in (int, float):
        return _number(hint, Bounds())
    if hint in (str, bool, NoneType):
        wanted = {str: "a text", bool: "True or False", NoneType: "None"}[hint]
        return Allowed(wanted, lambda x: x if isinstance(x, hint) else _bool(x) if hint is bool else WRONG_TYPE)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        article = "an" if hint.__name__[0] in "AEIOU" else "a"
        return Allowed(f"{article} {hint.__name__}", lambda x: x if isinstance(x, hint) else WRONG_TYPE)
    return None


def _bool(x: Any) -> Any:
    return bool(x) if type(x).__name__ == "bool" else WRONG_TYPE  # numpy's own, which this does without importing


def _among(x: Any, values: tuple[Any, ...]) -> bool:
    return any(type(x) is type(value) and x == value for value in values)


def _number(of: type, bounds: Bounds) -> Allowed:
    kind = (
        "a whole number"
        if of is int
        else "a number"
        if bounds.infinite or bounds.least > -math.inf
        else "a finite number"
    )
    if bounds.least > -math.inf:
        kind += f" from {bounds.least:g} " + ("on" if bounds.most >= 2**62 else f"to {bounds.most:g}")

    def read(x: Any) -> Any:
        if isinstance(x, bool) or not isinstance(x, Real):
            return WRONG_TYPE
        if of is int and not isinstance(x, Integral):
            return WRONG_VALUE
        plain = x if isinstance(x, int | float) else int(x) if isinstance(x, Integral) else float(x)
        return plain if plain in bounds else WRONG_VALUE

    return Allowed(kind, read)


def _either(parts: tuple[Any, ...]) -> Allowed | None:
    known = [allowed for part in parts if (allowed := _allowed(part)) is not None]
    if len(known) < len(parts):
        return None

    def read(x: Any) -> Any:
        found = WRONG_TYPE
        for allowed in known:
            taken = allowed.read(x)
            if taken is not WRONG_TYPE and taken is not WRONG_VALUE:
                return taken
            found = taken if taken is WRONG_VALUE else found
        return found

    return Allowed(" or ".join(allowed.wanted for allowed in known), read)


def _several(part: Any) -> Allowed:
    one = _allowed(part)

    def read(x: Any) -> Any:
        if isinstance(x, str | bytes | Mapping) or not isinstance(x, Collection):
            return WRONG_TYPE
        taken = [item if one is None else one.read(item) for item in x]
        for wrong in (WRONG_TYPE, WRONG_VALUE):
            if any(item is wrong for item in taken):
                return wrong
        return x if all(new is old for new, old in zip(taken, x, strict=True)) else tuple(taken)

    return Allowed("a tuple" if one is None else f"a tuple, each of it {one.wanted}", read)
