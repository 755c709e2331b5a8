"""The names under which files of others speak of a subject's parameters, one naming for each of their worlds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from torch import nn

from concept_probe.erasers.interop.joint import joint_names
from concept_probe.erasers.interop.ldm import open_clip_names, unet_path, unet_paths, vae_path
from concept_probe.erasers.interop.places import Names, Piece, every_parameter, is_clip

if TYPE_CHECKING:
    from concept_probe.families import Subject

NamedPieces = Iterator[tuple[str, tuple[Piece, ...]]]
DENOISERS = ("unet", "transformer")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def own_names(component: str, module: nn.Module) -> NamedPieces:
    """As the libraries have them. CLIP's layers stand below `text_model` in most files, wherever a release keeps them."""
    below = component in ENCODERS and is_clip(module)
    start = f"{getattr(module, 'base_model_prefix', '')}." if component == "model" else ""
    for name, where, _ in every_parameter(component, module):
        if below and not name.startswith(("text_model.", "text_projection.")):
            yield f"text_model.{name}", (Piece(where),)
        yield name, (Piece(where),)
        if start not in ("", ".") and name.startswith(start):  # files of the model without its head
            yield name.removeprefix(start), (Piece(where),)
        if component == "vae" and ".attentions." in name:
            yield _before(name), (Piece(where),)


def original_names(component: str, module: nn.Module) -> NamedPieces:
    """As those who published a model call its parts: latent diffusion a U-Net's, FLUX and Stable Diffusion 3 their own."""
    if component == "transformer":
        yield from joint_names(component, module)
    paths = unet_paths(module) if component == "unet" else {}
    for name, where, _ in every_parameter(component, module) if paths else ():
        path, _, leaf = name.rpartition(".")
        theirs = unet_path(path, paths)
        if theirs is not None:
            yield f"{theirs}.{leaf}", (Piece(where),)


def by_component(subject: Subject) -> NamedPieces:
    """As pipelines of diffusers have them: `unet.` and the like before the library's own name."""
    for component, module in subject.components.items():
        for name, pieces in own_names(component, module):
            yield f"{component}.{name}", pieces


def by_underscores(subject: Subject) -> NamedPieces:
    """As kohya's trainers have them: the path of a module in one word. That of a denoiser is its publisher's, but that of
    a U-Net before SDXL is diffusers'."""
    for component, module in subject.components.items():
        for prefix, names in _kohya_ways(subject, component):
            for name, pieces in names(component, module):
                path, _, leaf = name.rpartition(".")
                yield f"{prefix}_{path.replace('.', '_')}.{leaf}", pieces


def in_comfy(subject: Subject) -> NamedPieces:
    """As ComfyUI keeps its models: a U-Net by latent diffusion's names, text encoders by what they are."""
    for component, module in subject.components.items():
        if component in DENOISERS:
            for name, pieces in original_names(component, module):
                yield f"diffusion_model.{name}", pieces
        for kind in _encoder_kinds(component, module):
            for name, pieces in own_names(component, module):
                yield f"text_encoders.{kind}.transformer.{name}", pieces


def in_checkpoints(subject: Subject) -> NamedPieces:
    """As checkpoints of one file have them: U-Net, autoencoder and text encoders by latent diffusion's names."""
    for component, module in subject.components.items():
        if component in DENOISERS:
            for name, pieces in original_names(component, module):
                yield f"model.diffusion_model.{name}", pieces
        elif component == "vae":
            yield from _autoencoder(component, module)
        elif component in ENCODERS and is_clip(module):
            yield from _encoder(subject, component, module)


NAMINGS: Mapping[str, Callable[[Subject], NamedPieces]] = {
    "component": by_component,
    "underscores": by_underscores,
    "comfy": in_comfy,
    "checkpoint": in_checkpoints,
}
"""Those that say which component a tensor is of."""


def tables(subject: Subject) -> dict[str, Names]:
    """By name of its naming, every name and its places; a name that means two places is left out."""
    return {naming: _table(names(subject)) for naming, names in NAMINGS.items()}


def bare_tables(subject: Subject, component: str) -> dict[str, Names]:
    """The same of names that don't say which component they are of."""
    module = subject.components[component]
    return {"bare": _table(own_names(component, module)), "bare original": _table(original_names(component, module))}


def _table(names: NamedPieces) -> Names:
    out: dict[str, tuple[Piece, ...]] = {}
    twice: set[str] = set()
    for name, pieces in names:
        if out.setdefault(name, pieces) != pieces:
            twice.add(name)
    return {name: pieces for name, pieces in out.items() if name not in twice}


def _before(name: str) -> str:
    """As diffusers called a part of an autoencoder's attention in earlier versions."""
    for now, then in {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}.items():
        name = name.replace(now, then)
    return name


def _is_xl(unet: nn.Module) -> bool:
    return getattr(unet, "add_embedding", None) is not None


def _kohya_ways(subject: Subject, component: str) -> list[tuple[str, Callable[[str, nn.Module], NamedPieces]]]:
    """How kohya's names of a component begin, and what follows: first as they are written, then as they are met too."""
    module = subject.components[component]
    if component == "unet":
        ways = [original_names, own_names] if _is_xl(module) else [own_names, original_names]
        return [("lora_unet", names) for names in ways]
    if component == "transformer":
        return [("lora_unet", original_names), ("lora_transformer", own_names), ("lora_unet", own_names)]
    starts = ("lora_te3",) if component in ENCODERS else ()
    if component == "text_encoder":
        starts = ("lora_te1", "lora_te") if "text_encoder_2" in subject.components else ("lora_te", "lora_te1")
    elif component == "text_encoder_2" and is_clip(module):
        starts = ("lora_te2",) if "text_encoder" in subject.components else ("lora_te2", "lora_te")
    return [(start, own_names) for start in starts]


def _encoder_kinds(component: str, module: nn.Module) -> tuple[str, ...]:
    if component not in ENCODERS:
        return ()
    if not is_clip(module):
        return ("t5xxl",)
    return ("clip_l", "clip_h") if component == "text_encoder" else ("clip_g",)


def _autoencoder(component: str, module: nn.Module) -> NamedPieces:
    levels = len(getattr(getattr(module, "decoder", None), "up_blocks", ()))
    for name, where, _ in every_parameter(component, module):
        path, _, leaf = name.rpartition(".")
        yield f"first_stage_model.{vae_path(path, levels)}.{leaf}", (Piece(where),)


def _encoder(subject: Subject, component: str, module: nn.Module) -> NamedPieces:
    """Of SDXL by their number, and those of the versions before it by what they were."""
    several = _is_xl(subject.components.get("unet", module))
    at = 1 if component == "text_encoder_2" and "text_encoder" in subject.components else 0
    start = f"conditioner.embedders.{at}" if several else "cond_stage_model"
    whole = [(f"{start}.transformer.{name}", pieces) for name, pieces in own_names(component, module)]
    fused = list(open_clip_names(component, module, f"{start}.model."))
    yield from [*fused, *whole] if component == "text_encoder_2" else [*whole, *fused]
