"""What a capture under way has written since its manifest: one line per shard, so that a shard costs what it holds.

The manifest names every prompt. It is written when a capture begins and when it is complete; in between, each shard
adds a line here, whatever the number of prompts. A rerun takes the lines up into the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from concept_probe.storage import CorruptFile, append_line, check_fields, parse_json, text_sha256
from concept_probe.storage.schema import HASH, Fields, Free, Table, Text

JOURNAL = "shards.jsonl"
_LINE = Fields({"shard": Fields({"file": Text()}, open=True), "widths": Table(Free()), "sha256": HASH})


def append_shard(folder: Path, record: Mapping[str, Any], widths: Mapping[str, int]) -> None:
    """Add the record of a shard, which takes the place of an earlier one of the same file, and all widths known."""
    text = json.dumps([record, widths])
    append_line(folder / JOURNAL, json.dumps({"shard": record, "widths": widths, "sha256": text_sha256(text)}))


def with_journal(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a store as it would be, had it been written after the last shard.

    What a killed writer left of a line is passed over. Raises CorruptFile for another line that is not what was
    written. A complete manifest is as it is.
    """
    path, mend = folder / JOURNAL, "capture into a new folder"
    if manifest["complete"] or not path.is_file():
        return manifest
    shards, widths = {record["file"]: record for record in manifest["shards"]}, dict(manifest["widths"])
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        said = parse_json(line, where, mend)
        check_fields(where, said, _LINE, mend, "the line")
        record, more = said["shard"], said["widths"]
        if said["sha256"] != text_sha256(json.dumps([record, more])):
            raise CorruptFile(where, "it is not what was written", mend)
        shards[record["file"]] = record
        widths |= more
    return {**manifest, "widths": widths, "shards": list(shards.values())}


def remove_journal(folder: Path) -> None:
    """For a writer whose manifest holds all that the lines say."""
    (folder / JOURNAL).unlink(missing_ok=True)
