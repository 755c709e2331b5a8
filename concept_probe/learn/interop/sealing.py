"""The seal of a configuration that is written here: over all that it says, beside what sae-lens asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from concept_probe.learn.interop.lens_dialects import ours_of
from concept_probe.storage import SEAL, seal_of, write_text
from concept_probe.storage.schema import HASH, Fields, Free, Number, Parsed, Table, Text, Whole
from concept_probe.types import Site

WITH_SEAL = {"configuration": "sealed"}
"""Metadata of weights whose configuration has a seal, so that one without is no older file."""
_SITE, _SCALE = Parsed(Site.parse, "the address of a site"), Number(least=2.0**-1000, most=2.0**1000)
_OURS = Fields(
    {"site": _SITE, "scale": _SCALE, "sha256": HASH, "made_by": Table(Free())},
    {"target": _SITE, "target_scale": _SCALE, "k": Whole(1), "batch_topk": Whole(1), SEAL: Text()},
)


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write a configuration with what `ours_of` finds in it sealed.

    Characters beyond ASCII are escaped, since sae-lens reads it in whatever encoding its machine has.
    """
    plain = json.loads(json.dumps(config))
    plain["metadata"]["concept_probe"][SEAL] = _seal(plain)
    write_text(path, json.dumps(plain, indent=2) + "\n")


def broken_seal(config: Mapping[str, Any], metadata: Mapping[str, str]) -> str | None:
    """What is wrong with a configuration that was written here; None for one that says what was written, and for others.

    `metadata` is that of the weights. Configurations of earlier versions have no seal.
    """
    ours, promised = ours_of(config), metadata.get("configuration") == WITH_SEAL["configuration"]
    if not ours and not promised:
        return None
    if SEAL not in ours and promised:
        return "it has no seal, which was written with it"
    if SEAL in ours and ours[SEAL] != (found := _seal(config)):
        return f"altered: the seal of what it says is {found}, {ours[SEAL]!r} was written"
    return _OURS(ours, "metadata.concept_probe")


def _seal(config: Mapping[str, Any]) -> str:
    metadata = config["metadata"]
    ours = {name: one for name, one in metadata["concept_probe"].items() if name != SEAL}
    return seal_of({**config, "metadata": {**metadata, "concept_probe": ours}})
