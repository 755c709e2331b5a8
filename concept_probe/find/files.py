"""What was found, on disk: `found.json` and `found.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from concept_probe.storage import check_file, file_sha256, read_json, read_tensors, write_json, write_tensors
from concept_probe.types import Score, Site, SparseCoder, Subspace

TENSORS = ("basis", "mean", "dual")
_MEND = "find again"


def save_found(found: Sequence[Subspace], folder: str | Path) -> Path:
    """Write subspaces into `folder`; features remember the site of their autoencoder, not the autoencoder."""
    folder = Path(folder)
    tensors: dict[str, Tensor] = {}
    rows: list[dict[str, Any]] = []
    for i, space in enumerate(found):
        tensors |= {f"{i}.{n}": t for n in TENSORS if (t := getattr(space, n)) is not None}
        rows.append({
            "site": str(space.site), "space": space.space, "score": asdict(space.score), "concept": space.concept,
            "role": space.role, "features": list(space.features), "scores": [asdict(s) for s in space.scores],
            "has_codec": space.codec is not None,
        })  # fmt: skip
    write_tensors(folder / "found.safetensors", tensors)
    write_json(folder / "found.json", {"sha256": file_sha256(folder / "found.safetensors"), "subspaces": rows})
    return folder


def has_features(folder: str | Path) -> bool:
    """Whether what `save_found` wrote can't be read without autoencoders. Raises as `load_found` does."""
    return any(row["has_codec"] for row in _index(folder)["subspaces"])


def load_found(folder: str | Path, codecs: Sequence[SparseCoder] = ()) -> tuple[Subspace, ...]:
    """Read what `save_found` wrote; features get the autoencoder of their site among `codecs`.

    Raises CorruptFile for a file that was altered or cut short, ValueError for features whose autoencoder is not given.
    """
    note, store = Path(folder) / "found.json", Path(folder) / "found.safetensors"
    index = _index(folder)
    check_file(store, index["sha256"], note.name, _MEND)
    tensors, _ = read_tensors(store, _MEND)
    by_site = {codec.site: codec for codec in codecs}
    return tuple(_subspace(i, row, tensors, by_site) for i, row in enumerate(index["subspaces"]))


def _index(folder: str | Path) -> dict[str, Any]:
    for path in (Path(folder) / "found.json", Path(folder) / "found.safetensors"):
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds nothing found: {path} is missing")
    return read_json(Path(folder) / "found.json", _MEND)


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
