"""From a name, a folder or a hub id to a subject."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import diffusers
import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from concept_probe.families.diffusion.unet import UNetSubject
from concept_probe.families.gguf import converted
from concept_probe.families.language.causal_lm import CausalLMSubject, LanguageModel
from concept_probe.families.subject import Subject
from concept_probe.registry import UnknownName, look_up
from concept_probe.storage import PICKLES

PIPELINES: dict[str, type[UNetSubject]] = {
    "StableDiffusionPipeline": UNetSubject,
    "StableDiffusionXLPipeline": UNetSubject,
}
"""Class name in a pipeline's model_index.json to its family."""


def load(
    source: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Subject:
    """A subject from the name of a known model, a folder that `save_pretrained` wrote, a GGUF file, or a hub id.

    >>> subject = load("emoji")
    >>> subject = load("stable-diffusion-v1-5/stable-diffusion-v1-5", dtype=torch.float16, device="cuda")
    >>> subject = load("smollm2")

    Whether it is a pipeline or a language model is read from the folder: model_index.json or config.json. Weights
    come from safetensors, or from a GGUF file, which is converted once; they are cast to `dtype`. Raises UnknownName
    for a name that nothing has, FileNotFoundError for a folder or hub id that cannot be read, ValueError for pickled
    weights or a model that is built in another way.
    """
    from concept_probe import testbed

    text = str(source)
    if text in testbed.LANGUAGE_MODELS:
        return _language_model(text, *_smollm2(), dtype, device)
    if text.endswith(".gguf"):
        file = Path(text).expanduser()
        with _quiet():
            folder = converted(file)
        return _language_model(file.stem, folder, True, dtype, device)
    if text in testbed.EMBEDDED:
        return _pipeline(text, str(testbed.folder(text)), True, dtype, device)
    name, place, local = _resolve(source)
    if local and not (Path(place) / "model_index.json").is_file() and (Path(place) / "config.json").is_file():
        return _language_model(name, place, True, dtype, device)
    if not local and not _reachable(place, "model_index.json") and _reachable(place, "config.json"):
        return _language_model(name, place, False, dtype, device)
    return _pipeline(name, place, local, dtype, device)


@overload
def adopt(pipeline: LanguageModel, name: str) -> CausalLMSubject: ...
@overload
def adopt(pipeline: Any, name: str) -> UNetSubject: ...
def adopt(pipeline: Any, name: str) -> Subject:
    """A subject around a diffusers pipeline or a `LanguageModel` that is already in memory.

    Its modules go to evaluation mode without gradients. Raises ValueError for a pipeline that lacks a part or is
    distilled for a guidance embedding, and for a language model that is built in another way.
    """
    if isinstance(pipeline, LanguageModel):
        pipeline.model.eval().requires_grad_(False)
        return CausalLMSubject(name, pipeline)
    for part in ("text_encoder", "unet", "vae"):
        if getattr(pipeline, part, None) is None:
            raise ValueError(
                f"{name}: the pipeline has no {part}, which this family needs (refiners have no text_encoder)"
            )
    if getattr(pipeline.unet.config, "time_cond_proj_dim", None) is not None:
        raise ValueError(f"{name}: the U-Net reads a guidance embedding (time_cond_proj_dim), which is not supported")
    for module in pipeline.components.values():
        if isinstance(module, nn.Module):
            module.eval().requires_grad_(False)
    return UNetSubject(name, pipeline)


def _pipeline(name: str, place: str, local: bool, dtype: torch.dtype, device: torch.device | str | None) -> Subject:
    try:
        index = diffusers.DiffusionPipeline.load_config(place, local_files_only=local)
    except (OSError, ValueError) as problem:
        raise _unreadable(place, local, problem) from problem
    if not isinstance(index, Mapping):
        raise ValueError(f"{place}: model_index.json holds a {type(index).__name__}, not a table of components")
    kind = str(index.get("_class_name"))
    look_up(PIPELINES, kind, "pipeline class", f"{place} declares it in model_index.json")
    if local:
        refuse_pickles(Path(place), [str(c) for c in index if (Path(place) / str(c)).is_dir()])
    without = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    left_out = {k: v for k, v in without.items() if k in index}
    try:
        with _quiet():
            pipeline = _pipeline_class(kind).from_pretrained(
                place, dtype=dtype, use_safetensors=True, local_files_only=local, **left_out
            )
    except (OSError, ValueError) as problem:
        raise _unreadable(place, local, problem) from problem
    if dtype == torch.float16 and pipeline.vae.config.force_upcast:
        pipeline.vae.to(torch.float32)  # its activations overflow in float16
    return adopt(pipeline.to(device) if device is not None else pipeline, name)


def _language_model(
    name: str, place: str | Path, local: bool, dtype: torch.dtype, device: torch.device | str | None
) -> Subject:
    if local:
        refuse_pickles(Path(place), ["."])
    try:
        with _quiet():
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                place, dtype=dtype, use_safetensors=True, local_files_only=local
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=local)
    except (OSError, ValueError, SafetensorError) as problem:
        raise _unreadable(place, local, problem) from problem
    return adopt(LanguageModel(model.to(device) if device is not None else model, tokenizer), name)


