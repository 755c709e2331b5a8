"""Names that others give to places in a model, as sites of a subject."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from concept_probe.learn.sae import Sae
from concept_probe.registry import UnknownName
from concept_probe.types import Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

HOOK = re.compile(r"blocks\.(\d+)\.(.+)")
"""A hook point of transformer_lens."""
LAYER = re.compile(r"(?:(resid_post|resid_pre|resid|mlp_out|mlp|attn_out|attn|att)_)?layers?[._](\d+)")
"""A layer by number alone is what it writes to the residual stream."""
BEGINS_WITH_LAYER = re.compile(r"(?:layers?|blocks?|h)[._]\d+(?:\.|$)")
"""A path inside the list of blocks, whatever that list is called and stands in."""
LAYER_HOOKS = {
    None: "hook_resid_post",
    "resid": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "attn": "hook_attn_out",
    "att": "hook_attn_out",
}
AFTER_NORM = {"hook_attn_out": "post_attention_layernorm", "hook_mlp_out": "post_feedforward_layernorm"}
"""Where a block norms what a part writes before it is added, a hook point is behind that norm."""


def site_named(name: str, subject: Subject, component: str | None = None) -> Site:
    """The site that `name` means in the subject: an address of ours, a hook point, or a path of a module.

    >>> site_named("blocks.8.hook_resid_pre", gpt2)
    Site(component='model', path='transformer.h.7', side='out', item=None)

    A path may begin with its component, lack what stands before the blocks (`layers.5.mlp`), and end in `.output` or
    `.input`. Raises UnknownName where nothing in the subject is called so, ValueError where several things are.
    """
    if "/" in name and ":" in name:
        site = Site.parse(name)
        subject.module(site)
        return site
    if hook := HOOK.fullmatch(name):
        return _hooked(subject, name, int(hook[1]), hook[2])
    if name == "hook_embed" and "token_embedding" in subject.roles():
        return subject.sites("token_embedding")[0]
    by_path = _modules(subject, name, component)
    if len(by_path) == 1:
        return by_path[0]
    if len(by_path) > 1:
        raise ValueError(
            f"place {name!r} is {', '.join(map(str, by_path[:4]))} of {subject.name}; pass component= or site= to say which"
        )
    if "resid" in subject.roles() and (layer := LAYER.fullmatch(name)):
        return _hooked(subject, name, int(layer[2]), LAYER_HOOKS.get(layer[1], f"hook_{layer[1]}"))
    raise UnknownName(
        "place", name, map(str, _known(subject)), f"roles of {subject.name}: {', '.join(subject.roles())}"
    )


def is_foreign(name: str) -> bool:
    """Whether only a subject can say which site `name` means: a hook point, or a layer by number alone."""
    return bool(HOOK.fullmatch(name) or LAYER.fullmatch(name)) or name == "hook_embed"


def same_tensor(one: Site, other: Site, subject: Subject) -> bool:
    """Whether two sites are one tensor, or what a block makes of it: its change, or one item of what it returns."""

    def told(site: Site) -> tuple[str, str, str]:
        blocks = subject.sites("resid") if "resid" in subject.roles() else ()
        paths = [(block.component, block.path) for block in blocks]
        if site.side == "in" and (site.component, site.path) in paths[1:]:  # what a block reads, the one before wrote
            site = blocks[paths.index((site.component, site.path)) - 1]
        return site.component, site.path, "out" if site.side == "change" else site.side

    return told(one) == told(other)


def _known(subject: Subject) -> list[Site]:
    return [site for role in subject.roles() for site in subject.sites(role) if site.side == "out"]


def _hooked(subject: Subject, name: str, number: int, hook: str) -> Site:
    if "resid" not in subject.roles():
        raise UnknownName(
            "place", name, map(str, _known(subject)), f"a hook point of language models; {subject.name} is none"
        )
    blocks = subject.sites("resid")
    if number >= len(blocks):
        raise UnknownName("place", name, [], f"{subject.name} has {len(blocks)} blocks")
    block = blocks[number]
    inside = subject.components[block.component].get_submodule(block.path)
    if hook in AFTER_NORM and hasattr(inside, AFTER_NORM["hook_mlp_out"]) and hasattr(inside, AFTER_NORM[hook]):
        return Site(block.component, f"{block.path}.{AFTER_NORM[hook]}")
    mlp, attention = subject.sites("mlp_out")[number], subject.sites("attn_out")[number]
    table = {
        "hook_resid_post": block,
        "hook_resid_pre": blocks[number - 1] if number else Site(block.component, block.path, "in"),
        "hook_mlp_out": mlp,
        "hook_attn_out": attention,
        "mlp.hook_post": subject.sites("mlp_hidden")[number],
        "hook_mlp_in": Site(mlp.component, mlp.path, "in"),
        "mlp.hook_in": Site(mlp.component, mlp.path, "in"),
        "ln2.hook_normalized": Site(mlp.component, mlp.path, "in"),
        "attn.hook_z": _heads(subject, attention),
        "hook_z": _heads(subject, attention),
    }
    if hook not in table:
        raise UnknownName("hook point", name, [f"blocks.{number}.{known}" for known in table], subject.name)
    return table[hook]


def _heads(subject: Subject, attention: Site) -> Site:
    """What goes into attention's last matrix: heads side by side."""
    inside = subject.components[attention.component].get_submodule(attention.path)
    matrices = [path for path, m in inside.named_modules() if path and getattr(m, "weight", None) is not None
                and m.weight.ndim == 2]  # fmt: skip
    return Site(attention.component, f"{attention.path}.{matrices[-1]}", "in")


def _modules(subject: Subject, name: str, component: str | None) -> list[Site]:
    """Modules whose path is `name`, or ends in it; those with it whole come before those that end in it."""
    path, _, end = name.rpartition(".")
    side = {"output": "out", "input": "in"}.get(end)
    wanted = path if side else name
    whole, tails = [], []
    for owner, root in subject.components.items():
        if component not in (None, owner):
            continue
        inside = wanted.removeprefix(f"{owner}.")
        for at, _ in root.named_modules():
            if not at:
                continue
            if at in (wanted, inside):
                whole.append(_at(subject, owner, at, side))
            elif at.endswith(f".{wanted}"):
                tails.append(_at(subject, owner, at, side))
    return whole or tails


def _at(subject: Subject, owner: str, path: str, side: str | None) -> Site:
    """The site of a module, with the item of its output that its role names."""
    if side == "in":
        return Site(owner, path, "in")
    plain = Site(owner, path)
    return next((s for s in _known(subject) if (s.component, s.path) == (owner, path)), plain)


def check_width(sae: Sae, subject: Subject, where: str) -> None:
    """ValueError where the autoencoder is of another width than the stream of a language model that it reads."""
    stream = ("resid", "attn_out", "mlp_out", "text_out")
    if "resid" in subject.roles() and any(sae.site in subject.sites(role) for role in stream):
        at = subject.sites("token_embedding")[0]
        d = subject.components[at.component].get_submodule(at.path).weight.shape[1]  # pyright: ignore
        if sae.d != d:
            raise ValueError(f"{where}: it reads rows of width {sae.d}, and {sae.site} of {subject.name} has width {d}")
