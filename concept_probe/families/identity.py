"""What makes a subject's rows and answers besides its weights: configuration, tokenizers, schedule, hooks of others."""

from __future__ import annotations

import dis
from collections.abc import Iterator, Mapping
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import FunctionType
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules import module as torch_module
from transformers import ProcessorMixin

from concept_probe.content import digest_of
from concept_probe.families.walk import modules_under

if TYPE_CHECKING:
    from concept_probe.families.subject import Subject

_TOKENIZERS = {
    "tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2", "tokenizer_3": "text_encoder_3",
}  # fmt: skip
"""Attributes of a pipeline that are tokenizers, and the encoder that each is for where there are several."""
_KNOWN = ("concept_probe", "torch", "transformers", "diffusers", "accelerate", "peft")
"""Packages whose hooks belong to a model, or are known otherwise."""
_USUAL = {"force_zeros_for_empty_prompt": True, "requires_aesthetics_score": False}
"""Entries of a pipeline's configuration that decide its pictures, as its class has them unless told otherwise."""
_BESIDE = ("transformers_version", "dtype", "torch_dtype")


def how_it_reads(subject: Subject, *, schedule: bool = True) -> str:
    """Digest of what makes a subject's answers besides its weights: configuration, tokenizers, chat, schedule, and what is
    `switched` on.

    Without `schedule` it is of what decides how a text is read, with each part's own numbers, such as the eps of a norm,
    which may be others than the configuration's.
    """
    scheduler = getattr(subject.pipeline, "scheduler", None) if schedule else None
    own = {name: _configuration(module) for name, module in subject.components.items()}
    told = None if scheduler is None else [type(scheduler).__name__, _configuration(scheduler)]
    more = [on] if (on := switched(subject)) else []
    more += [] if schedule else [_numbers(subject)]
    more += [said] if (said := said_by_pipeline(subject.pipeline)) else []
    conventions = subject.conventions()
    more += [conventions["picture_size"]] if "picture_size" in conventions else []
    return digest_of(own, tokenizers_of(subject.pipeline), conventions.get("chat"), told, *more)


def said_by_pipeline(pipeline: Any) -> dict[str, Any]:
    """What a pipeline's own configuration decides, where it is not as usual: how guidance reads no prompt, and whether
    the denoiser is told a score of beauty."""
    config = getattr(pipeline, "config", None)
    config = config if isinstance(config, Mapping) else {}
    return {name: config[name] for name, usual in _USUAL.items() if name in config and config[name] != usual}


def tokenizers_of(pipeline: Any) -> dict[str, Any]:
    """The tokenizers of a pipeline by the names of its attributes; of a processor for texts and pictures, the one in it."""
    held = {name: getattr(pipeline, name, None) for name in _TOKENIZERS}
    words = {name: one.tokenizer if isinstance(one, ProcessorMixin) else one for name, one in held.items()}
    return {name: one for name, one in words.items() if one is not None}


def reading_stamp(pipeline: Any) -> tuple[object, ...]:
    """What of `how_it_reads` can be looked at in no time: equal for the same tokenizers and scheduler, unless a rule
    inside a tokenizer was exchanged."""
    tokens = tuple(
        (one, len(one), repr(getattr(one, "chat_template", None)), str(getattr(one, "special_tokens_map", None)))
        for one in tokenizers_of(pipeline).values()
    )
    scheduler = getattr(pipeline, "scheduler", None)
    return (*tokens, str(said_by_pipeline(pipeline)), scheduler, str(getattr(scheduler, "config", None)))


def refuse_other_tokenizers(name: str, tokenizers: Mapping[str, Any], pipeline: Any) -> None:
    """Raise ValueError where a pipeline holds another tokenizer than those that its subject reads with, by encoder."""
    for attribute, held in tokenizers_of(pipeline).items():
        if tokenizers.get(_TOKENIZERS[attribute], held) is not held:
            raise ValueError(
                f"{name}: the pipeline's {attribute} was replaced after the subject was made around it; adopt the pipeline "
                "again"
            )


def hooks_of_others(subject: Subject) -> list[str]:
    """Functions of others that run in a pass and may change what it gives, each by its name and place: hooks of modules,
    and what acts on trajectories; those that never read what they are given aside."""
    held = [(hook, "everywhere") for hook in _hooks(vars(torch_module), "_global_forward")]
    for component, root in subject.components.items():
        held += [(h, f"at {component}/{p}") for p, one in modules_under(root) for h in _hooks(vars(one), "_forward")]
    for hook in getattr(subject, "hooks", ()):
        held += [(function, "on trajectories") for function in vars(hook).values() if callable(function)]
    acting = ((hook, where) for hook, where in held if not _only_counts(hook))
    return sorted(f"{name} {where}" for hook, where in acting if (name := name_of_others(hook)))


def _only_counts(function: Any) -> bool:
    """Whether a function never reads what it is given, so that it can count passes, or stop them, and change nothing."""
    if not isinstance(function, FunctionType):
        return False
    code = function.__code__
    taken = (
        code.co_argcount
        + code.co_kwonlyargcount
        + bool(code.co_flags & CO_VARARGS)
        + bool(code.co_flags & CO_VARKEYWORDS)
    )
    given = set(code.co_varnames[:taken])
    read = (
        i.argval for i in dis.get_instructions(code) if i.opname.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE"))
    )
    return not given & {name for names in read for name in (names if isinstance(names, tuple) else (names,))}


def switched(subject: Subject) -> list[str]:
    """What is switched on in a model and stands in no weight, in words: FreeU, and attention by somebody's own rule."""
    out = []
    for component, root in subject.components.items():
        for path, one in modules_under(root):
            held = vars(one)
            freeu = {name: held.get(name) for name in ("s1", "s2", "b1", "b2")}
            if all(isinstance(value, int | float) for value in freeu.values()):
                out.append(f"FreeU {freeu} at {component}/{path}")
            processor = held.get("processor", one._modules.get("processor"))
            if processor is not None and (name := name_of_others(processor)):
                out.append(f"{name} attends at {component}/{path}")
    return out


def name_of_others(function: Any) -> str | None:
    """The name of a function, or of an object's class, with its module; None for one of this package or those that models are of."""
    function = getattr(function, "func", function)
    module = str(getattr(function, "__module__", ""))
    if module.partition(".")[0] in _KNOWN:
        return None
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _hooks(held: Mapping[str, Any], prefix: str) -> Iterator[Any]:
    for kind in (f"{prefix}_pre_hooks", f"{prefix}_hooks"):
        yield from held.get(kind, {}).values()


def _numbers(subject: Subject) -> list[str]:
    """Numbers with a fraction that stand on parts: what is counted while a model runs, or kept for later, is whole."""
    return [
        f"{component}/{path} {name} {value!r}"
        for component, root in subject.components.items()
        for path, one in modules_under(root)
        for name, value in sorted(vars(one).items())
        if isinstance(value, float) and not name.startswith("_")
    ]


def _configuration(thing: nn.Module | Any) -> dict[str, Any]:
    """What a part is built by, without the places and versions that libraries note beside it."""
    config: Any = getattr(thing, "config", None)
    if config is None:
        return {}
    held = config.to_diff_dict() if hasattr(config, "to_diff_dict") else dict(config)
    return {k: v for k, v in held.items() if not k.startswith("_") and k not in _BESIDE}
