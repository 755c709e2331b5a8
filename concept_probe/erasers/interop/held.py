"""What lies at a path: the tensors of an adapter, of a checkpoint or of a folder, and what stands beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from concept_probe.erasers.interop.peft_config import AdapterConfig
from concept_probe.families.files import refuse_outside
from concept_probe.families.reading import variant_of
from concept_probe.storage import PICKLES, CorruptFile, MissingFile, WrongFile, parse_json, read_json, read_tensors
from concept_probe.storage.plain_pickles import read_plain_pickle

_MEND = "get the file again"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
PIPELINE_ADAPTER = "pytorch_lora_weights.safetensors"
TOLD_BY_DIFFUSERS = "lora_adapter_metadata"
"""Key of a file's metadata under which diffusers keeps the configuration of each component's adapter."""


@dataclass(frozen=True)
class HeldFiles:
    """Tensors that were read together."""

    path: Path
    """The file, or the folder where they were several."""
    tensors: Mapping[str, Tensor]
    files: tuple[Path, ...]
    configs: Mapping[str, AdapterConfig] = field(default_factory=dict)
    """What is said of the strength of adapters, by component; under "" of whichever it is."""
    component: str | None = None
    """The component that a folder is called after."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Configurations that stand beside a whole component, by its name."""
    by_peft: bool = False
    """Whether peft wrote them: their strength stands in the configuration."""


def held_at(path: Path, components: tuple[str, ...]) -> list[HeldFiles]:
    """All that a path holds of the named components. MissingFile, WrongFile and CorruptFile for what can't be read."""
    if path.is_file():
        return [_file(path)]
    if not path.is_dir():
        raise MissingFile(f"{path} not found; give a file of weights, or a folder with one")
    if (path / ADAPTER_CONFIG).is_file():
        return [_adapter_folder(path, None)]
    parts = [name for name in components if (path / name).is_dir()]
    adapters = [name for name in parts if (path / name / ADAPTER_CONFIG).is_file()]
    bare = [name for name in parts if name not in adapters and any((path / name / f).is_file() for f in ADAPTER_FILES)]
    if bare:
        raise MissingFile(
            f"{path / bare[0]} holds an adapter and no {ADAPTER_CONFIG}, which says how strong it acts; {_MEND}"
        )
    if adapters:
        return [_adapter_folder(path / name, name) for name in adapters]
    if (path / "model_index.json").is_file():
        return [_component_folder(path / name, name) for name in parts if _weights_in(path / name)]
    if (path / PIPELINE_ADAPTER).is_file():
        return [_file(path / PIPELINE_ADAPTER)]
    if (path / "config.json").is_file():
        return [_component_folder(path, None)]
    found = _weights_in(path)
    if len(found) != 1:
        names = ", ".join(p.name for p in found[:4]) or "none"
        raise WrongFile(
            path, f"no folder of an adapter or a model, with {len(found)} files of weights ({names})", "name one"
        )
    return [_file(found[0])]


def _file(path: Path) -> HeldFiles:
    if path.name in ADAPTER_FILES and (path.parent / ADAPTER_CONFIG).is_file():
        return _adapter_folder(path.parent, None)
    if _pickled(path):
        return HeldFiles(path, read_plain_pickle(path), (path,))
    tensors, metadata = read_tensors(path, _MEND)
    return HeldFiles(path, tensors, (path,), dict(_configs(path, metadata)))


def _pickled(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    return path.suffix in PICKLES or start[:2] in (b"PK", b"\x80\x02")


def _configs(path: Path, metadata: Mapping[str, str]) -> Iterator[tuple[str, AdapterConfig]]:
    """The configurations that diffusers keeps in a file, by component."""
    text = metadata.get(TOLD_BY_DIFFUSERS)
    if text is None:
        return
    said = parse_json(text, path, _MEND)
    if not isinstance(said, dict):
        raise CorruptFile(path, f"{TOLD_BY_DIFFUSERS} in its metadata is a {type(said).__name__}, not a table", _MEND)
    own: dict[str, dict[str, Any]] = {}
    for key, value in said.items():
        component, _, name = key.partition(".")
        own.setdefault(component, {})[name] = value
    for component, table in own.items():
        yield component, AdapterConfig.parsed(path, table)


def _adapter_folder(folder: Path, component: str | None) -> HeldFiles:
    config = AdapterConfig.read(folder / ADAPTER_CONFIG)
    place = next((folder / name for name in ADAPTER_FILES if (folder / name).is_file()), None)
    if place is None:
        raise MissingFile(f"{folder} holds {ADAPTER_CONFIG} and no {ADAPTER_FILES[0]}; {_MEND}")
    tensors = read_plain_pickle(place) if _pickled(place) else read_tensors(place, _MEND)[0]
    return HeldFiles(folder, tensors, (place, folder / ADAPTER_CONFIG), {"": config}, component, by_peft=True)


def _component_folder(folder: Path, component: str | None) -> HeldFiles:
    """Weights of one model, in however many files; in the variant that is there alone, or in that without a name."""
    refuse_outside(folder)
    variant, files = variant_of(folder), _weights_in(folder)
    safe = [p for p in files if p.suffix == ".safetensors"]
    mark = "" if variant is None else f".{variant}"
    mine = [p for p in safe if _is_of(p.name, mark)] or safe or files
    if not mine:
        raise MissingFile(f"{folder} holds no weights; {_MEND}")
    tensors: dict[str, Tensor] = {}
    for place in mine:
        more = read_plain_pickle(place) if _pickled(place) else read_tensors(place, _MEND)[0]
        twice = sorted(set(tensors) & set(more))
        if twice:
            names = ", ".join(p.name for p in mine)
            raise WrongFile(
                folder, f"{twice[0]!r} stands in several of its files ({names})", "name the one that is meant"
            )
        tensors |= more
    config = folder / "config.json"
    said = {component or "": read_json(config, _MEND)} if config.is_file() else {}
    return HeldFiles(folder, tensors, tuple(mine), component=component, settings=said)


def _is_of(name: str, mark: str) -> bool:
    """Whether a file is of a variant; `mark` is "" for those without a name."""
    stem = name.removesuffix(".safetensors").partition("-0")[0]
    return stem in (f"model{mark}", f"diffusion_pytorch_model{mark}")


def _weights_in(folder: Path) -> list[Path]:
    found = [p for p in folder.iterdir() if p.is_file() and p.suffix in (".safetensors", *PICKLES)]
    return sorted(found)


def as_json(value: Any) -> Any:
    """A value of a configuration as JSON has it, for comparing."""
    return json.loads(json.dumps(value, default=str))
