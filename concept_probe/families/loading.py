"""From a name, a folder or a hub id to a subject, and from a pipeline in memory: the two doors of the room."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, overload

import diffusers
import torch
import transformers

from concept_probe.families.check import check_subject
from concept_probe.families.diffusion.dit.aura_flow import AuraFlowSubject
from concept_probe.families.diffusion.dit.chroma import ChromaSubject
from concept_probe.families.diffusion.dit.flux import FluxSubject
from concept_probe.families.diffusion.dit.flux_2 import Flux2KleinSubject, Flux2Subject
from concept_probe.families.diffusion.dit.lumina_2 import Lumina2Subject
from concept_probe.families.diffusion.dit.pixart import PixArtAlphaSubject, PixArtSigmaSubject
from concept_probe.families.diffusion.dit.qwen_image import QwenImageSubject
from concept_probe.families.diffusion.dit.sana import SanaSubject
from concept_probe.families.diffusion.dit.stable_diffusion_3 import StableDiffusion3Subject
from concept_probe.families.diffusion.dit.z_image import ZImageSubject
from concept_probe.families.diffusion.reading import pipeline_index
from concept_probe.families.diffusion.sized import SizedSubject
from concept_probe.families.diffusion.unet import UNetSubject
from concept_probe.families.gguf import converted
from concept_probe.families.language.causal_lm import CausalLMSubject
from concept_probe.families.language.reading import LanguageModel
from concept_probe.families.quantised import refuse_packed
from concept_probe.families.reading import Mismatch, ModelSource, quiet
from concept_probe.families.subject import Subject
from concept_probe.registry import Registry, UnknownName, look_up

FAMILIES: Registry[type[Subject[Any]]] = Registry(
    "families",
    {
        "AuraFlowPipeline": AuraFlowSubject,
        "ChromaPipeline": ChromaSubject,
        "Flux2KleinPipeline": Flux2KleinSubject,
        "Flux2Pipeline": Flux2Subject,
        "FluxPipeline": FluxSubject,
        "LanguageModel": CausalLMSubject,
        "LatentConsistencyModelPipeline": UNetSubject,
        "Lumina2Pipeline": Lumina2Subject,
        "PixArtAlphaPipeline": PixArtAlphaSubject,
        "PixArtSigmaPipeline": PixArtSigmaSubject,
        "QwenImagePipeline": QwenImageSubject,
        "SanaPipeline": SanaSubject,
        "StableDiffusion3Pipeline": StableDiffusion3Subject,
        "StableDiffusionImg2ImgPipeline": UNetSubject,
        "StableDiffusionInpaintPipeline": UNetSubject,
        "StableDiffusionPipeline": UNetSubject,
        "StableDiffusionXLImg2ImgPipeline": UNetSubject,
        "StableDiffusionXLInpaintPipeline": UNetSubject,
        "StableDiffusionXLPipeline": UNetSubject,
        "ZImagePipeline": ZImageSubject,
    },
)
"""Class name of a pipeline, as in its model_index.json, to its family; of a language model and its tokenizer,
`LanguageModel`."""


def load(
    source: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    clip_skip: int = 0,
    picture_size: tuple[int, int] | None = None,
) -> Subject[Any]:
    """A subject from the name of a known model, a folder that `save_pretrained` wrote, a GGUF file, or a hub id.

    >>> subject = load("emoji")
    >>> subject = load("stable-diffusion-v1-5/stable-diffusion-v1-5", dtype=torch.float16, device="cuda")
    >>> subject = load("smollm2")

    Whether it is a pipeline or a language model is read from the folder: model_index.json or config.json. Weights
    come from safetensors, or from a GGUF file, which is converted once; they are cast to `dtype`. `clip_skip` layers more
    than usual are left out at the end of Stable Diffusion's text encoders, counted as diffusers does. `picture_size` is
    (height, width) in pixels of what is drawn, None for what the pipeline was made for. Raises UnknownName for a name that
    nothing has, FileNotFoundError for a folder or hub id that cannot be read, ValueError for pickled weights, a model that
    is built in another way, or one that is not what its files hold (see `check_subject`).
    """
    name, place, local = _found(source)
    where = ModelSource(place, local, dtype, device)
    kind = "LanguageModel" if _is_language_model(place, local) else str(pipeline_index(where).get("_class_name"))
    family = _family(kind, f"{place} declares it in model_index.json")
    _refuse_skip(family, name, clip_skip)
    pipeline, mismatches = family.read(where)
    return _drawing(_admitted(family, name, pipeline, mismatches, clip_skip), picture_size)


@overload
def adopt(pipeline: LanguageModel, name: str) -> CausalLMSubject: ...
@overload
def adopt(
    pipeline: diffusers.StableDiffusionPipeline | diffusers.StableDiffusionXLPipeline, name: str, *, clip_skip: int = 0
) -> UNetSubject: ...
@overload
def adopt(pipeline: Any, name: str, *, clip_skip: int = 0) -> Any: ...
def adopt(pipeline: Any, name: str, *, clip_skip: int = 0) -> Subject[Any]:
    """A subject around a pipeline that is already in memory: of diffusers, a `LanguageModel`, or of another family.

    Its modules go to evaluation mode without gradients. `clip_skip` is as for `load`. Raises UnknownName for a class of
    pipeline that no family knows, ValueError for one that lacks a part or is built in another way, and as `check_subject`
    does.
    """
    family = _family(type(pipeline).__name__, f"{name} is one")
    _refuse_skip(family, name, clip_skip)
    return _admitted(family, name, pipeline, [], clip_skip)


def _family(kind: str, where: str) -> type[Subject[Any]]:
    classes = ", ".join(name for name in FAMILIES if name != "LanguageModel")
    return look_up(FAMILIES, kind, "pipeline class", f"{where}; those that load: {classes}")


def _refuse_skip(family: type[Subject[Any]], name: str, clip_skip: int) -> None:
    if clip_skip and "clip_skip" not in inspect.signature(family.adopt).parameters:
        raise ValueError(
            f"{name}: clip_skip {clip_skip} was asked of family {family.family!r}, which has no such layers; leave it 0"
        )


def _admitted(
    family: type[Subject[Any]], name: str, pipeline: Any, mismatches: list[Mismatch], clip_skip: int
) -> Subject[Any]:
    refuse_packed(name, {key: part for key, part in _parts_of(pipeline).items() if part is not None})
    subject = family.adopt(name, pipeline, **({"clip_skip": clip_skip} if clip_skip else {}))
    check_subject(subject, mismatches)
    for module in subject.components.values():
        module.eval().requires_grad_(False)
    subject.check_by_running()
    return subject


def _parts_of(pipeline: Any) -> dict[str, Any]:
    """What a pipeline or a language model holds, by name."""
    return dict(getattr(pipeline, "components", None) or vars(pipeline)) if hasattr(pipeline, "__dict__") else {}


def _drawing(subject: Subject[Any], size: tuple[int, int] | None) -> Subject[Any]:
    """The subject, told how large its pictures are."""
    if size is None:
        return subject
    if not isinstance(subject, SizedSubject):
        raise ValueError(
            f"{subject.name}: pictures of {size[0]} x {size[1]} pixels were asked of a model that answers with {subject.answers}; "
            "leave the size out"
        )
    subject.picture_size = size
    return subject


def _found(source: str | Path) -> tuple[str, str, bool]:
    """Name, place, and whether the place is a local folder."""
    from concept_probe import testbed

    text = str(source)
    if text in testbed.LANGUAGE_MODELS:
        return text, *_smollm2()
    if text.endswith(".gguf"):
        file = Path(text).expanduser()
        with quiet():
            return file.stem, str(converted(file)), True
    if text in testbed.EMBEDDED:
        return text, str(testbed.folder(text)), True
    return _resolve(source)


def _is_language_model(place: str, local: bool) -> bool:
    index, config = "model_index.json", "config.json"
    if local:
        return not (Path(place) / index).is_file() and (Path(place) / config).is_file()
    return not _reachable(place, index) and _reachable(place, config)


def _smollm2() -> tuple[str, bool]:
    """Where SmolLM2 is, and whether that is a folder: converted from the installed package, or on the hub."""
    from concept_probe.testbed import smollm2

    file = smollm2.gguf_file()
    if file is not None:
        with quiet():
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
