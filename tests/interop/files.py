"""Files of others, written by the names that they have in the world, and what a public loader makes of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor

from concept_probe.erasers import Edit

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
RESNET = "up_blocks.0.resnets.1.conv1"
STEM = "lora_unet_" + f"{ATTENTION}.to_k".replace(".", "_")
DOWN, UP = torch.ones(2, 16), torch.ones(32, 2)
PAIR = {f"{STEM}.lora_down.weight": DOWN, f"{STEM}.lora_up.weight": UP}
"""An adapter of one matrix, as kohya's trainer writes it."""


def factors(shape: Iterable[int], seed: int, rank: int = 2) -> tuple[Tensor, Tensor]:
    """Down (r, d_in, *kernel) and up (d_out, r, 1, ...) of a weight."""
    g = torch.Generator().manual_seed(seed)
    d_out, d_in, *kernel = shape
    down = torch.randn(rank, d_in, *kernel, generator=g) / 5
    return down, torch.randn(d_out, rank, *(1 for _ in kernel), generator=g) / 5


def lora_file(path: Path, subject: Any, stems: Mapping[str, str], ends: tuple[str, str], **more: Tensor) -> Path:
    """An adapter of the weights at `stems` (component/path to what a file calls the module), its factors ending in `ends`."""
    tensors = dict(more)
    for seed, (where, stem) in enumerate(stems.items()):
        component, _, name = where.partition("/")
        shape = subject.components[component].get_parameter(f"{name}.weight").shape
        tensors[stem + ends[0]], tensors[stem + ends[1]] = factors(shape, seed)
    save_file({name: x.contiguous() for name, x in tensors.items()}, path)
    return path


def fused(subject: Any, path: Path) -> dict[str, Tensor]:
    """Every weight of a subject with the adapter that diffusers loads from `path` put in; the subject is used up."""
    pipeline = subject.pipeline
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    with_parts = [name for name in subject.components if hasattr(getattr(pipeline, name, None), "peft_config")]
    pipeline.fuse_lora(components=with_parts)
    pipeline.unload_lora_weights()
    return weights(subject)


def merged(module: Any, folder: Path) -> dict[str, Tensor]:
    """Every weight of a module with the adapter that peft loads from `folder` put in."""
    out = peft.PeftModel.from_pretrained(copy.deepcopy(module), str(folder)).merge_and_unload()
    return {name: x.detach().clone() for name, x in out.named_parameters()}


def weights(subject: Any) -> dict[str, Tensor]:
    """Every weight by `component/name`."""
    return {f"{c}/{n}": x.detach().clone() for c, m in subject.components.items() for n, x in m.named_parameters()}


def edited(subject: Any, edit: Edit) -> dict[str, Tensor]:
    with edit.on(subject):
        return weights(subject)


def assert_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    """The same weights to rounding, and not the base's."""
    assert found.keys() == wanted.keys()
    for name, x in wanted.items():
        torch.testing.assert_close(found[name], x, atol=2e-6, rtol=2e-5, msg=lambda said, name=name: f"{name}: {said}")
    assert any((found[name] - base[name]).abs().max() > 0.01 for name in base)
