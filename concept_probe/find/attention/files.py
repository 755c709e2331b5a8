"""Attention maps on disk: `attention.json`, and one safetensors file for each batch of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from concept_probe.storage import (
    CorruptFile,
    WrongFile,
    check_fields,
    check_seal,
    inside,
    read_json,
    read_tensors,
    write_sealed,
    write_sealed_json,
)
from concept_probe.storage.schema import HASH, Fields, Flag, Free, Items, Maybe, Number, Table, Text, Tuple, Whole
from concept_probe.types import BRANCHES

INDEX = "attention.json"
ATTENTION_FORMAT = "concept_probe.attention/1"
_MEND = "make the maps again, into a new folder"
_PLACE = Fields({"word": Text(), "nth": Whole(), "tokens": Items(Whole(), least=1)})
_QUERY = Fields({"text": Text(), "subject": Maybe(Text()), "seed": Maybe(Whole(least=None)), "words": Items(Text())})
_LAYER = Fields({"name": Text(), "kind": Text(("cross", "joint", "self"))})
_MADE = Fields({
    "file": Text(pattern=r"\d{5,}\.safetensors", wanted="a name like 00000.safetensors"),
    "seal": HASH, "first": Whole(), "count": Whole(1), "places": Items(Items(_PLACE)), "grids": Items(Tuple((Whole(1), Whole(1)))),
    "sigmas": Items(Maybe(Number(any=True))),
})  # fmt: skip
_INDEX = Fields({
    "format": Text(),
    "header": Fields({
        "subject": Text(), "weight_hash": Text(), "queries": Items(_QUERY, least=1), "layers": Items(_LAYER, least=1),
        "branches": Items(Text(BRANCHES), least=1), "steps": Items(Whole(), least=1), "heads": Text(("mean", "each")),
        "measure": Text(("share", "value")), "points": Items(Tuple((Number(), Number()))), "more": Table(Free()),
    }),
    "files": Items(_MADE),
    "complete": Flag(),
})  # fmt: skip


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a folder of maps. MissingFile; CorruptFile for what is not as it was written; WrongFile for another format."""
    path = folder / INDEX
    index = read_json(path, "give a folder that `attention_maps` wrote")
    if index.get("format") != ATTENTION_FORMAT:
        check = f"it has format {index.get('format')!r}, this version reads {ATTENTION_FORMAT!r}"
        raise WrongFile(path, check, "update concept-probe, or make the maps again")
    index = check_seal(path, index, _MEND)
    check_fields(path, index, _INDEX, _MEND)
    done = 0
    for number, made in enumerate(index["files"]):
        if (
            made["first"] != done
            or len(made["places"]) != made["count"]
            or int(made["file"].partition(".")[0]) != number
        ):
            raise CorruptFile(path, f"{made['file']} does not follow on the file before it", _MEND)
        done += made["count"]
    total = len(index["header"]["queries"])
    if done > total or index["complete"] != (done == total):
        raise CorruptFile(path, f"it says complete: {index['complete']}, with {done} of {total} prompts", _MEND)
    return index


def write_index(folder: Path, header: Mapping[str, Any], files: list[dict[str, Any]]) -> None:
    """Write the index anew; it is complete where the files hold every query."""
    done = sum(made["count"] for made in files)
    complete = done == len(header["queries"])
    value = {"format": ATTENTION_FORMAT, "header": dict(header), "files": files, "complete": complete}
    write_sealed_json(folder / INDEX, value)


def write_part(folder: Path, number: int, tensors: Mapping[str, Tensor], seal: str) -> str:
    """Write the maps of one batch, under a name that is returned; `seal` is what the index says of them."""
    name = f"{number:05d}.safetensors"
    write_sealed(folder / name, tensors, {"of": seal})
    return name


def read_part(folder: Path, made: Mapping[str, Any]) -> dict[str, Tensor]:
    """The maps of one batch. MissingFile; CorruptFile where they are not those that the index was written with."""
    path = inside(folder, made["file"], "a file of maps")
    tensors, told = read_tensors(path, _MEND, sealed=True)
    if told.get("of") != made["seal"]:
        raise CorruptFile(
            path, f"it is not of this folder: its maps are {told.get('of')}, the index has {made['seal']}", _MEND
        )
    return tensors


def refuse_shape(
    folder: Path, made: Mapping[str, Any], key: str, found: Tensor | None, wanted: tuple[int, ...]
) -> Tensor:
    """`found`, or CorruptFile where the file has no tensor `key` of the shape that the index tells."""
    if found is None or tuple(found.shape) != wanted:
        has = "no such tensor" if found is None else f"shape {tuple(found.shape)}"
        raise CorruptFile(folder / made["file"], f"{key!r} has {has}, the index tells of {wanted}", _MEND)
    return found
