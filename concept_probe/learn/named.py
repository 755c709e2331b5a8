"""One way to name autoencoders: of a registry, as module:object, or as a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_probe.learn.interop import load_sae
from concept_probe.learn.shipped import shipped_saes
from concept_probe.registry import Registry, UnknownName, called, imported_object
from concept_probe.types import SparseCoder

if TYPE_CHECKING:
    from concept_probe.families import Subject

AUTOENCODERS: Registry[Callable[[], Sequence[SparseCoder]]] = Registry(
    "autoencoders", {name: (lambda name=name: shipped_saes(name)) for name in ("emoji", "emoji-flow", "smollm2")}
)
"""Names to what makes the autoencoders of a model: those that are shipped, and what installed packages add."""


def named_saes(names: Sequence[str | Path], subject: Subject) -> tuple[SparseCoder, ...]:
    """The autoencoders that `names` say, for sites of `subject`: names of AUTOENCODERS, folders, or `module:object`.

    >>> named_saes(["my-sae", "my_package.dictionaries:load"], subject)

    An object is an autoencoder, several, or a function without arguments that makes them. Raises UnknownName for a
    name that nothing has and for a site that the subject lacks, ValueError for what is no autoencoder.
    """
    out: list[SparseCoder] = []
    for name in map(str, names):
        for sae in _named(name, subject):
            subject.module(sae.site)  # raises UnknownName with the nearest sites
            out.append(sae)
    return tuple(out)


def _named(name: str, subject: Subject) -> Sequence[SparseCoder]:
    if Path(name).is_dir():
        return (load_sae(name, subject=subject),)
    if name in AUTOENCODERS:
        return tuple(AUTOENCODERS[name]())
    if ":" not in name or Path(name).exists():
        where = "or give the folder of one, or module:object"
        raise UnknownName("autoencoder", name, AUTOENCODERS, where)
    found: Any = imported_object(name, "autoencoder")
    found = called(found, name, "autoencoder") if callable(found) and not _is_autoencoder(found) else found
    several = tuple(found) if isinstance(found, (list, tuple)) else (found,)
    wrong = [type(x).__name__ for x in several if not _is_autoencoder(x)]
    if wrong or not several:
        raise ValueError(
            f"{name!r} gives {', '.join(wrong) or 'nothing'}; an autoencoder has a site and `encode`, as a `learn.Sae` does"
        )
    return several


def _is_autoencoder(found: Any) -> bool:
    return not isinstance(found, type) and hasattr(found, "site") and callable(getattr(found, "encode", None))
