"""The manifest of a store: what every row is, sealed, with each of its fields as it has to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from concept_probe.activations.columns import COLUMNS, FIRST_COLUMNS, columns_in
from concept_probe.activations.journal import with_journal
from concept_probe.storage import (
    SEAL,
    CorruptFile,
    MissingFile,
    WrongFile,
    check_fields,
    check_seal,
    read_json,
    sealed,
    text_sha256,
    write_text,
)
from concept_probe.storage.schema import HASH, Fields, Flag, Free, Items, Maybe, Parsed, Table, Text, Tuple, Whole
from concept_probe.types import BRANCHES, FORMS, TOKEN_KINDS, Site

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 2
"""Format 1 has no seal; it is read where all that it says is as it has to be."""
ROW_TYPES = ("float64", "float32", "float16", "bfloat16")
"""What rows are stored in."""
SHARD_NAME = r"\d{6,}\.safetensors"
_MEND = "capture into a new folder"
_SITE = Parsed(Site.parse, "the address of a site")
_MORE = Fields(
    {},
    {"form": Text(FORMS), "answers": Items(Text()), "distractors": Items(Text()), "fact": Text()},
)
_PROMPT = Tuple((Text(), Maybe(Text()), Maybe(Text()), Maybe(Whole(least=None)), _MORE), least=4)
_HEADER = Fields(
    {
        "subject": Text(),
        "weight_hash": Text(),
        "sites": Items(_SITE, least=1),
        "dtype": Text(ROW_TYPES),
        "prompts_sha256": HASH,
        "prompts": Items(_PROMPT, least=1),
    },
    {
        "kinds": Maybe(Items(Text(TOKEN_KINDS))),
        "branches": Items(Text(BRANCHES)),
        "columns": Items(Text(COLUMNS)),
        "conventions": Table(Free()),
        "clip_skip": Whole(),  # as stores of before have two of them
        "picture_size": Items(Whole(1)),
        "steps": Maybe(Items(Whole())),
        "sampling": Free(),
        "scheduler": Tuple((Text(), HASH)),
        "on": Items(Text()),
        "hooks": Items(Text()),
        "reads": HASH,
        "reads_forward": Flag(),
    },
)
_SHARD = Fields({
    "file": Text(pattern=SHARD_NAME, wanted="a name like 000000.safetensors"),
    "bytes": Whole(),
    "sha256": HASH,
    "rows": Table(Whole(1), keys=_SITE),
    "done": Whole(),
    "whole": Flag(),
})  # fmt: skip
_MANIFEST = Fields({
    "format": Whole(),
    "header": _HEADER,
    "versions": Table(Text()),
    "complete": Flag(),
    "widths": Table(Whole(1), keys=_SITE),
    "shards": Items(_SHARD),
})  # fmt: skip


def prompts_sha256(prompts: list[Any]) -> str:
    """The hash over the prompts of a header, which stands beside them."""
    return text_sha256(json.dumps(prompts))


class ManifestFile:
    """Writes the manifest of one store again and again, whole each time, at a cost that its prompts hardly add to."""

    def __init__(self, folder: Path, prompts: list[Any]) -> None:
        self.path = folder / MANIFEST
        self._prompts = json.dumps(prompts, ensure_ascii=False)

    def write(self, manifest: Mapping[str, Any]) -> None:
        """Write it, sealed: the prompts by their own hash, which stands beside them."""
        light = _without_prompts({**manifest, "format": MANIFEST_FORMAT})
        whole = {**sealed(light), "header": {**light["header"], "prompts": None}}
        before, _, after = json.dumps(whole, indent=1, ensure_ascii=False).rpartition('"prompts": null')
        write_text(self.path, f'{before}"prompts": {self._prompts}{after}\n')


def _without_prompts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    header = manifest.get("header")
    light = {n: v for n, v in header.items() if n != "prompts"} if isinstance(header, Mapping) else header
    return {**manifest, "header": light}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the store in `folder`, with what a capture under way has written since.

    Raises MissingFile where there is none, WrongFile for another format, CorruptFile for one that was cut or altered.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingFile(f"{folder} holds no {MANIFEST}; give the folder that capture wrote to")
    manifest = read_json(path, f"it is not a whole manifest of a capture; {_MEND}")
    if "header" not in manifest and "shards" not in manifest:
        raise WrongFile(path, "it is not a manifest of a capture", "give the folder that capture wrote to")
    if manifest.get("format") not in (1, MANIFEST_FORMAT) or isinstance(manifest["format"], bool):
        check = f"it has format {manifest.get('format')!r}, this version reads 1 and {MANIFEST_FORMAT}"
        raise WrongFile(path, check, "update concept-probe, or capture into a new folder")
    check_seal(path, _without_prompts(manifest), _MEND, needed=manifest["format"] == MANIFEST_FORMAT)
    manifest = {name: one for name, one in manifest.items() if name != SEAL}
    check_fields(path, manifest, _MANIFEST, _MEND)
    manifest = with_journal(folder, manifest)
    check_fields(path, manifest, _MANIFEST, _MEND)
    wrong = _disagreement(manifest)
    if wrong is not None:
        raise CorruptFile(path, f"altered: {wrong}", _MEND)
    return manifest


def _disagreement(manifest: Mapping[str, Any]) -> str | None:
    """What two places of a manifest say differently; None where they agree."""
    header, shards = manifest["header"], manifest["shards"]
    found = prompts_sha256(header["prompts"])
    if found != header["prompts_sha256"]:
        return f"the prompts have sha256 {found}, {header['prompts_sha256']} is written beside them"
    total, sites = len(header["prompts"]), set(header["sites"])
    if len(sites) < len(header["sites"]):
        return "a site stands twice"
    if lacks := [name for name in FIRST_COLUMNS if name not in columns_in(header)]:
        return f"its rows have no column {lacks[0]!r}"
    for number, shard in enumerate(shards):
        if int(shard["file"].partition(".")[0]) != number:
            return f"shard {number} is called {shard['file']}"
        if shard["done"] > total:
            return f"{shard['file']} ends with prompt {shard['done']} of {total}"
        if not set(shard["rows"]) <= sites & set(manifest["widths"]):
            return f"{shard['file']} has rows of sites that the header does not name"
    if manifest["complete"] and shards and not (shards[-1]["whole"] and shards[-1]["done"] == total):
        return "it is complete, and its last shard is not"
    return None
