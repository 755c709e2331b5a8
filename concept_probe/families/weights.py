"""Whether a weight is what its module computes with, and nothing else is."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from concept_probe.families.walk import modules_under


def refuse_composed(root: nn.Module, path: str, where: str) -> None:
    """Raise ValueError, with the mend, where the module at `path` of `root` computes with more than its own weight.

    `where` is how a message calls that weight. An adapter adds to it, and a parametrization makes it from others: to
    read it is to read a part, and to change it is to change something else, or nothing.
    """
    names = path.split(".") if path else []
    for end in range(len(names) + 1):
        place = ".".join(names[:end])
        module = root.get_submodule(place)
        adapters = _adapters(module)
        if adapters:
            raise ValueError(
                f"{where!r} is under the adapter {', '.join(map(repr, adapters))} (a {type(module).__name__} at {place!r}), "
                "so this weight is not all that is computed with; put the adapter into the weights: "
                "pipeline.fuse_lora() and then pipeline.unload_lora_weights(), or merge_and_unload() of a peft model; or "
                "take it off; and adopt what comes of it"
            )
    owner = root.get_submodule(path)
    if parametrize.is_parametrized(owner) or "weight_g" in owner._parameters:
        raise ValueError(
            f"{where!r} is made anew in every pass from other parameters (a parametrization such as weight norm); fix it "
            "first, by torch.nn.utils.parametrize.remove_parametrizations or torch.nn.utils.remove_weight_norm"
        )


def adapters_on(root: nn.Module) -> list[str]:
    """What decides how adapters in `root` act and stands in no tensor: which are on or fused, and how strong, by place."""
    return [
        f"{path} {module.active_adapters} {module.disable_adapters} {module.merged_adapters} {module.scaling}"
        for path, module in modules_under(root)
        if base_of(module) is not module and hasattr(module, "scaling")
    ]


def base_of(module: Any) -> Any:
    """The module that an adapter of peft stands around; anything else as it is."""
    base = module._modules.get("base_layer") if isinstance(module, nn.Module) else None
    return module if base is None else base


def _adapters(module: nn.Module) -> tuple[str, ...]:
    """Names of the adapters that stand around a layer, as peft puts them."""
    if base_of(module) is module and not isinstance(getattr(module, "modules_to_save", None), nn.ModuleDict):
        return ()
    named = getattr(module, "active_adapters", None) or getattr(module, "active_adapter", None) or ("default",)
    return (named,) if isinstance(named, str) else tuple(map(str, named))
