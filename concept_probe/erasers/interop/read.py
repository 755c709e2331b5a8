"""An edit from a file of others: an adapter, a checkpoint, a folder of either."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from concept_probe.erasers.erasure.deltas import Delta, Sum
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import find_parameter, split_address
from concept_probe.erasers.interop.changes import changes
from concept_probe.erasers.interop.fit import Placed, placed_groups
from concept_probe.erasers.interop.groups import ModuleGroup, grouped
from concept_probe.erasers.interop.held import ADAPTER_CONFIG, PIPELINE_ADAPTER, HeldFiles, as_json, held_at
from concept_probe.erasers.interop.places import every_parameter
from concept_probe.storage import WrongFile, file_sha256, read_json

if TYPE_CHECKING:
    from concept_probe.families import Subject

FAR = 0.5
"""Share of a model's weights, by norm, above which a checkpoint is rather another model than an edit of this one."""


def read_edit(path: str | Path, subject: Subject, *, concept: str = "", component: str | None = None) -> Edit:
    """What a file or folder of others makes of `subject`, as an edit of it.

    >>> edit = read_edit("church.safetensors", subject, concept="church")
    >>> with edit.on(subject): ...

    Adapters: of diffusers, kohya, ComfyUI, LyCORIS and peft, with their α, their convolutions and their DoRA. Whole weights:
    a state dict of one component, a checkpoint of one file, a component's or a model's folder; of those the edit is the
    difference from the subject's own. What it is is told by the names and shapes of its tensors. A folder that `Edit.save`
    wrote is loaded as it is. `component` says which is meant where names don't and several fit.

    Raises ValueError naming what has no place in the subject, or does not fit it, and where nothing of it would change;
    WrongFile for a kind of adapter that isn't read and for a pickle that holds more than tensors; MissingFile and
    CorruptFile as all reading does. Warns of what an edit can't hold: another schedule, a tokenizer.
    """
    place = Path(path).expanduser()
    if (place / "edit.json").is_file():
        return Edit.load(place)
    helds = held_at(place, tuple(subject.components))
    if not helds:
        raise WrongFile(place, f"it holds weights of none of {', '.join(subject.components)}", "give the base it is of")
    deltas: dict[str, Delta] = {}
    read: dict[str, int] = {"tensors": 0, "beside": 0}
    namings: list[str] = []
    for held in helds:
        groups, found = _fitted(held, subject, component)
        for where, delta in _deltas(held, groups, found, subject):
            deltas[where] = Sum((deltas[where], delta)) if where in deltas else delta
        read["tensors"] += len(held.tensors)
        read["beside"] += len(found.beside)
        namings.append(found.naming)
        if any(name.startswith("model_ema.") for name in found.beside):
            warnings.warn(
                f"{held.path.name} holds averages of its weights too (model_ema); the weights themselves are taken",
                stacklevel=2,
            )
        _warn_of_settings(held, found, subject)
    _warn_of_schedule(place, subject)
    _refuse_another(place, deltas, subject)
    if not deltas:
        raise ValueError(
            f"{place.name} changes nothing of {subject.name!r}: every weight in it is the subject's own, or a change of zero; it "
            "is the base itself, or was saved before training"
        )
    kind = "adapter" if all(not _is_whole(held) for held in helds) else "whole weights"
    made_by = {
        "method": "file",
        "file": place.name,
        "kind": kind,
        "names": " + ".join(dict.fromkeys(namings)),
        "sha256": {_below(place, file): file_sha256(file) for held in helds for file in held.files},
        **read,
    }
    if kind == "whole weights":
        made_by["share"] = _share(deltas, subject)
        _warn_of_distance(place, made_by["share"], subject)
    name = place.stem.replace("+", "-") or "file"
    return Edit(name, concept, deltas, subject.weight_hash(), made_by)


def _refuse_another(place: Path, deltas: Mapping[str, Delta], subject: Subject) -> None:
    """WrongFile where the file for pipelines that lies beside folders of peft is another adapter than they are."""
    beside = place / PIPELINE_ADAPTER
    if not beside.is_file() or not any((place / name / ADAPTER_CONFIG).is_file() for name in subject.components):
        return
    for where, delta in read_edit(beside, subject).deltas.items():
        zero = torch.zeros_like(find_parameter(subject.components, where), dtype=torch.float32)
        one, other = delta.apply(zero), deltas[where].apply(zero) if where in deltas else zero
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max())):
            check = f"{beside.name} in it changes {where!r} in another way than the folders beside it"
            raise WrongFile(place, check, "name the one that is meant")


def _below(place: Path, file: Path) -> str:
    return file.name if file == place or not place.is_dir() else file.relative_to(place).as_posix()


def _fitted(held: HeldFiles, subject: Subject, component: str | None) -> tuple[list[ModuleGroup], Placed]:
    told = held.path.name
    groups = list(grouped(held.tensors.items()).values())
    found = placed_groups(groups, subject, told, component or held.component)
    if held.settings:
        _refuse_parts(held, found, subject)
    if held.by_peft:
        _refuse_broken_promises(held, found, subject)
    groups = [g for g in groups if all((g.stem, leaf) in found.places for _, leaf in g.names())]
    peft_names = any(key.startswith("base_model.model.") for key in held.tensors)
    if peft_names and not held.by_peft and any(g.is_adapter for g in groups):
        raise WrongFile(
            held.path,
            "an adapter by peft without its adapter_config.json, which says how strong it acts",
            "give the folder with both",
        )
    return groups, found


