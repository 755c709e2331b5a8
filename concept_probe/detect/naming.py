"""One way to name a recogniser: of a registry, as module:object, as clip:FOLDER, or as a folder.

- `emoji`: a recogniser of this package, or one that an installed package adds by an entry point;
- `my_package.looks:Mine`: an object of a module that can be imported: a recogniser, or what makes one;
- `clip:FOLDER` (or a hub id): a CLIP pair that names pictures zero-shot by the labels of the concept's prompts;
- `FOLDER`: what `LearnedPrompts.save` or the recipe of the embedded models wrote, or a CLIP pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from concept_probe.registry import UnknownName, called, imported_object
from concept_probe.types import KINDS, Concept, Recogniser


def named_recogniser(known: Mapping[str, Callable[[], Recogniser]], name: str, labels: Sequence[str]) -> Recogniser:
    """What `name` says, `known` being the registry. UnknownName, or ValueError for what is no recogniser."""
    if name in known:
        return checked(known[name](), name)
    scheme, colon, rest = name.partition(":")
    if scheme == "clip" and colon:
        return _zero_shot(rest, labels)
    if Path(name).is_dir():
        return checked(_from_folder(Path(name), labels), name)
    if colon and rest and not Path(name).exists():
        found = imported_object(name, "recogniser")
        return checked(
            called(found, name, "recogniser") if isinstance(found, type) or not _is_recogniser(found) else found, name
        )
    raise UnknownName(
        "recogniser", name, known, "or give clip:FOLDER, a folder, or module:object; `concept-probe info recognisers`"
    )


def checked(found: Any, name: str) -> Recogniser:
    """`found`, which must be able to judge pictures or texts. ValueError where it can't."""
    if not _is_recogniser(found):
        raise ValueError(
            f"recogniser {name!r} is {type(found).__name__}, which has no name, version, labels and probabilities; give "
            "an object that has them, or a function or class that makes one without arguments"
        )
    labels = tuple(found.labels)
    if len(labels) < 2 or labels[-1] != "none" or len(set(labels)) != len(labels):
        raise ValueError(
            f"recogniser {name!r} has labels {', '.join(map(repr, labels[:6]))}; give at least one, none twice, the last "
            "one 'none'"
        )
    return found


def _is_recogniser(found: Any) -> bool:
    can = callable(getattr(found, "probabilities", None)) or callable(getattr(found, "read", None))
    return can and not isinstance(found, type) and all(hasattr(found, part) for part in ("name", "version", "labels"))


def labels_in(concept: Concept) -> tuple[str, ...]:
    """The labels of a concept's prompts, in their order, none twice: what a CLIP pair names its pictures by."""
    return tuple(dict.fromkeys(p.label for kind in KINDS for p in getattr(concept, kind) if p.label))


def _zero_shot(source: str, labels: Sequence[str]) -> Recogniser:
    from concept_probe.detect.clip import zero_shot

    if not source:
        raise ValueError(
            "recogniser 'clip:' names no pair; give clip:FOLDER, a folder that save_pretrained wrote, or a hub id"
        )
    if not labels:
        raise ValueError(
            f"recogniser 'clip:{source}' needs labels to name pictures by; give the concept's prompts labels"
        )
    return zero_shot(source, labels)


def _from_folder(folder: Path, labels: Sequence[str]) -> Recogniser:
    if (folder / "recogniser.json").is_file():
        from concept_probe.detect.emoji import load_emoji

        return load_emoji(folder, head=0)
    if (folder / "prompts.json").is_file():
        from concept_probe.detect.clip import load_clip
        from concept_probe.detect.q16 import load_prompts, pair_name

        return load_prompts(folder, load_clip(pair_name(folder)))
    if (folder / "config.json").is_file():
        return _zero_shot(str(folder), labels)
    raise ValueError(
        f"folder {folder} holds no recogniser: no recogniser.json, no prompts.json of learned prompts, and no config.json "
        "of a CLIP pair"
    )
