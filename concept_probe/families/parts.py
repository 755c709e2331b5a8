"""What a subject is made of when it runs: its own modules, called as they are written, and nothing in between."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule

from concept_probe.families.walk import modules_under

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_TOLD = frozenset({"_hf_hook", "_diffusers_hook", "forward"})
"""Attributes of a module itself that say that something may come in between."""


def unwrapped(module: Any) -> Any:
    """The module inside what `torch.compile(module)`, data parallelism or peft gives; any other as it is.

    A peft model only calls the module in which its adapters are, unless it puts tokens of its own before the prompt.
    """
    while True:
        if isinstance(module, OptimizedModule):
            module = module._orig_mod
        elif isinstance(module, PARALLEL):
            module = module.module
        elif _is_peft(module) and not _prompts(module):
            module = module.get_base_model()
        else:
            return module


def _is_peft(module: Any) -> bool:
    return isinstance(module, nn.Module) and hasattr(type(module), "get_base_model") and hasattr(module, "peft_config")


def _prompts(module: Any) -> bool:
    """Whether a peft model puts tokens, or keys and values, of its own before the prompt."""
    return any(getattr(config, "is_prompt_learning", False) for config in module.peft_config.values())


def check_parts(name: str, components: Mapping[str, nn.Module], pipeline: Any) -> None:
    """Raise ValueError, naming the place, where passes of a subject would not be those of its components.

    - the pipeline holds another module than the subject was made around;
    - a part is wrapped, so that its paths, or what can be seen of it, are others;
    - a hook of the library it comes from moves, casts or skips it during a pass, or its `forward` was replaced.

    What was put into training mode, as an adapter is by adding it, is taken out of it: dropout would draw anew at every
    answer.
    """
    for component, root in components.items():
        held = getattr(pipeline, component, None)
        if held is not None and unwrapped(held) is not root:
            raise ValueError(
                f"{name}: the pipeline's {component} was replaced after the subject was made around it; adopt the "
                "pipeline again"
            )
        for path, module in modules_under(root):
            if module.training:
                module.training = False
            if _is_plain(type(module)) and _TOLD.isdisjoint(vars(module)):
                continue
            for wrong in _wrong(module):
                raise ValueError(f"{name}: {wrong.format(place=repr(f'{component}/{path}'))}")


@functools.lru_cache(maxsize=1024)
def _is_plain(kind: type[nn.Module]) -> bool:
    """Whether nothing about a class alone can be wrong: most modules are of such a one."""
    return not issubclass(kind, (OptimizedModule, torch.jit.ScriptModule, *PARALLEL)) and not hasattr(
        kind, "get_base_model"
    )


def _wrong(module: nn.Module) -> Iterator[str]:
    if isinstance(module, OptimizedModule):
        yield (
            "the part {place} was wrapped by torch.compile(part), which changes the paths of what is in it; put back its "
            "`_orig_mod`, and call part.compile() where it should be compiled outside"
        )
    if _is_peft(module):
        yield (
            "{place} is a "
            + type(module).__name__
            + ", which puts tokens of its own before the prompt; give the model alone"
        )
    if isinstance(module, torch.jit.ScriptModule):
        yield "{place} is a TorchScript module, in which nothing can be seen or changed; give the model as it is written"
    if isinstance(module, PARALLEL):
        yield "{place} is a " + type(module).__name__ + ", which copies the model in every pass; give its `module`"
    own = vars(module)
    for hook in _moving(own):
        yield (
            f"the hook {hook} is on at {{place}}, which moves weights or changes what is computed during a pass; give the "
            "model without it: pipeline.remove_all_hooks() takes those of model and sequential offload off, others need the model "
            "loaded anew on one device (a smaller dtype needs less memory)"
        )
    if "forward" in own and not _own_forward(module, own):
        yield (
            "the forward pass of {place} was replaced by "
            + _named(own["forward"])
            + ", which may leave out or change what "
            "the model computes; give the model without it"
        )


def _moving(own: Mapping[str, Any]) -> Iterator[str]:
    """Hooks of the libraries that move, cast or leave out what a module computes, by name."""
    hook: Any = own.get("_hf_hook")  # accelerate's
    for one in getattr(hook, "hooks", () if hook is None else (hook,)):
        if getattr(one, "offload", False) or "Offload" in type(one).__name__ or "Casting" in type(one).__name__:
            yield f"{type(one).__name__} of accelerate"
    for name in getattr(own.get("_diffusers_hook"), "hooks", {}):
        yield f"{name} of diffusers"


def _own_forward(module: nn.Module, own: Mapping[str, Any]) -> bool:
    """Whether the `forward` that stands on a module itself comes to what its class says."""
    forward = own["forward"]
    forward = getattr(forward, "_torchdynamo_orig_callable", forward)
    if "_hf_hook" in own:  # accelerate's hook calls what it found; those that move or cast are refused by name
        forward = own.get("_old_forward", forward)
    return getattr(forward, "__func__", None) is type(module).forward


def _named(function: Any) -> str:
    return repr(getattr(function, "__qualname__", type(function).__name__))
