"""From a name, a folder or a hub id to a subject."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from concept_probe.families.subject import Subject
from concept_probe.families.unet import UNetSubject
from concept_probe.registry import UnknownName, look_up

PIPELINES: dict[str, type[UNetSubject]] = {
    "StableDiffusionPipeline": UNetSubject,
    "StableDiffusionXLPipeline": UNetSubject,
}
"""Class name in a pipeline's model_index.json to its family."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def load(
    source: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Subject:
    """A subject from the name of a shipped model, a folder that `save_pretrained` wrote, or a hub id `owner/name`.

    >>> subject = load("emoji")
    >>> subject = load("stable-diffusion-v1-5/stable-diffusion-v1-5", dtype=torch.float16, device="cuda")

    Weights come from safetensors only and are cast to `dtype`. Raises UnknownName for a name that nothing has,
    FileNotFoundError for a folder or hub id that cannot be read, ValueError for pickled weights or an unfit pipeline.
    """
    name, place, local = _resolve(source)
    try:
        index = diffusers.DiffusionPipeline.load_config(place, local_files_only=local)
    except (OSError, ValueError) as problem:
        raise _unreadable(source, local, problem) from problem
    if not isinstance(index, Mapping):
        raise ValueError(f"{source}: model_index.json holds a {type(index).__name__}, not a table of components")
    kind = str(index.get("_class_name"))
    family = look_up(PIPELINES, kind, "pipeline class", f"{source} declares it in model_index.json")
    if local:
        _refuse_pickles(Path(place), index)
    without = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    left_out = {k: v for k, v in without.items() if k in index}
    try:
        with _quiet():
            pipeline = _pipeline_class(kind).from_pretrained(
                place, dtype=dtype, use_safetensors=True, local_files_only=local, **left_out
            )
    except (OSError, ValueError) as problem:
        raise _unreadable(source, local, problem) from problem
    if dtype == torch.float16 and pipeline.vae.config.force_upcast:
        pipeline.vae.to(torch.float32)  # its activations overflow in float16
    return adopt(pipeline.to(device) if device is not None else pipeline, name, family)


def adopt(pipeline: Any, name: str, family: type[UNetSubject] = UNetSubject) -> UNetSubject:
    """A subject around a pipeline that is already in memory; its modules go to evaluation mode without gradients.

    Raises ValueError for a pipeline that lacks a part, or is distilled for a guidance embedding.
    """
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
    return family(name, pipeline)


def _resolve(source: str | Path) -> tuple[str, str, bool]:
    """Name, place, and whether the place is a local folder."""
    from concept_probe import testbed

    text = str(source)
    if text in testbed.NAMES:
        return text, str(testbed.folder(text)), True
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder.resolve().name, str(folder), True
    if isinstance(source, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise FileNotFoundError(f"folder {text!r} not found; give a folder that save_pretrained wrote")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise UnknownName("subject", text, testbed.NAMES, "or give a folder, or a hub id owner/name")
    return text, text, False


def _unreadable(source: str | Path, local: bool, problem: Exception) -> FileNotFoundError:
    said = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
    if local:
        mend = "it must hold model_index.json and a folder of safetensors per component, as save_pretrained writes"
    else:
        mend = (
            "check the spelling and the network; without one (or with HF_HUB_OFFLINE set) the model must be in the "
            "local cache, or give a folder instead; a gated model needs `hf auth login`; weights must be safetensors"
        )
    what = "folder" if local else "hub id"
    return FileNotFoundError(f"{what} {str(source)!r} could not be loaded: {said}; {mend}")


def _refuse_pickles(folder: Path, index: Mapping[str, Any]) -> None:
    for component in index:
        part = folder / component
        if not part.is_dir() or any(part.glob("*.safetensors")):
            continue
        pickled = sorted(p.name for p in part.iterdir() if p.suffix in PICKLES)
        if pickled:
            raise ValueError(
                f"{part} holds its weights as a pickle ({pickled[0]}), which can run code when it is opened, and is "
                "refused; convert it where you trust it: pipeline.save_pretrained(folder, safe_serialization=True)"
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
