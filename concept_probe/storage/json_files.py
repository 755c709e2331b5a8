"""JSON files: read without surprises, and sealed by a hash over all that they say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from concept_probe.storage.errors import CorruptFile, MissingFile
from concept_probe.storage.hashing import text_sha256
from concept_probe.storage.writing import write_json

SEAL = "seal"
"""Key under which a sealed object holds the hash of all else that it says."""
DEEPEST = 200
"""Lists and objects within one another, at most: what walks through a value must come to its end."""


def read_text(path: Path, mend: str) -> str:
    """The text of a file in UTF-8. MissingFile; CorruptFile, ending in `mend`, where it is no UTF-8."""
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "not found"
        raise MissingFile(f"{path} {what}; {mend}")
    try:
        return path.read_bytes().decode("utf-8-sig")  # a mark of byte order says nothing in UTF-8
    except UnicodeDecodeError as error:
        raise CorruptFile(path, f"not text in UTF-8 (byte {error.start})", mend) from None


def parse_json(text: str | bytes, path: str | Path, mend: str) -> Any:
    """The value of a JSON text that stands in `path`.

    CorruptFile, ending in `mend`, where it is no whole JSON, nested too deep to be walked through, has a key of an
    object twice, or a text that UTF-8 can't hold.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(decoded, object_pairs_hook=_object)
    except RecursionError:
        raise CorruptFile(path, f"more than {DEEPEST} lists and objects within one another", mend) from None
    except ValueError as error:
        raise CorruptFile(path, f"not whole JSON ({error})", mend) from None
    wrong = _unwalkable(value)
    if wrong is not None:
        raise CorruptFile(path, wrong, mend)
    return value


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """The object in a JSON file. MissingFile; CorruptFile as by `parse_json`, and where it is no object."""
    value = parse_json(read_text(path, mend), path, mend)
    if not isinstance(value, dict):
        raise CorruptFile(path, f"a JSON {type(value).__name__}, not an object", mend)
    return value


def seal_of(value: Mapping[str, Any]) -> str:
    """Hex sha256 over a JSON object, whatever the order of its keys and the spaces in its file; over all but its seal."""
    plain = {name: one for name, one in value.items() if name != SEAL}
    return text_sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")))


def sealed(value: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """`value` as JSON gives it back, with its seal. ValueError where it is nested too deep to be read again."""
    plain = json.loads(json.dumps(value, default=default))
    wrong = _unwalkable(plain)
    if wrong is not None:
        raise ValueError(f"what was to be written can't be read again: {wrong}")
    return {**plain, SEAL: seal_of(plain)}


def write_sealed_json(
    path: Path,
    value: Mapping[str, Any],
    *,
    indent: int = 1,
    sort_keys: bool = False,
    default: Callable[[Any], Any] | None = None,
) -> None:
    """As `write_json`; the object gains `seal`, which `check_seal` compares with what it says."""
    write_json(path, sealed(value, default), indent=indent, sort_keys=sort_keys)


def check_seal(path: str | Path, value: Mapping[str, Any], mend: str, *, needed: bool = True) -> dict[str, Any]:
    """`value` without its seal; CorruptFile, ending in `mend`, where it says something else than was sealed.

    Without a seal it is refused where one is `needed`: where it was written by a version that seals.
    """
    if SEAL not in value:
        if needed:
            raise CorruptFile(path, "it has no seal, which was written with it", mend)
        return dict(value)
    found = seal_of(value)
    if value[SEAL] != found:
        raise CorruptFile(path, f"altered: the seal of what it says is {found}, {value[SEAL]!r} was written", mend)
    return {name: one for name, one in value.items() if name != SEAL}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return out


def _unwalkable(value: Any) -> str | None:
    """Why a value of JSON can't be walked through or written again; None where it can."""
    level = [value]
    for _ in range(DEEPEST + 1):
        below: list[Any] = []
        for one in level:
            if isinstance(one, str):
                if not one.isascii() and any("\ud800" <= c <= "\udfff" for c in one):
                    return f"half a character in {one[:40]!r}"
            elif isinstance(one, dict):
                below += one
                below += one.values()
            elif isinstance(one, list):
                below += one
        if not below:
            return None
        level = below
    return f"more than {DEEPEST} lists and objects within one another"
