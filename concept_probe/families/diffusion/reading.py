"""Read a pipeline of diffusers, component by component, so that it is known what its files lack."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from concept_probe.families.files import refuse_outside
from concept_probe.families.reading import Mismatch, ModelSource, opened, refuse_pickles, variant_of
from concept_probe.storage import inside

LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
"""Components that no picture from a text needs."""
COMPONENT_LIBRARIES = ("diffusers", "transformers")
_KNOWN_LIBRARIES = (*COMPONENT_LIBRARIES, "stable_diffusion", "k_diffusion")
"""Those that a pipeline's components may be of: the last two are modules of diffusers itself."""


def pipeline_index(source: ModelSource) -> Mapping[str, Any]:
    """model_index.json: the pipeline's class, `_class_name`, and per component its library and class.

    Raises ValueError where one of them is code that the pipeline brings, FileNotFoundError for what can't be read.
    """
    with opened(source):
        index = diffusers.DiffusionPipeline.load_config(source.place, local_files_only=source.local)
    if not isinstance(index, Mapping):
        raise ValueError(f"{source.place}: model_index.json holds a {type(index).__name__}, not a table of components")
    if not isinstance(index.get("_class_name"), str):
        raise source.foreign(f"the pipeline {index.get('_class_name')!r} in model_index.json")
    for component, entry in index.items():
        library = entry[0] if isinstance(entry, list | tuple) and len(entry) == 2 else None
        if isinstance(library, str) and library not in _KNOWN_LIBRARIES and component not in LEFT_OUT:
            raise source.foreign(f"{component!r} in model_index.json is {entry[1]} of {library}")
    return index


def read_pipeline(source: ModelSource) -> tuple[Any, list[Mismatch]]:
    """The pipeline at a place, and how each of its components differs from its files.

    Raises ValueError for weights in a pickle, WrongFile where a file outside the folder is named, FileNotFoundError for what can't be read.
    """
    index = pipeline_index(source)
    if source.local:
        refuse_pickles(Path(source.place), [str(c) for c in index if (Path(source.place) / str(c)).is_dir()])
    models: dict[str, Any] = {name: None for name in LEFT_OUT if name in index}
    found: list[Mismatch] = []
    with opened(source):
        folder = Path(source.place if source.local else _downloaded(source.place))
    for component in index:
        if not component.startswith("_"):
            refuse_outside(inside(folder, component, "the component in model_index.json", links=True))
    variants = {c: variant_of(folder / c) for c in index if (folder / c).is_dir()}
    own_code: dict[str, Any] = {"dtype": source.dtype, "local_files_only": True, "trust_remote_code": False}
    with opened(source):
        for component, entry in index.items():
            model = _model_class(entry) if component not in models else None
            if model is not None:
                options = own_code | {"variant": variants[component]} if variants.get(component) else own_code
                models[component], info = model.from_pretrained(
                    folder / component, use_safetensors=True, output_loading_info=True, **options
                )
                found.append(Mismatch.of(component, info))
        pipeline = _pipeline_class(str(index["_class_name"])).from_pretrained(folder, **own_code, **models)
    if source.dtype == torch.float16 and getattr(pipeline.vae.config, "force_upcast", False):
        pipeline.vae.to(torch.float32)  # its activations overflow in float16
    return (pipeline if source.device is None else pipeline.to(source.device)), found


def _downloaded(hub_id: str) -> str:
    """The folder in the local cache that the hub's files are in."""
    options: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
    try:
        return str(diffusers.DiffusionPipeline.download(hub_id, **options))
    except (OSError, ValueError):
        try:  # what many publish instead of files without a variant
            return str(diffusers.DiffusionPipeline.download(hub_id, variant="fp16", **options))
        except (OSError, ValueError):
            pass
        raise


def _model_class(entry: Any) -> Any:
    """The class of a component that holds weights; None for any other."""
    if not isinstance(entry, list | tuple) or len(entry) != 2 or entry[0] not in COMPONENT_LIBRARIES:
        return None
    found = getattr(importlib.import_module(entry[0]), str(entry[1]), None)
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


def _pipeline_class(kind: str) -> Any:
    """The pipeline class; importing it makes transformers remark on image libraries that nothing here uses."""
    logs = transformers.utils.logging
    level = logs.get_verbosity()
    try:
        logs.set_verbosity_error()
        return getattr(diffusers, kind)
    finally:
        logs.set_verbosity(level)
