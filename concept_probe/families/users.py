"""Who uses a subject: one thread at a time, for its weights, taps and passes are one state."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_THREAD = threading.local()


class _User:
    """A thread, and those that work for it."""

    def __init__(self) -> None:
        self.name = threading.current_thread().name


def _user() -> _User:
    """The user that this thread is, or works for."""
    if not hasattr(_THREAD, "user"):
        _THREAD.user = _User()
    return _THREAD.user


def for_this_thread(work: Callable[P, R]) -> Callable[P, R]:
    """`work`, to be run in another thread that may use what this one uses.

    Only where the two do not use it at once: a producer that runs a subject while this thread works with what it made.
    """
    user = _user()

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        _THREAD.user = user
        return work(*args, **kwargs)

    return run


class Users:
    """Lets one thread in at a time, as often as it likes. A copy begins with nobody inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: list[_User] = []

    def __deepcopy__(self, memo: object) -> Users:
        return Users()

    def __reduce__(self) -> tuple[type[Users], tuple[()]]:
        return Users, ()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only thread inside. Raises RuntimeError at once where another one is: waiting could last for ever."""
        me = _user()
        with self._lock:
            if self._inside and self._inside[-1] is not me:
                raise RuntimeError(
                    f"thread {me.name!r} asked for a subject that thread {self._inside[-1].name!r} is using; weights, taps "
                    "and passes belong to one thread at a time: give each thread a subject of its own (load the model "
                    "again), or let them take turns with a lock"
                )
            self._inside.append(me)
        try:
            yield
        finally:
            with self._lock:
                self._inside.pop()


def alone(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A method of a subject that runs it: nobody else uses it meanwhile, and its parts are those that came in."""

    @functools.wraps(method)
    def run(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.state.alone():
            if self.state.moment is None:  # not from inside a pass
                self.check()
            return method(self, *args, **kwargs)

    return run
