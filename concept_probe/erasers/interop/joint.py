"""How the parts of a transformer with joint attention are called by those who published it: FLUX, Stable Diffusion 3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from concept_probe.erasers.interop.places import Piece, every_parameter

Paths = Mapping[str, str | Sequence[str]]
"""Their path of a module to ours, or to ours of the modules whose outputs they keep side by side."""

_OWN = ("attn.to_q", "attn.to_k", "attn.to_v")
_TEXT = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
_FLUX: Paths = {
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "txt_in": "context_embedder",
    "img_in": "x_embedder",
    "final_layer.linear": "proj_out",
}
_FLUX_DOUBLE: Paths = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.qkv": _OWN,
    "txt_attn.qkv": _TEXT,
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
_FLUX_SINGLE: Paths = {
    "modulation.lin": "norm.linear",
    "linear1": (*_OWN, "proj_mlp"),
    "linear2": "proj_out",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
_SD3: Paths = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
}
_SD3_BLOCK: Paths = {
    "x_block.attn.qkv": _OWN,
    "x_block.attn.proj": "attn.to_out.0",
    "x_block.attn.ln_q": "attn.norm_q",
    "x_block.attn.ln_k": "attn.norm_k",
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn2.proj": "attn2.to_out.0",
    "x_block.attn2.ln_q": "attn2.norm_q",
    "x_block.attn2.ln_k": "attn2.norm_k",
    "x_block.adaLN_modulation.1": "norm1.linear",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    "context_block.attn.qkv": _TEXT,
    "context_block.attn.proj": "attn.to_add_out",
    "context_block.attn.ln_q": "attn.norm_added_q",
    "context_block.attn.ln_k": "attn.norm_added_k",
    "context_block.adaLN_modulation.1": "norm1_context.linear",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
}
_LAST_NORM = ("final_layer.adaLN_modulation.1", "norm_out.linear")
"""A modulation whose shift stands before its scale there, and behind it here."""


def joint_names(component: str, module: nn.Module) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    """Names and places of FLUX or Stable Diffusion 3, told by the parts that a transformer has; nothing of others."""
    held = {name: (where, x) for name, where, x in every_parameter(component, module)}
    if "single_transformer_blocks.0.proj_mlp.weight" in held and "transformer_blocks.0.attn.add_q_proj.weight" in held:
        blocks = [(_count(module, "transformer_blocks"), "double_blocks", "transformer_blocks", _FLUX_DOUBLE)]
        blocks += [
            (_count(module, "single_transformer_blocks"), "single_blocks", "single_transformer_blocks", _FLUX_SINGLE)
        ]
        outer, swapped = _FLUX, [_LAST_NORM]
    elif "pos_embed.proj.weight" in held and "transformer_blocks.0.attn.add_q_proj.weight" in held:
        count = _count(module, "transformer_blocks")
        blocks = [(count, "joint_blocks", "transformer_blocks", _SD3_BLOCK)]
        last = (
            f"joint_blocks.{count - 1}.context_block.adaLN_modulation.1",
            f"transformer_blocks.{count - 1}.norm1_context.linear",
        )
        outer, swapped = _SD3, [_LAST_NORM, last]
    else:
        return
    modules = dict(outer) | {
        f"{theirs}.{i}.{path}": f"{ours}.{i}.{of}" if isinstance(of, str) else tuple(f"{ours}.{i}.{one}" for one in of)
        for count, theirs, ours, paths in blocks
        for i in range(count)
        for path, of in paths.items()
    }
    for theirs, ours in swapped:
        modules.pop(theirs, None)
        yield from _swapped(theirs, ours, held)
    for theirs, ours in modules.items():
        yield from _side_by_side(theirs, (ours,) if isinstance(ours, str) else ours, held)


def _count(module: nn.Module, blocks: str) -> int:
    return len(module.get_submodule(blocks)._modules)


def _side_by_side(
    theirs: str, ours: Sequence[str], held: Mapping[str, tuple[str, Tensor]]
) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    for leaf in ("weight", "bias"):
        found = [held[f"{path}.{leaf}"] for path in ours if f"{path}.{leaf}" in held]
        if len(found) != len(ours):
            continue
        at, pieces = 0, []
        for where, x in found:
            pieces.append(Piece(where, (at, at + len(x)) if len(ours) > 1 else None))
            at += len(x)
        yield f"{theirs}.{'scale' if theirs.endswith(('query_norm', 'key_norm')) else leaf}", tuple(pieces)


def _swapped(theirs: str, ours: str, held: Mapping[str, tuple[str, Tensor]]) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    for leaf in ("weight", "bias"):
        if f"{ours}.{leaf}" in held:
            where, x = held[f"{ours}.{leaf}"]
            half = len(x) // 2
            first, second = (0, half), (half, 2 * half)
            yield f"{theirs}.{leaf}", (Piece(where, first, second), Piece(where, second, first))
