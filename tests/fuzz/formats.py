"""Every kind of file that is written here, tiny, with what reads it; and what can happen to a file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from concept_probe.activations import Activations
from concept_probe.activations.columns import COLUMNS, stored_column
from concept_probe.activations.writer import StoreWriter
from concept_probe.bench import RowStore, SweepRow
from concept_probe.concepts.files import load_concept, save_concept
from concept_probe.erasers import Edit
from concept_probe.erasers.erasure.deltas import Columns, LowRank, Shift, Sum
from concept_probe.find import MapChoice, attention_maps, load_attention
from concept_probe.find.files import load_found, save_found
from concept_probe.learn import Sae, load_sae, save_sae
from concept_probe.learn.sae import TopK
from concept_probe.report import from_json, to_json
from concept_probe.storage import read_tensors, read_text, write_sealed
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Sampling, Score, Site, Subspace
from tests.report.one_of_each import report

SITE = Site("unet", "mid_block")


@dataclass(frozen=True)
class FileFormat:
    """A folder that is written, one of its files, and what is read of the folder."""

    write: Callable[[Path], object]
    file: str
    read: Callable[[Path], Any]
    """Gives what the folder says, as a text that tells equal content from other."""
    sealed: bool = True
    """Whether another content is always told; a file that people write has no seal."""
    grows: bool = False
    """Whether it grows line by line, so that what a killed writer left of the last line is passed over."""


def _numbers(x: Tensor | None) -> Any:
    return None if x is None else [str(x.dtype), tuple(x.shape), x.double().tolist()]


def _write_store(folder: Path) -> None:
    folder.mkdir()
    header = {
        "subject": "tiny", "weight_hash": "0" * 64, "sites": [str(SITE)], "dtype": "float32", "kinds": None,
        "branches": ["cond"], "columns": list(COLUMNS),
        "prompts": [["a cat", "cat", "cat", 0], ["a dog", "dog", None, 1], ["sun", None, None, 2]],
    }  # fmt: skip
    writer = StoreWriter.resume(folder, header, (SITE,), shard_rows=4)
    for i in range(3):
        columns = {c: stored_column(c, torch.full((2,), i)) for c in COLUMNS}
        writer.add(SITE, torch.arange(6.0).view(2, 3) + i, columns, done=i)
        writer.end_batch(i + 1, 3)


def _read_store(folder: Path) -> Any:
    acts = Activations.open(folder)
    rows = acts.read(SITE)
    said = [acts.subject, acts.weight_hash, acts.sites, acts.queries, acts.complete, acts.width(SITE), acts.rows(SITE)]
    return repr([said, _numbers(rows.x), {c: _numbers(x) for c, x in rows.columns.items()}])


def _sae() -> Sae:
    g = torch.Generator().manual_seed(0)
    weights = {"W_enc": torch.randn(3, 4, generator=g), "b_enc": torch.randn(4, generator=g)}
    weights |= {"W_dec": torch.randn(4, 3, generator=g), "b_dec": torch.randn(3, generator=g)}
    return Sae(SITE, TopK(2), scale=2.0, made_by={"subject": "tiny", "k": 2}, **weights)


def _read_sae(folder: Path) -> Any:
    sae = load_sae(folder, site=None)
    said = {name: _numbers(x) for name, x in sae.state_dict().items()}
    return repr([sae.site, sae.scale, sae.activation, dict(sae.made_by), sorted(said.items())])


def _edit() -> Edit:
    low = LowRank(torch.arange(3.0)[:, None], torch.arange(2.0)[:, None])
    columns = Columns(torch.tensor([0, 2]), torch.arange(4.0).view(2, 2), 5)
    deltas = {
        "unet/a:weight": low,
        "unet/b:weight": Sum((columns, columns)),
        "unet/c:bias": Shift(torch.arange(3.0)),
    }
    return Edit("uce", "camel", deltas, "f" * 64, {"method": "uce", "options": {"rate": 0.5}})


def _read_edit(folder: Path) -> Any:
    edit = Edit.load(folder)
    deltas = {w: [d.describe(), {n: _numbers(x) for n, x in d.tensors().items()}] for w, d in edit.deltas.items()}
    return repr([edit.name, edit.concept, edit.base_hash, edit.made_by, sorted(deltas.items())])


def _write_found(folder: Path) -> None:
    score = Score("auroc", 0.9, 0.8, 1.0, 12, "", "higher", 0.5)
    basis = torch.eye(3)[:, :2]
    save_found(
        [Subspace(SITE, basis, "activation", score, "camel", "mid", torch.ones(3), None, (), None, (score, score))],
        folder,
    )


def _read_found(folder: Path) -> Any:
    return repr([[s.site, s.space, s.score, s.concept, s.role, s.features, s.scores, *map(_numbers, (s.basis, s.mean, s.dual))]
                 for s in load_found(folder)])  # fmt: skip


def _write_rows(folder: Path) -> None:
    store = RowStore(folder / "rows.jsonl")
    for i in range(3):
        store.append(SweepRow(f"key{i}", "uce", "camel", "none", i, "done", {"after": {"target": [i, 4]}}, "", 1.5))


def _write_state(folder: Path) -> None:
    about = {"settings": json.dumps({"k": 2}), "precision": "full", "first": "ab" * 32, "step": "40"}
    write_sealed(folder / "training.safetensors", {"idle": torch.arange(4), "encoder": torch.ones(4, 3)}, about)


def _read_state(folder: Path) -> Any:
    tensors, metadata = read_tensors(folder / "training.safetensors", "train again", sealed=True)
    return repr([sorted(metadata.items()), sorted((n, _numbers(x)) for n, x in tensors.items())])


def _write_concept(folder: Path) -> None:
    (folder / "pictures").mkdir(parents=True)
    picture = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    picture.save(folder / "pictures" / "one.png")
    save_concept(tiny_concept(), folder / "concept.json")
    data = json.loads((folder / "concept.json").read_text(encoding="utf-8"))
    (folder / "concept.json").write_text(json.dumps({**data, "examples": "pictures"}))


def _read_concept(folder: Path) -> Any:
    found = load_concept(folder / "concept.json")
    return repr([found, _numbers(found.examples)])


def _write_report(folder: Path) -> None:
    folder.mkdir()
    (folder / "report.json").write_text(to_json(report()), encoding="utf-8")


def _read_report(folder: Path) -> Any:
    path = folder / "report.json"
    return to_json(from_json(read_text(path, "audit again"), path))


def _write_attention(folder: Path) -> None:
    prompts = [Prompt("a cat", "cat"), Prompt("the dog and the sun"), Prompt("red")]
    attention_maps(
        tiny_sd(), prompts, folder=folder, layers=ATTENDED, sampling=Sampling(steps=1, guidance=0.0, batch=2)
    )


def _read_attention(folder: Path) -> Any:
    maps = load_attention(folder)
    told = [maps.subject, maps.weight_hash, maps.queries, maps.layers, maps.steps, maps.grids, maps.sigmas, maps.points]
    each = [
        [maps.places(i), _numbers(maps.picture(i)), _numbers(maps.kind("eos", MapChoice(query=i)))]
        + [_numbers(maps.of(word, which=MapChoice(query=i))) for word in maps.words(i)]
        for i in range(len(maps))
    ]
    return repr([told, maps.branches, maps.measure, each])


ATTENDED = ["mid_block.attentions.0.transformer_blocks.0.attn2"]

FORMATS: dict[str, FileFormat] = {
    "store manifest": FileFormat(_write_store, "manifest.json", _read_store),
    "shard": FileFormat(_write_store, "000000.safetensors", _read_store),
    "autoencoder's configuration": FileFormat(lambda f: save_sae(_sae(), f), "cfg.json", _read_sae),
    "autoencoder's weights": FileFormat(lambda f: save_sae(_sae(), f), "sae_weights.safetensors", _read_sae),
    "training state": FileFormat(_write_state, "training.safetensors", _read_state),
    "found": FileFormat(_write_found, "found.json", _read_found),
    "tensors of found": FileFormat(_write_found, "found.safetensors", _read_found),
    "edit": FileFormat(lambda f: _edit().save(f), "edit.json", _read_edit),
    "tensors of an edit": FileFormat(lambda f: _edit().save(f), "edit.safetensors", _read_edit),
    "rows of a sweep": FileFormat(
        _write_rows, "rows.jsonl", lambda f: repr(sorted(RowStore(f / "rows.jsonl").rows().items())), grows=True
    ),
    "attention maps": FileFormat(_write_attention, "attention.json", _read_attention),
    "attention maps of a batch": FileFormat(_write_attention, "00001.safetensors", _read_attention),
    "report": FileFormat(_write_report, "report.json", _read_report),
    "concept": FileFormat(_write_concept, "concept.json", _read_concept, sealed=False),
    "picture": FileFormat(_write_concept, "pictures/one.png", _read_concept, sealed=False),
}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The file after one of the things that can happen to it."""
    kind = chance.choice(("flip", "flip", "cut", "json", "json", "json", "text", "empty", "deep", "tail"))
    if kind == "json" and (altered := _altered_json(data, chance)) is not None:
        return altered
    if kind == "cut":
        return data[: chance.randrange(len(data))]
    if kind == "text":
        return data[: chance.randrange(len(data))] + b"\xff\xfe\x00" + data[chance.randrange(len(data)) :]
    if kind == "empty":
        return b""
    if kind == "deep":
        return b"[" * 100_000 + b"]" * 100_000
    if kind == "tail":
        return data + chance.choice((b"\x00" * 8, b"{}", b"\n\n", data))
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 4))):
        out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def _altered_json(data: bytes, chance: random.Random) -> bytes | None:
    """A JSON file, or one line of JSON lines, or the header of a safetensors file, with one value changed."""
    lines = data.split(b"\n") if data.count(b"\n{") else [data]
    at = chance.randrange(len(lines))
    head = b""
    try:
        value = json.loads(lines[at])
    except ValueError:
        return None
    places: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        one = todo.pop()
        for key in one if isinstance(one, dict) else range(len(one)):
            places.append((one, key))
            if isinstance(one[key], dict | list):
                todo.append(one[key])
    if not places:
        return None
    inside, key = chance.choice(places)
    what = chance.choice(("remove", "retype", "nudge", "add", "huge", "nan"))
    old = inside[key]
    if what == "remove":
        del inside[key]
    elif what == "retype":
        inside[key] = chance.choice((None, True, 5, -1, "x", [], {}, [old], {"a": old}, "../../x", "\x00"))
    elif what == "nudge":
        number = isinstance(old, int | float) and not isinstance(old, bool)
        inside[key] = old + 1 if number else not old if isinstance(old, bool) else f"{old}x"
    elif what == "add":
        inside.update(extra=1) if isinstance(inside, dict) else inside.append(old)
    else:
        inside[key] = 10**400 if what == "huge" else float("nan")
    lines[at] = head + json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)
