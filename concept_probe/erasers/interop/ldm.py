"""How the parts of a pipeline are called in checkpoints of one file: the names of latent diffusion, and of OpenCLIP."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from concept_probe.erasers.interop.places import Piece, every_parameter

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_OUTER = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2", "conv_norm_out": "out.0",
    "conv_out": "out.2",
}  # fmt: skip
_VAE = {
    r"\bmid_block\.resnets\.0": "mid.block_1", r"\bmid_block\.resnets\.1": "mid.block_2",
    r"\bmid_block\.attentions\.0": "mid.attn_1", r"\bdown_blocks\.": "down.", r"\bresnets\.": "block.",
    r"\bdownsamplers\.0": "downsample", r"\bupsamplers\.0": "upsample", r"\bconv_shortcut\b": "nin_shortcut",
    r"\bconv_norm_out\b": "norm_out", r"\bgroup_norm\b": "norm", r"\bto_q\b": "q", r"\bto_k\b": "k", r"\bto_v\b": "v",
    r"\bto_out\.0": "proj_out",
}  # fmt: skip
_OPEN_CLIP = {
    "self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}  # fmt: skip


def unet_paths(unet: nn.Module) -> dict[str, str]:
    """Path of a module of diffusers' U-Net to its path in a checkpoint of latent diffusion, as far as that has one.

    Blocks there are counted through, whatever their level: what stands where is read from the modules.
    """
    out = {ours: theirs for ours, theirs in _OUTER.items() if _has(unet, ours)}
    at = 0
    for i, block in enumerate(getattr(unet, "down_blocks", ())):
        for j in range(len(block.resnets)):
            at += 1
            out |= _level(f"down_blocks.{i}", j, f"input_blocks.{at}", block)
        if getattr(block, "downsamplers", None):
            at += 1
            out[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{at}.0.op"
    middle = getattr(unet, "mid_block", None)
    if middle is not None:
        out |= {f"mid_block.resnets.{j}": f"middle_block.{2 * j}" for j in range(len(middle.resnets))}
        out |= {f"mid_block.attentions.{j}": f"middle_block.{2 * j + 1}" for j in range(len(middle.attentions))}
    at = 0
    for i, block in enumerate(getattr(unet, "up_blocks", ())):
        last = len(block.resnets) - 1
        for j in range(last + 1):
            out |= _level(f"up_blocks.{i}", j, f"output_blocks.{at}", block)
            if j == last and getattr(block, "upsamplers", None):
                behind = 2 if getattr(block, "attentions", None) else 1
                out[f"up_blocks.{i}.upsamplers.0.conv"] = f"output_blocks.{at}.{behind}.conv"
            at += 1
    return out


def _level(ours: str, j: int, theirs: str, block: nn.Module) -> dict[str, str]:
    attends = {f"{ours}.attentions.{j}": f"{theirs}.1"} if getattr(block, "attentions", None) else {}
    return {f"{ours}.resnets.{j}": f"{theirs}.0"} | attends


def unet_path(path: str, paths: dict[str, str]) -> str | None:
    """What `path` is called there, by the longest part of it that `paths` knows; None where it knows none."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        theirs = paths.get(".".join(parts[:end]))
        if theirs is not None:
            inner = ".".join(parts[end:])
            first, dot, rest = inner.partition(".")
            if ".resnets." in f".{'.'.join(parts[:end])}.":
                inner = _RESNET.get(first, first) + dot + rest
            return f"{theirs}.{inner}" if inner else theirs
    return None


def vae_path(path: str, levels: int) -> str:
    """What a module of an autoencoder is called there; its decoder counts levels from the other end."""
    path = re.sub(r"\bup_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", path)
    for ours, theirs in _VAE.items():
        path = re.sub(ours, theirs, path)
    return path


def open_clip_names(component: str, encoder: nn.Module, prefix: str) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    """Names and places of a text encoder of OpenCLIP: queries, keys and values are one tensor there."""
    thirds: dict[str, dict[str, tuple[str, int]]] = {}
    for name, where, x in every_parameter(component, encoder):
        path, _, leaf = name.removeprefix("text_model.").rpartition(".")
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", path)
        if path == "embeddings.token_embedding":
            yield f"{prefix}token_embedding.weight", (Piece(where),)
        elif path == "embeddings.position_embedding":
            yield f"{prefix}positional_embedding", (Piece(where),)
        elif path == "final_layer_norm":
            yield f"{prefix}ln_final.{leaf}", (Piece(where),)
        elif path == "text_projection":
            yield f"{prefix}text_projection", (Piece(where, turned=True),)
        elif layer and layer[2] in _OPEN_CLIP:
            yield f"{prefix}transformer.resblocks.{layer[1]}.{_OPEN_CLIP[layer[2]]}.{leaf}", (Piece(where),)
        elif layer and layer[2].startswith("self_attn."):
            fused = f"{prefix}transformer.resblocks.{layer[1]}.attn.in_proj_{leaf}"
            thirds.setdefault(fused, {})[layer[2][len("self_attn.")]] = (where, len(x))
    for fused, held in thirds.items():
        pieces, at = [], 0
        for letter in "qkv":
            where, rows = held[letter]
            pieces.append(Piece(where, (at, at + rows)))
            at += rows
        yield fused, tuple(pieces)


def _has(root: nn.Module, path: str) -> bool:
    try:
        return isinstance(root.get_submodule(path), nn.Module)
    except AttributeError:
        return False
