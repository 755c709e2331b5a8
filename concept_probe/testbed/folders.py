"""The folders of finished models, clear of what names a place on the machine that made them."""

from __future__ import annotations

import json
from pathlib import Path

from concept_probe.storage import write_json


def clear_origins(folder: Path, name: str) -> None:
    """Take out of a pipeline's configurations where its parts were loaded from, and call it `name`."""
    for config in folder.glob("*/config.json"):
        content = json.loads(config.read_text())
        content.pop("_name_or_path", None)
        write_json(config, content, indent=2, sort_keys=True)
    index = folder / "model_index.json"
    content = json.loads(index.read_text())
    content["_name_or_path"] = name
    write_json(index, content, indent=2)
