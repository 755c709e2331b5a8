"""Writes a store as a stream: what is on disk is always whole, and a rerun goes on from there."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from concept_probe.activations import shard
from concept_probe.activations.columns import columns_in
from concept_probe.activations.journal import append_shard, remove_journal
from concept_probe.activations.manifest import (
    MANIFEST,
    MANIFEST_FORMAT,
    SHARD_NAME,
    ManifestFile,
    prompts_sha256,
    read_manifest,
)
from concept_probe.storage import UNFINISHED, WrongFile
from concept_probe.types import Site

MOST_HELD = 2**27
"""Bytes of all sites together that wait at the end of a batch without a shard being written: 128 MiB."""


class StoreWriter:
    """Rows come in by site; a shard goes out when any site has `shard_rows` of them, or all together `MOST_HELD` bytes.

    Shards written in the middle of a batch are marked as such, and dropped by a rerun, which starts at a batch.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], sites: tuple[Site, ...], shard_rows: int) -> None:
        self.folder = folder
        self.manifest = manifest
        self.sites = sites
        self.shard_rows = shard_rows
        self._file = ManifestFile(folder, manifest["header"]["prompts"])
        self._buffers: dict[Site, list[dict[str, Tensor]]] = {site: [] for site in sites}
        self._rows = dict.fromkeys(sites, 0)
        self._told = True
        """Whether the disk knows all that the last record says."""

    @classmethod
    def resume(cls, folder: Path, header: Mapping[str, Any], sites: tuple[Site, ...], shard_rows: int) -> StoreWriter:
        """Begin a store in `folder`, which is there, or go on with the one in it; for the only writer of the folder.

        Raises ValueError if that one is of another capture, naming what differs and both values; WrongFile if the
        folder holds something else, CorruptFile if the store's manifest was cut or altered.
        """
        header = {"prompts_sha256": prompts_sha256(header["prompts"]), **json.loads(json.dumps(header))}
        path = folder / MANIFEST
        if not path.is_file():
            strays = sorted(p.name for p in folder.iterdir() if not _unfinished(p.name))
            if strays:
                check = f"the folder holds {strays[0]!r} but no {MANIFEST}"
                raise WrongFile(folder, check, "capture into an empty or new folder")
            versions = {name: _version(name) for name in ("torch", "safetensors", "transformers", "diffusers")}
            manifest = {
                "format": MANIFEST_FORMAT,
                "header": header,
                "versions": versions,
                "complete": False,
                "widths": {},
                "shards": [],
            }
            writer = cls(folder, manifest, sites, shard_rows)
            writer._clear()
            writer._save()
            return writer
        manifest = read_manifest(folder)
        _refuse_other(folder, manifest["header"], header)
        writer = cls(folder, manifest, sites, shard_rows)
        writer._drop_unfinished()
        return writer

    @property
    def done(self) -> int:
        """How many prompts are on disk."""
        return max((s["done"] for s in self.manifest["shards"]), default=0)

    @property
    def complete(self) -> bool:
        return self.manifest["complete"]

    def _drop_unfinished(self) -> None:
        shards = self.manifest["shards"]
        while shards and not shards[-1]["whole"]:
            shards.pop()
        if shards and shards[-1]["done"] == len(self.manifest["header"]["prompts"]):
            self.manifest["complete"] = True  # killed between its last shard and saying so
        self._clear()
        self._save()

    def _clear(self) -> None:
        """Remove what a killed writer left: files cut in the middle, and shards that the manifest does not name."""
        kept = {s["file"] for s in self.manifest["shards"]}
        for path in self.folder.iterdir():
            left = _unfinished(path.name) or (re.fullmatch(SHARD_NAME, path.name) and path.name not in kept)
            if left and path.is_file() and not path.is_symlink():
                path.unlink()

    def add(self, site: Site, x: Tensor, columns: Mapping[str, Tensor], done: int) -> None:
        """Take rows x (n, d) of one site; `done` prompts are whole so far."""
        if not len(x):
            return
        self.manifest["widths"].setdefault(str(site), x.shape[1])
        self._buffers[site].append({"x": x, **columns})
        self._rows[site] += len(x)
        if self._rows[site] >= self.shard_rows:
            self._flush(done, whole=False)

    def end_batch(self, done: int, total: int) -> None:
        """The first `done` of `total` prompts are whole now."""
        if not self.manifest["shards"]:
            self._refuse_without_room(done, total)
        finished = done == total
        pending = any(self._rows.values())
        shards = self.manifest["shards"]
        split = bool(shards) and not shards[-1]["whole"]
        enough = max(self._rows.values()) >= self.shard_rows // 2 or self._held() >= MOST_HELD
        if pending and (finished or split or enough):
            self._flush(done, whole=True)
        elif shards and not pending:
            shards[-1] |= {"done": done, "whole": True}
            self._told = False
        if finished:
            self.manifest["complete"] = True
            self._save()

    def _flush(self, done: int, *, whole: bool) -> None:
        tensors = {}
        for i, site in enumerate(self.sites):
            parts = self._buffers[site]
            if parts:
                tensors[f"{i}.x"] = torch.cat([p["x"] for p in parts])
                for column in columns_in(self.manifest["header"]):
                    tensors[f"{i}.{column}"] = torch.cat([p[column] for p in parts])
        name = f"{len(self.manifest['shards']):06d}.safetensors"
        record = shard.write_shard(self.folder / name, tensors)
        rows = {str(site): n for site, n in self._rows.items() if n}
        if not self._told:
            self._tell()
        self.manifest["shards"].append({"file": name, **record, "rows": rows, "done": done, "whole": whole})
        self._buffers = {site: [] for site in self.sites}
        self._rows = dict.fromkeys(self.sites, 0)
        self._tell()

    def _tell(self) -> None:
        """Say on disk what the last record says, at a cost that doesn't grow with the number of prompts."""
        append_shard(self.folder, self.manifest["shards"][-1], self.manifest["widths"])
        self._told = True

    def _save(self) -> None:
        self._file.write(self.manifest)
        remove_journal(self.folder)

    def _held(self) -> int:
        """Bytes that wait to be written."""
        return sum(t.numel() * t.element_size() for parts in self._buffers.values() for p in parts for t in p.values())

    def _refuse_without_room(self, done: int, total: int) -> None:
        need, free = self._held() * total // max(done, 1), shutil.disk_usage(self.folder).free
        if need > free:
            raise OSError(
                errno.ENOSPC,
                f"this capture needs about {need / 1e9:.1f} GB and {self.folder} has {free / 1e9:.1f} GB free; "
                "keep fewer token kinds (kinds=) or denoising steps (options.steps), or store float16 (options.dtype)",
            )


def _unfinished(name: str) -> bool:
    """Whether a file is a manifest or a shard that was being written."""
    own = rf"({re.escape(MANIFEST)}|{SHARD_NAME})"
    return re.fullmatch(rf"{own}(\.[0-9a-f]{{1,12}})?{re.escape(UNFINISHED)}", name) is not None


def _refuse_other(folder: Path, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    there, asked = _spread(there), _spread(asked)
    for key in dict.fromkeys((*asked, *there)):
        if key in ("scheduler", "reads", "columns") and key not in there:  # stores of before do not say
            continue
        a, b = asked.get(key), there.get(key)
        if a != b:
            raise ValueError(
                f"{folder} holds another capture: its {key} is {_short(b)}, asked for is {_short(a)}; nothing was "
                "written; capture into another folder"
            )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _spread(header: Mapping[str, Any]) -> dict[str, Any]:
    """A header with each convention under its own name, as stores of before have them."""
    return {**{key: value for key, value in header.items() if key != "conventions"}, **header.get("conventions", {})}
