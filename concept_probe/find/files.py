"""What was found, on disk: `found.json` and `found.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from concept_probe.storage import (
    CorruptFile,
    MissingFile,
    WrongFile,
    check_fields,
    check_file,
    check_seal,
    file_sha256,
    only_writer,
    read_json,
    read_tensors,
    write_sealed_json,
    write_tensors,
)
from concept_probe.storage.schema import HASH, Fields, Flag, Items, Maybe, Number, Parsed, Text, Whole
from concept_probe.types import Score, Site, SparseCoder, Subspace

TENSORS = ("basis", "mean", "dual")
FOUND_FORMAT = "concept_probe.found/2"
"""Files without a format are of the first, which has no seal; they are read where all that they say is as it has to be."""
_MEND = "find again"
_ANY = Number(any=True)
_SCORE = Fields(
    {"name": Text(), "value": _ANY, "low": _ANY, "high": _ANY, "n": Whole()},
    {"unit": Text(), "better": Text(("higher", "lower", "none")), "control": Maybe(_ANY)},
)
_SUBSPACE = Fields({
    "site": Parsed(Site.parse, "the address of a site"),
    "space": Text(("activation", "parameter")),
    "score": _SCORE,
    "concept": Text(),
    "role": Text(),
    "features": Items(Whole()),
    "scores": Items(_SCORE),
    "has_codec": Flag(),
}, {"base_hash": Text()})  # fmt: skip
_INDEX = Fields({"sha256": HASH, "subspaces": Items(_SUBSPACE)}, {"format": Text()})


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
            "has_codec": space.codec is not None, **({"base_hash": space.base_hash} if space.base_hash else {}),
        })  # fmt: skip
    with only_writer(folder, "what was found"):
        write_tensors(folder / "found.safetensors", tensors)
        sha256 = file_sha256(folder / "found.safetensors")
        write_sealed_json(folder / "found.json", {"format": FOUND_FORMAT, "sha256": sha256, "subspaces": rows})
    return folder


def has_features(folder: str | Path) -> bool:
    """Whether what `save_found` wrote can't be read without autoencoders. Raises as `load_found` does."""
    return any(row["has_codec"] for row in _index(folder)["subspaces"])


def load_found(folder: str | Path, codecs: Sequence[SparseCoder] = ()) -> tuple[Subspace, ...]:
    """Read what `save_found` wrote; features get the autoencoder of their site among `codecs`.

    Raises MissingFile, CorruptFile for a file that was altered or cut short, WrongFile for another format, ValueError
    for features whose autoencoder is not given.
    """
    note, store = Path(folder) / "found.json", Path(folder) / "found.safetensors"
    index = _index(folder)
    check_file(store, index["sha256"], note.name, _MEND)
    tensors, _ = read_tensors(store, _MEND)
    by_site = {codec.site: codec for codec in codecs}
    return tuple(_subspace(store, i, row, tensors, by_site) for i, row in enumerate(index["subspaces"]))


def _index(folder: str | Path) -> dict[str, Any]:
    for path in (Path(folder) / "found.json", Path(folder) / "found.safetensors"):
        if not path.is_file():
            raise MissingFile(f"{folder} holds nothing found: {path} is missing")
    note = Path(folder) / "found.json"
    index = read_json(note, _MEND)
    if index.get("format", FOUND_FORMAT) != FOUND_FORMAT:
        check = f"it has format {index['format']!r}, this version reads {FOUND_FORMAT!r}"
        raise WrongFile(note, check, "update concept-probe, or find again")
    index = check_seal(note, index, _MEND, needed="format" in index)
    check_fields(note, index, _INDEX, _MEND)
    return index


def _subspace(
    store: Path, i: int, row: Mapping[str, Any], tensors: Mapping[str, Tensor], codecs: Mapping[Site, SparseCoder]
) -> Subspace:
    site = Site.parse(row["site"])
    if row["has_codec"] and site not in codecs:
        known = ", ".join(map(str, codecs)) or "none"
        raise ValueError(f"features at {site} need their autoencoder; autoencoders given: {known}")
    codec = codecs[site] if row["has_codec"] else None
    if codec is not None and max(row["features"], default=0) >= codec.width:
        raise ValueError(f"feature {max(row['features'])} at {site}: the autoencoder given has {codec.width} features")
    basis, mean, dual = (tensors.get(f"{i}.{n}") for n in TENSORS)
    if basis is None or basis.ndim != 2:
        raise CorruptFile(store, f"subspace {i} at {site} has no basis of two axes", _MEND)
    wrong = next((n for n, t in (("dual", dual),) if t is not None and t.shape != basis.shape), None)
    if mean is not None and mean.shape != basis.shape[:1]:
        wrong = "mean"
    if wrong is not None or (row["features"] and len(row["features"]) != basis.shape[1]):
        raise CorruptFile(store, f"{wrong or 'the list of features'} of subspace {i} does not fit its basis", _MEND)
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
        row.get("base_hash", ""),
    )
