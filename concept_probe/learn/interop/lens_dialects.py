"""Configurations of sae-lens, of every version, in the words of version 6."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from concept_probe.learn.interop.keys import OFF

TODAY = 6
BLOCK = re.compile(r"(?:^|\.)(?:blocks?|layers?|h)\.(\d+)(?:\.|$)")
"""The number of a block in the name of a place."""
RENAMED = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index"}
ACTIVATIONS = ("relu", "topk")
"""What the activation may be called before version 6; `topk` alone decides the architecture."""


def ours_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `save_sae` added to the configuration; empty for files of sae-lens itself."""
    metadata = config.get("metadata")
    ours = metadata.get("concept_probe") if isinstance(metadata, Mapping) else None
    return ours if isinstance(ours, Mapping) else {}


def in_todays_words(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The configuration as version 6 would have written it; `metadata` is laid flat.

    ValueError where two keys contradict each other, or the activation is not known.
    """
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise ValueError(f"{where}: metadata is {metadata!r} in the configuration; an object is needed")
    version = config.get("sae_lens_version") or metadata.get("sae_lens_version")
    flat = {**{k: v for k, v in config.items() if k != "metadata"}, **_beside(config, metadata)}
    flat = {RENAMED.get(key, key): value for key, value in flat.items()}
    activation = _activation(flat, where)
    _refuse_two_layers(flat, where)
    if activation is not None and activation[0] == "relu" and flat.get("architecture") == "topk":
        raise ValueError(
            f"{where}: the activation is 'relu' and architecture is 'topk', which versions before {TODAY} and after read as "
            "different codes; nothing was loaded: take out whichever is wrong"
        )
    if _major(version, where) < TODAY:
        return _from_before(flat, activation, where)
    if activation is not None and activation[0] == "topk" and flat.get("architecture") != "topk":
        raise ValueError(
            f"{where}: the activation is 'topk' and architecture is {flat.get('architecture')!r}, which in version "
            f"{version} decides alone; nothing was loaded: take out whichever is wrong"
        )
    return flat


def _refuse_two_layers(flat: Mapping[str, Any], where: str) -> None:
    """ValueError where `hook_layer` is not the block that `hook_name` names."""
    hook, layer = flat.get("hook_name"), flat.get("hook_layer")
    named = BLOCK.search(hook) if isinstance(hook, str) else None
    if named is not None and layer is not None and str(layer) != str(int(named[1])):
        raise ValueError(
            f"{where}: hook_name is {hook!r} and hook_layer is {layer!r}, another block; nothing was loaded: correct whichever is "
            "wrong"
        )


def _beside(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata under names that the configuration itself doesn't have."""
    return {key: value for key, value in metadata.items() if key not in config}


def _major(version: object, where: str) -> int:
    if version in OFF:
        return 0
    head = str(version).split(".", 1)[0]
    if not head.isdigit():
        raise ValueError(f"{where}: sae_lens_version is {version!r}, which is no version")
    return int(head)


def _activation(flat: dict[str, Any], where: str) -> tuple[str, int | None] | None:
    """The activation's name and its k, taken out of `flat`; None where the configuration says nothing of it."""
    names = [flat.pop(key) for key in ("activation_fn", "activation_fn_str") if flat.get(key) is not None]
    options = flat.pop("activation_fn_kwargs", None) or {}
    for name in names:
        if name not in ACTIVATIONS or name != names[0]:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"{where}: the activation is {' and '.join(map(repr, names))}; known: {known}")
    if not isinstance(options, Mapping):
        raise ValueError(f"{where}: activation_fn_kwargs is {options!r} in the configuration; an object is needed")
    for key, value in options.items():
        if key != "k" and value not in OFF and not (key == "postact_fn" and "relu" in str(value).lower()):
            raise ValueError(
                f"{where}: activation_fn_kwargs has {key} {value!r}, which is not known; nothing was loaded"
            )
    if not names:
        return ("topk", options["k"]) if options.get("k") is not None else None
    return names[0], options.get("k")


def _from_before(flat: dict[str, Any], activation: tuple[str, int | None] | None, where: str) -> dict[str, Any]:
    new = {"architecture": "standard", **flat}
    if new["architecture"] is None:
        new["architecture"] = "standard"
    name, k = activation or (None, None)
    if name == "topk":
        if new["architecture"] not in ("standard", "topk"):
            raise ValueError(
                f"{where}: the activation is 'topk' and architecture is {new['architecture']!r}; nothing was loaded"
            )
        new["architecture"] = "topk"
    if k is not None:
        if new.get("k") not in (None, k):
            raise ValueError(f"{where}: k is {new['k']!r} and activation_fn_kwargs has k {k!r}; nothing was loaded")
        new["k"] = k
    old = new.get("normalize_activations")
    if old is None or isinstance(old, bool):
        new["normalize_activations"] = "expected_average_only_in" if old else "none"
    return new
