"""How laws run over a registry: every method that another package brings on every tiny model, or this package's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, TypeVar

from concept_probe.families import Subject
from concept_probe.registry import Registry
from concept_probe.testing.models import TINY_MODELS

Test = TypeVar("Test", bound=Callable[..., Any])


@functools.cache
def shared_subject(model: str) -> Subject:
    """A tiny model by name, the same one each time: laws leave it as it was."""
    return TINY_MODELS[model]()


def refused(setting: Any, subject: Subject) -> bool:
    """Whether a setting says of itself that it can't work on a subject, or stands for another one there."""
    if isinstance(setting, type):
        return False
    refuses, settled = getattr(setting, "refuses", None), getattr(setting, "settled", None)
    stands_for_another = settled is not None and subject.answers == "pictures" and settled(subject) != setting
    return stands_for_another or (refuses is not None and refuses(subject) is not None)


def about(applies: Callable[[Any], bool]) -> Callable[[Test], Test]:
    """Of a law: it holds for those things of the registry only for which `applies`."""

    def mark(test: Test) -> Test:
        test.applies = applies  # pyright: ignore[reportFunctionMemberAccess]
        return test

    return mark


def once(test: Test) -> Test:
    """Of a law: one model shows it."""
    test.once = True  # pyright: ignore[reportFunctionMemberAccess]
    return test


class Laws:
    """Laws of what one registry names.

    pytest collects a subclass with `__test__ = True`, whatever its name. A law is a method `test_…` that takes `model` and
    `name`, or fixtures that do: it runs for every pair of `cases`.
    """

    __test__ = False
    registry: ClassVar[Registry[Any]]
    answers: ClassVar[Literal["pictures", "texts"]]
    """What the models answer with."""
    own: ClassVar[bool] = False
    """Over what this package has itself; else over what other packages add: their methods on every model, and every
    method on their models."""

    @classmethod
    def settings(cls, name: str) -> Mapping[str, Any]:
        """The settings in which a thing of the registry is tried, by how they are called: one, of its own name."""
        return {name: cls.registry[name]}

    @classmethod
    def cases(cls) -> Iterator[tuple[str, str, Any]]:
        """(model, name of the setting, setting), model by model."""
        for model in TINY_MODELS:
            if shared_subject(model).answers != cls.answers:
                continue
            for name in cls.registry:
                ours = model in TINY_MODELS.own and name in cls.registry.own
                if ours == cls.own and cls.registry[name].on in ("both", cls.answers):
                    settings = cls.settings(name).items()
                    yield from ((model, called, s) for called, s in settings if not refused(s, shared_subject(model)))

    @classmethod
    def setting(cls, model: str, name: str) -> Any:
        """That of a case."""
        return next(setting for m, called, setting in cls.cases() if (m, called) == (model, name))

    @classmethod
    def cases_of(cls, law: Callable[..., Any]) -> list[tuple[str, str]]:
        """Those of one law."""
        applies = getattr(law, "applies", None)
        every = [(m, n) for m, n, setting in cls.cases() if applies is None or applies(setting)]
        return [(m, n) for n, m in {n: m for m, n in reversed(every)}.items()] if hasattr(law, "once") else every

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if "name" in metafunc.fixturenames:
            cases = self.cases_of(metafunc.function)
            ids = [f"{model}-{name}" for model, name in cases]
            metafunc.parametrize(("model", "name"), cases, ids=ids, scope="class")
