"""Shapes that signatures state are checked wherever a test calls what has them; the rest of a signature is pyright's.

`jaxtyping` binds axes over the arguments and the result of one call: `n` is one number in all of them. What stands in a
list, a tuple of any length or a dict is checked one by one, since texts and sites differ in their axes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from jaxtyping import AbstractArray, install_import_hook, jaxtyped

PACKAGE = Path(__file__).parents[1] / "concept_probe"


def check_shapes() -> None:
    """From now on, modules of the package that state shapes are imported with their shapes checked."""
    stating = [path for path in sorted(PACKAGE.rglob("*.py")) if "from jaxtyping" in path.read_text(encoding="utf-8")]
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in stating]
    install_import_hook(names, "tests.shapes.checked")


def checked(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` with a TypeError where an argument, or the result, has not the shape that its annotation states."""
    stated = {name: kind for name, kind in getattr(fn, "__annotations__", {}).items() if _states_shapes(kind)}
    if not stated:
        return fn
    signature = inspect.signature(fn)

    def check(name: str, value: Any) -> None:
        if name in stated and not fits(value, stated[name]):
            found = f"{value.dtype} {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
            raise TypeError(f"{name} is {found}; stated is {stated[name]}")

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            check(name, value)
        out = fn(*args, **kwargs)
        check("return", out)
        return out

    return wrapper


def fits(value: Any, kind: Any) -> bool:
    """Whether a value has the shapes that `kind` states; what states none fits."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is None:
        return not _states_shapes(kind) or isinstance(value, kind)
    if origin is tuple:
        if args[-1] is Ellipsis:
            return isinstance(value, tuple) and all(_alone(one, args[0]) for one in value)
        return isinstance(value, tuple) and len(value) == len(args) and all(map(fits, value, args))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_alone(one, args[1]) for one in value.values())
    if origin is list or getattr(origin, "__module__", "") == "collections.abc":
        return not isinstance(value, list | tuple) or all(_alone(one, args[0]) for one in value)
    if _states_shapes(kind):
        return any(_may_be(value, one) for one in args)  # a union
    return True


def _may_be(value: Any, kind: Any) -> bool:
    """Whether a member of a union fits: one that states no shape is told by its type where it is a plain one."""
    if _states_shapes(kind):
        return fits(value, kind)
    return not isinstance(kind, type) or isinstance(value, kind)


def _alone(value: Any, kind: Any) -> bool:
    with jaxtyped("context"):
        return fits(value, kind)


def _states_shapes(kind: Any) -> bool:
    return (isinstance(kind, type) and issubclass(kind, AbstractArray)) or any(map(_states_shapes, get_args(kind)))