def _refuse_parts(held: HeldFiles, found: Placed, subject: Subject) -> None:
    """WrongFile for a folder of a whole component that lacks some of its weights: those would stay as they are."""
    named = {piece.where for pieces in found.places.values() for piece in pieces}
    for component in {split_address(where)[0] for where in named}:
        module = subject.components[component]
        lacking = [where for _, where, _ in every_parameter(component, module) if where not in named]
        if lacking:
            check = f"its files hold no {lacking[0]!r}, nor {len(lacking) - 1} other weights of {component}"
            raise WrongFile(held.path, check, "get the folder again, whole")


def _refuse_broken_promises(held: HeldFiles, found: Placed, subject: Subject) -> None:
    """WrongFile for a folder of peft whose configuration promises other tensors than it holds."""
    spoken = [split_address(piece.where) for pieces in found.places.values() for piece in pieces]
    for component in dict.fromkeys(name for name, _ in spoken):
        names = [name for name, _ in subject.components[component].named_parameters(remove_duplicate=False)]
        modules = [name.rpartition(".")[0] for name in names if name.endswith(".weight")]
        biases = [name for name in names if name.endswith(".bias")]
        own = {name for other, name in spoken if other == component}
        for config in held.configs.values():
            config.promise.refuse_broken(held.path, modules, own, biases)


def _deltas(held: HeldFiles, groups: list[ModuleGroup], found: Placed, subject: Subject) -> list[tuple[str, Delta]]:
    out: list[tuple[str, Delta]] = []
    told: dict[tuple[str, Any], Delta] = {}
    for group in groups:
        for _, leaf in group.names():
            pieces = found.places[group.stem, leaf]
            scale = _scale(held, group, pieces[0].where)
            for piece, delta in changes(group, leaf, pieces, subject, scale):
                if not _said_before(told, piece.where, piece.at, delta, group):
                    told[piece.where, piece.at] = delta
                    out.append((piece.where, delta))
    return out


def _said_before(told: dict[tuple[str, Any], Delta], where: str, at: Any, delta: Delta, group: ModuleGroup) -> bool:
    """Whether a tied parameter, which a file may hold under each of its names, was met already. ValueError for two values."""
    if (where, at) not in told:
        return False
    before, now = told[where, at].tensors(), delta.tensors()
    if before.keys() == now.keys() and all(torch.equal(x, now[name]) for name, x in before.items()):
        return True
    raise ValueError(
        f"{group.keys[0]!r} and another part of the file both change {where!r}, and differ; nothing was taken"
    )


def _scale(held: HeldFiles, group: ModuleGroup, where: str) -> float | None:
    """What a configuration says of the strength of one module's adapter."""
    component, name = split_address(where)
    config = held.configs.get("") or held.configs.get(component)
    if config is None or not group.is_adapter:
        return None
    if config.with_magnitudes and "up" in group.tensors and not {"magnitude", "magnitude_out"} & set(group.tensors):
        raise ValueError(
            f"the configuration says that the adapter is a DoRA, and {group.stem!r} has no magnitude; get the files again"
        )
    path = name.rpartition(".")[0]
    file_path = group.stem.removeprefix("base_model.model.").removeprefix(f"{component}.")
    return config.scale(file_path if file_path.endswith(path) else path, _rank(group))


def _rank(group: ModuleGroup) -> int | None:
    """Of what it is a product of; None where none of its tensors tells."""
    names = ("down", "embedding_down", "hada_w1_b")
    return next((len(group.tensors[name]) for name in names if name in group.tensors), None)


def _is_whole(held: HeldFiles) -> bool:
    return not any(g.is_adapter for g in grouped(held.tensors.items()).values())


def _share(deltas: Mapping[str, Delta], subject: Subject) -> float:
    """|change| / |weights| over the components that are changed."""
    changed = sum(float(x.double().square().sum()) for d in deltas.values() for x in d.tensors().values())
    touched = {split_address(where)[0] for where in deltas}
    weights = sum(float(x.double().square().sum()) for c in touched for x in subject.components[c].parameters())
    return math.sqrt(changed / max(weights, 1e-30))


def _warn_of_distance(place: Path, share: float, subject: Subject) -> None:
    if share > FAR:
        warnings.warn(
            f"{place.name} differs from {subject.name!r} by {share:.0%} of its weights' norm: it is rather another model than "
            "an edit of this one; give the base that it was made from",
            stacklevel=3,
        )


def _warn_of_settings(held: HeldFiles, found: Placed, subject: Subject) -> None:
    """Say where the configuration beside whole weights is another than the subject's: an edit holds weights alone."""
    for component, said in held.settings.items():
        named = component or found.naming.rpartition(" of ")[2]
        config: Any = getattr(subject.components.get(named), "config", None)
        _say_differing(f"{held.path.name}/config.json", named, said, config)


def _warn_of_schedule(place: Path, subject: Subject) -> None:
    file = place / "scheduler" / "scheduler_config.json"
    if file.is_file():
        config = getattr(getattr(subject.pipeline, "scheduler", None), "config", None)
        _say_differing("scheduler/scheduler_config.json", "scheduler", read_json(file, "get the file again"), config)


_NOT_COMPARED = (
    "transformers_version",
    "torch_dtype",
    "dtype",
    "architectures",
    "model_type",
    "sample_size",
    "use_cache",
)


def _say_differing(file: str, what: str, said: Mapping[str, Any], config: Any) -> None:
    if config is None:
        return
    own = as_json(config.to_dict() if hasattr(config, "to_dict") else dict(config))
    differ = [
        f"{key} {value!r} for {own[key]!r}"
        for key, value in said.items()
        if not key.startswith("_") and key not in _NOT_COMPARED and key in own and own[key] != value
    ]
    if differ:
        warnings.warn(
            f"{file} differs from the subject's own {what} ({'; '.join(differ[:4])}); an edit holds weights alone, so the subject's "
            "stays. To audit the other as it is, load it, and give the base as `original`",
            stacklevel=3,
        )
