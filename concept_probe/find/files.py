"""What was found, on disk: `found.json` and `found.safetensors`, written beside and renamed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from concept_probe.types import Score, Site, SparseCoder, Subspace

TENSORS = ("basis", "mean", "dual")


def save_found(found: Sequence[Subspace], folder: str | Path) -> Path:
    """Write subspaces into `folder`; features remember the site of their autoencoder, not the autoencoder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    rows: list[dict[str, Any]] = []
    for i, space in enumerate(found):
        tensors |= {f"{i}.{n}": t.contiguous() for n in TENSORS if (t := getattr(space, n)) is not None}
        rows.append({
            "site": str(space.site), "space": space.space, "score": asdict(space.score), "concept": space.concept,
            "role": space.role, "features": list(space.features), "scores": [asdict(s) for s in space.scores],
            "has_codec": space.codec is not None,
        })  # fmt: skip
    data = save(tensors)
    _replace(folder / "found.safetensors", data)
    text = json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "subspaces": rows}, indent=1)
    _replace(folder / "found.json", text.encode())
    return folder


def load_found(folder: str | Path, codecs: Sequence[SparseCoder] = ()) -> tuple[Subspace, ...]:
    """Read what `save_found` wrote; features get the autoencoder of their site among `codecs`.

    Raises ValueError for a file that was altered or cut short, naming it, and for features whose
    autoencoder is not given.
    """
    folder = Path(folder)
    try:
        index: Mapping[str, Any] = json.loads((folder / "found.json").read_text())
        data = (folder / "found.safetensors").read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder} holds nothing found: {error.filename} is missing") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'found.json'} is not JSON ({error.msg}); find again") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != index["sha256"]:
        raise ValueError(
            f"{folder / 'found.safetensors'} fails its checksum: sha256 {digest[:12]}, recorded {index['sha256'][:12]}; "
            "it was altered or cut short: find again"
        )
    tensors = load(data)
    by_site = {codec.site: codec for codec in codecs}
    return tuple(_subspace(i, row, tensors, by_site) for i, row in enumerate(index["subspaces"]))


def _subspace(
    i: int, row: Mapping[str, Any], tensors: Mapping[str, Tensor], codecs: Mapping[Site, SparseCoder]
) -> Subspace:
    site = Site.parse(row["site"])
    if row["has_codec"] and site not in codecs:
        known = ", ".join(map(str, codecs)) or "none"
        raise ValueError(f"features at {site} need their autoencoder; autoencoders given: {known}")
    codec = codecs[site] if row["has_codec"] else None
    if codec is not None and max(row["features"], default=0) >= codec.width:
        raise ValueError(f"feature {max(row['features'])} at {site}: the autoencoder given has {codec.width} features")
    basis, mean, dual = (tensors.get(f"{i}.{n}") for n in TENSORS)
    if basis is None:
        raise ValueError(f"subspace {i} at {site} has no basis: find again")
    return Subspace(
        site,
        basis,
        row["space"],
        Score(**row["score"]),
        row["concept"],
        row["role"],
        mean,
        dual,
        tuple(row["features"]),
        codec,
        tuple(Score(**s) for s in row["scores"]),
    )


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