def _smollm2() -> tuple[str, bool]:
    """Where SmolLM2 is, and whether that is a folder: converted from the installed package, or on the hub."""
    from concept_probe.testbed import smollm2

    file = smollm2.gguf_file()
    if file is not None:
        with _quiet():
            return str(converted(file)), True
    if not _reachable(smollm2.HUB_ID, "config.json"):
        raise FileNotFoundError(
            f"smollm2 is neither installed nor can the hub be reached; get it with {smollm2.HOW_TO_GET}"
        )
    return smollm2.HUB_ID, False


def _resolve(source: str | Path) -> tuple[str, str, bool]:
    """Name, place, and whether the place is a local folder."""
    from concept_probe import testbed

    text = str(source)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder.resolve().name, str(folder), True
    if isinstance(source, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise FileNotFoundError(f"folder {text!r} not found; give a folder that save_pretrained wrote")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise UnknownName(
            "subject",
            text,
            (*testbed.EMBEDDED, *testbed.LANGUAGE_MODELS),
            "or give a folder, or a hub id owner/name, or a GGUF file",
        )
    return text, text, False


def _reachable(hub_id: str, file: str) -> bool:
    """Whether the hub, or its local cache, has that file of a model."""
    try:
        return transformers.utils.cached_file(hub_id, file) is not None
    except (OSError, ValueError):
        return False


def _unreadable(source: str | Path, local: bool, problem: Exception) -> FileNotFoundError:
    said = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
    if local:
        mend = (
            "it must hold model_index.json and a folder of safetensors per component, or config.json, a tokenizer and "
            "safetensors of a language model, as save_pretrained writes"
        )
    else:
        mend = (
            "check the spelling and the network; without one (or with HF_HUB_OFFLINE set) the model must be in the "
            "local cache, or give a folder instead; a gated model needs `hf auth login`; weights must be safetensors"
        )
    what = "folder" if local else "hub id"
    return FileNotFoundError(f"{what} {str(source)!r} could not be loaded: {said}; {mend}")


def refuse_pickles(folder: Path, parts: Iterable[str]) -> None:
    """ValueError for the first of `parts`, folders inside `folder`, whose weights are a pickle and nothing else."""
    for name in parts:
        part = folder / name
        if any(part.glob("*.safetensors")):
            continue
        pickled = sorted(p.name for p in part.iterdir() if p.suffix in PICKLES)
        if pickled:
            raise ValueError(
                f"{part} holds its weights as a pickle ({pickled[0]}), which can run code when it is opened, and is "
                "refused; convert it where you trust it: save_pretrained(folder) of the pipeline or model"
            )


def _pipeline_class(kind: str) -> Any:
    """The pipeline class; importing it makes transformers remark on image libraries that nothing here uses."""
    logs = transformers.utils.logging
    level = logs.get_verbosity()
    try:
        logs.set_verbosity_error()
        return getattr(diffusers, kind)
    finally:
        logs.set_verbosity(level)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' loading bars off the terminal, and leave their settings as they were."""
    logs = (diffusers.utils.logging, transformers.utils.logging)
    shown = [log.is_progress_bar_enabled() for log in logs]
    try:
        for log in logs:
            log.disable_progress_bar()
        yield
    finally:
        for log, was in zip(logs, shown, strict=True):
            if was:
                log.enable_progress_bar()
