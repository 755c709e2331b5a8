"""What the tensors of a file say, by the endings of their names: which belong to one module, and as what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

_ENDINGS: tuple[tuple[str, str], ...] = (
    (r"\.lora_A(\.[\w-]+)?\.weight|\.lora_down(\.\w+)?\.weight|[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight", "down"),
    (r"\.lora_B(\.[\w-]+)?\.weight|\.lora_up(\.\w+)?\.weight|[._]lora\.up\.weight|\.lora_linear_layer\.up\.weight", "up"),
    (r"\.lora_mid\.weight", "mid"),
    (r"\.lora_B(\.[\w-]+)?\.bias", "up_bias"),
    (r"\.lora_embedding_A(\.[\w-]+)?", "embedding_down"),
    (r"\.lora_embedding_B(\.[\w-]+)?", "embedding_up"),
    (r"(\.lora)?\.alpha", "alpha"),
    (r"\.dora_scale", "magnitude"),
    (r"\.lora_magnitude_vector(\.[\w-]+)?(\.weight)?", "magnitude_out"),
    (r"\.(?P<product>hada_w1_a|hada_w1_b|hada_w2_a|hada_w2_b|hada_t1|hada_t2)", ""),
    (r"\.(?P<product>lokr_w1|lokr_w1_a|lokr_w1_b|lokr_w2|lokr_w2_a|lokr_w2_b|lokr_t2)", ""),
    (r"\.diff|\.w_norm", "diff"),
    (r"\.diff_b|\.b_norm", "diff_bias"),
    (r"\.set_weight", "set"),
)  # fmt: skip
"""Pattern of an ending, and what a tensor with it is to its module."""
_REFUSED: tuple[tuple[str, str], ...] = (
    (r"\.oft_(blocks|diag|r)(\.[\w-]+)?(\.weight)?|\.boft_\w+(\.[\w-]+)?", "OFT, a rotation of the weight"),
    (r"\.[ab][12](_|\.)weight", "GLoRA"),
    (r"\.on_input|\.(lora_)?ia3_l(\.[\w-]+)?", "IA3, a scaling of activations"),
    (r"\.vera_lambda_[bd](\.[\w-]+)?", "VeRA, of matrices that are drawn at random"),
    (r"\.lora_E(\.[\w-]+)?|\.ranknum(\.[\w-]+)?", "AdaLoRA"),
    (r"\.(scalar|reshape_weight|bias_indices|bias_values|bias_size)", "a part of LyCORIS"),
    (r"(^|.*\.)(emb_params|string_to_param\.\*|clip_l|clip_g)", "the embedding of a new word (textual inversion)"),
)
_KNOWN = [(re.compile(f"(?:{ending})$"), role) for ending, role in _ENDINGS]
_UNKNOWN = [(re.compile(f"(?:{ending})$"), what) for ending, what in _REFUSED]
WHOLE_PARAMETER = "whole"
_NO_FACTORS = ("alpha", "magnitude", "magnitude_out", "up_bias", "diff", "diff_bias", "set")
"""What may have fewer than two sides."""


@dataclass
class ModuleGroup:
    """The tensors of a file that speak of one module, or a tensor that is a parameter as it is to be."""

    stem: str
    """What the file calls the module; of a whole parameter its own name."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """By what each is to the module."""
    keys: list[str] = field(default_factory=list)
    """Their names in the file."""

    def names(self) -> Iterator[tuple[str, str]]:
        """What the file would call each parameter that it changes, and which: `whole`, `weight` or `bias`."""
        if WHOLE_PARAMETER in self.tensors:
            yield self.stem, WHOLE_PARAMETER
            return
        roles = set(self.tensors)
        if roles - {"diff_bias", "up_bias"}:
            yield f"{self.stem}.weight", "weight"
        if roles & {"diff_bias", "up_bias"}:
            yield f"{self.stem}.bias", "bias"

    @property
    def is_adapter(self) -> bool:
        return WHOLE_PARAMETER not in self.tensors


def grouped(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, ModuleGroup]:
    """Groups by stem. ValueError for a tensor of a kind of adapter that isn't read, for two adapters in one file, and for a
    tensor that is no part of an adapter, whatever the others are."""
    out: dict[str, ModuleGroup] = {}
    for key, x in tensors:
        stem, role = _told(key)
        group = out.setdefault(stem, ModuleGroup(stem))
        if role in group.tensors:
            raise ValueError(
                f"{key!r} and {group.keys[list(group.tensors).index(role)]!r} are the same part of one module: the file holds "
                "several adapters; save the one that is meant alone"
            )
        if role != WHOLE_PARAMETER:
            _refuse_damaged(key, role, x)
        group.tensors[role] = x
        group.keys.append(key)
    return out


def _refuse_damaged(key: str, role: str, x: Tensor) -> None:
    """ValueError for a tensor that holds nothing, that is no matrix where it is a factor, or that is of no real numbers."""
    if not x.numel() or (role not in _NO_FACTORS and x.ndim < 2):
        raise ValueError(f"{key!r} is {tuple(x.shape)}, which is no part of an adapter; get the file again")
    refuse_encoded(key, x, counts=role == "alpha")


def refuse_encoded(key: str, x: Tensor, *, counts: bool = False) -> None:
    """ValueError for whole numbers, which are codes of a quantised weight and not its values, and for complex ones; with
    `counts` whole numbers may stand."""
    whole = not x.is_floating_point() and not x.is_complex() and x.dtype != torch.bool
    if not x.is_floating_point() and not (counts and whole):
        raise ValueError(
            f"{key!r} holds {str(x.dtype).removeprefix('torch.')}, and a weight is of floating-point numbers; if it is quantised, "
            "give the file as it was before that"
        )


def _told(key: str) -> tuple[str, str]:
    for pattern, what in _UNKNOWN:
        if pattern.search(key):
            raise ValueError(
                f"{key!r} is of {what}, which isn't read; put the adapter into the weights with the tool that it is of, and "
                "give the whole checkpoint"
            )
    for pattern, role in _KNOWN:
        found = pattern.search(key)
        if found:
            return _plain(key[: found.start()]), found.groupdict().get("product") or role
    return key, WHOLE_PARAMETER


def _plain(stem: str) -> str:
    """A module's path without the attention processor that earlier versions of diffusers kept adapters in."""
    stem = stem.replace(".processor.", ".")
    if ".self_attn.to_" in stem:  # of a text encoder
        return stem.replace(".to_out", ".out_proj") if stem.endswith(".to_out") else f"{stem.replace('.to_', '.')}_proj"
    return f"{stem}.0" if stem.endswith(".to_out") else stem
