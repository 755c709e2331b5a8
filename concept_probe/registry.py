"""Look a name up: in a table of this package, and among what installed packages add to it."""

from __future__ import annotations

import difflib
import importlib
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import UnionType
from typing import Any, Generic, TypeVar


def nearest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The names of `known` that are spelled most like `name`."""
    return difflib.get_close_matches(name, list(known), n=limit, cutoff=0.3)


Named = TypeVar("Named")


class UnknownName(LookupError):
    """A name that no table has; the message holds the nearest ones and where the list is."""

    def __init__(self, what: str, name: str, known: Iterable[str], where: str = "") -> None:
        known = list(known)
        near = nearest(name, known)
        hint = f"; nearest: {', '.join(map(repr, near))}" if near else ""
        names = f"; known: {', '.join(known)}" if known and len(known) <= 12 else ""
        super().__init__(f"{what} {name!r} not found{hint}{names}" + (f" ({where})" if where else ""))


def look_up(table: Mapping[str, Named], name: str, what: str, where: str = "") -> Named:
    """`table[name]`, or an error that helps.

    >>> look_up({"uce": 1}, "uci", "eraser")
    Traceback (most recent call last):
    concept_probe.registry.UnknownName: eraser 'uci' not found; nearest: 'uce'; known: uce
    """
    if name not in table:
        raise UnknownName(what, name, table, where) from None
    return table[name]


def imported_object(name: str, what: str) -> Any:
    """The object that `module:object` names; modules of the working directory are found too.

    >>> imported_object("collections:OrderedDict", "class")
    <class 'collections.OrderedDict'>

    Raises ImportError where the module can't be imported, UnknownName where it has no such object.
    """
    module_name, _, path = name.partition(":")
    if not path or not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise UnknownName(what, name, [], "an object of a module is named as module:object")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as problem:  # whatever a stranger's module does when it is imported
        raise ImportError(
            f"{what} {name!r}: module {module_name!r} can't be imported: {type(problem).__name__}: {problem}"
        ) from problem
    finally:
        if added:
            sys.path.remove(here)
    for part in path.split("."):
        if not hasattr(found, part):
            raise UnknownName(what, name, [n for n in vars(found) if not n.startswith("_")], f"in {module_name}")
        found = getattr(found, part)
    return found


def called(found: Any, name: str, what: str) -> Any:
    """What a function or class that `name` names makes without arguments. ValueError, in one sentence, where it fails."""
    try:
        return found()
    except Exception as problem:  # whatever a stranger's function does
        raise ValueError(
            f"{what} {name!r}: calling it without arguments gave {type(problem).__name__}: {problem}; name an object, or what "
            "makes one"
        ) from problem


class Registry(Mapping[str, Named], Generic[Named]):
    """Names to things: those of this package, in their order, then those of installed packages, by name.

    A package adds one by an entry point, whose group is `concept_probe.` and the registry's name:

        [project.entry-points."concept_probe.erasers"]
        my_method = "my_package.my_method:MyMethod"

    It is imported when it is first asked for.
    """

    def __init__(self, name: str, own: Mapping[str, Named]) -> None:
        self.name = name
        """Plural, as `erasers`; the group of entry points is `concept_probe.erasers`."""
        self.own = dict(own)
        self._loaded: dict[str, Named] = {}

    @cached_property
    def added(self) -> Mapping[str, EntryPoint]:
        """Entry points of other packages, by name.

        Raises ValueError where two packages give the same name, or one gives a name that this package has.
        """
        out: dict[str, EntryPoint] = {}
        for point in sorted(entry_points(group=f"concept_probe.{self.name}"), key=lambda p: p.name):
            if point.name in self.own or (point.name in out and out[point.name].value != point.value):
                other = "concept_probe" if point.name in self.own else origin(out[point.name])
                raise ValueError(
                    f"{point.name!r} of {self.name} comes from {other} and from {origin(point)}; uninstall one, or have "
                    "it use another name"
                )
            out[point.name] = point
        return out

    def __getitem__(self, name: str) -> Named:
        if name in self.own:
            return self.own[name]
        if name not in self._loaded:
            point = self.added[name]
            try:
                self._loaded[name] = point.load()
            except Exception as problem:  # whatever a stranger's module does when it is imported
                raise ImportError(
                    f"{name!r} of {self.name} is promised by {origin(point)} at {point.value}, which can't be imported: "
                    f"{type(problem).__name__}: {problem}"
                ) from problem
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self.added

    def __len__(self) -> int:
        return len(self.own) + len(self.added)

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self.added

    def package(self, name: str) -> str:
        """Which package `name` comes from, with its version where it is not this one."""
        return "concept_probe" if name in self.own else origin(self.added[name])


def origin(point: EntryPoint) -> str:
    """The package that declares an entry point, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value.partition(":")[0]


def check_choice(value: Any, hint: Any, what: str) -> None:
    """Raise ValueError for a value that is none of those which a Literal type allows; other types allow any.

    >>> check_choice("rank", Literal["mean", "share"], "formula")
    Traceback (most recent call last):
    ValueError: formula is 'rank'; it is one of mean, share
    """
    allowed = _choices(hint)
    if allowed is not None and value not in allowed:
        raise ValueError(f"{what} is {value!r}; it is one of {', '.join(map(str, allowed))}")


def _choices(hint: Any) -> tuple[Any, ...] | None:
    """The values that a type allows; None where it doesn't list them."""
    out: tuple[Any, ...] = ()
    for part in typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,):
        if part is not type(None) and typing.get_origin(part) is not typing.Literal:
            return None
        out += (None,) if part is type(None) else typing.get_args(part)
    return out
