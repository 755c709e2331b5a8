"""Where the sites of a text encoder are, found by the shape of its modules.

Paths differ between library versions and checkpoints, the build of a block does not; so nothing here compares a path
with a fixed string.
"""

from __future__ import annotations

from torch import nn

from concept_probe.families.weights import base_of
from concept_probe.types import Site


def path_of(root: nn.Module, wanted: nn.Module) -> str:
    """The path of a module inside `root`.

    Raises LookupError if it is not there.
    """
    for path, module in root.named_modules():
        if module is wanted:
            return path
    raise LookupError(f"{type(wanted).__name__} is no part of {type(root).__name__}")


def text_layers(encoder: nn.Module) -> tuple[str, list[nn.Module]]:
    """Path and members of the list of transformer layers: those with a `self_attn` and an `mlp` of two matrices.

    Raises ValueError if the encoder has none.
    """
    for path, module in encoder.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) and all(_is_text_layer(m) for m in module):
            return path, list(module)
    raise ValueError(f"{type(encoder).__name__} has no list of layers with self_attn and mlp.fc1, mlp.fc2")


def _is_text_layer(module: nn.Module) -> bool:
    mlp = getattr(module, "mlp", None)
    return hasattr(module, "self_attn") and isinstance(base_of(getattr(mlp, "fc2", None)), nn.Linear)


def final_norm(encoder: nn.Module) -> str:
    """Path of the layer norm that follows the last layer."""
    layers, _ = text_layers(encoder)
    outside = [p for p, m in encoder.named_modules() if isinstance(m, nn.LayerNorm) and not p.startswith(layers + ".")]
    if not outside:
        raise ValueError(f"{type(encoder).__name__} has no layer norm outside its layers")
    return outside[-1]


def projection(encoder: nn.Module) -> str | None:
    """Path of the matrix that makes the pooled embedding; None where the encoder has none."""
    layers, _ = text_layers(encoder)
    outside = [p for p, m in encoder.named_modules() if isinstance(m, nn.Linear) and not p.startswith(layers + ".")]
    return outside[-1] if outside else None


def text_sites(component: str, encoder: nn.Module, *, reads: str, pools: bool) -> dict[str, tuple[Site, ...]]:
    """Roles to sites of one text encoder.

    `reads` is the path whose output cross-attention reads; `pools` says whether the denoiser reads its projection.
    """
    path, layers = text_layers(encoder)
    each = [f"{path}.{i}" for i in range(len(layers))]
    embedding = path_of(encoder, encoder.get_input_embeddings())  # pyright: ignore[reportCallIssue]
    roles = {
        "token_embedding": (Site(component, embedding),),
        "text_stream": tuple(Site(component, p) for p in each),
        "text_mlp_hidden": tuple(Site(component, f"{p}.mlp.fc2", "in") for p in each),
        "text_mlp_out": tuple(Site(component, f"{p}.mlp") for p in each),
        "text_out": (Site(component, reads),),
        "mlp_value": tuple(Site(component, f"{p}.mlp.fc2", "weight") for p in each),
    }
    pooled = projection(encoder)
    if pools and pooled:
        roles["text_pooled"] = (Site(component, pooled),)
    return roles
