"""Pipelines and prompts that attention maps are tried on, and what passes a module."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor, nn

from concept_probe.testing.models.diffusion import DIFFUSION
from concept_probe.testing.models.read_by_lm import READ_BY_LM
from concept_probe.testing.models.transformers import TRANSFORMERS
from concept_probe.types import Prompt, Query, Sampling

KINDS = {**DIFFUSION, **TRANSFORMERS, **READ_BY_LM}


QUERIES = [Query(Prompt("the cat and a cat, red sun", "sun"), 1), Query(Prompt("a dog in the red thing"), 2)]


GUIDED = Sampling(steps=2, guidance=3.0)


PLAIN = Sampling(steps=2, guidance=0.0)


@cache
def subject_of(name: str) -> Any:
    return KINDS[name]()


def kept(subject: Any, modules: dict[str, str], run: Any, side: str = "out") -> dict[str, list[Any]]:
    """What passes modules of the denoiser, by the names of `modules`; hooks of torch's own, no tap."""
    out: dict[str, list[Any]] = {name: [] for name in modules}
    root: nn.Module = subject.components[subject.denoiser]
    handles = []
    for name, path in modules.items():
        module = root.get_submodule(path)
        if side == "out":
            handles.append(module.register_forward_hook(lambda _m, _a, y, n=name: out[n].append(y)))
        else:
            handles.append(
                module.register_forward_pre_hook(lambda _m, a, k, n=name: out[n].append((a, k)), with_kwargs=True)
            )
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return out


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
