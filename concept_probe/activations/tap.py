"""Look at tensors in passing, or put others in their place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from concept_probe.families.identity import name_of_others
from concept_probe.families.reads import passed_over
from concept_probe.families.state import uncheckpointed
from concept_probe.types import Moment, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject
    from concept_probe.families.segments import Segment

Look = Callable[[Tensor, Moment], Tensor | None]


@contextmanager
def tap(subject: Subject, looks: Mapping[Site, Look]) -> Iterator[None]:
    """While inside, call `fn(x, moment)` whenever the forward pass meets a site; a returned tensor replaces `x`.

    >>> with tap(subject, {site: lambda x, moment: x * 0}):
    ...     pictures = subject.generate(queries)

    `x` is the tensor itself, attached to any graph. Taps on one site run in the order in which they were entered,
    each seeing what the one before it left; those entered before a `subject.pristine` sleep inside it. Raises UnknownName
    for a site that the subject lacks, before any hook is set; ValueError or TypeError, with the site, if a replacement
    has another shape or dtype. At the end of the block, ValueError for a site that was never met though a forward pass
    of its component ran to its end: what was looked for or put there had no part in the answer.
    """
    modules = {site: subject.module(site) for site in looks}
    for site in looks:
        if site.side == "weight":
            raise ValueError(f"site {str(site)!r} is a weight, which no forward pass produces; tap ':in' or ':out'")
        if site.side == "in" and site.item is not None:
            raise ValueError(f"site {str(site)!r} has an item; only outputs and weights have items")
    unmet = set(looks)
    components = {site.component: subject.components[site.component] for site in looks}
    with ExitStack() as stack:
        ended = stack.enter_context(subject.state.ending(components))
        stack.enter_context(uncheckpointed(components.values()))
        for site, look in looks.items():
            stack.callback(_hook(subject, modules[site], site, _awake(subject, site, look, unmet)).remove)
            stack.enter_context(subject.state.tapped(site))
            if name := name_of_others(look):
                stack.enter_context(subject.state.acting(f"{name} at {site}"))
        yield
    for site in looks:
        if site in unmet and site.component in ended:
            raise ValueError(
                f"{subject.name}: a forward pass of {site.component!r} ran to its end and never met site {str(site)!r}; "
                f"{passed_over(components[site.component], site.path)}"
            )


def refuse_shared_modules(subject: Subject, sites: Iterable[Site]) -> None:
    """Raise ValueError for a site whose module stands at several paths: what passes at one is seen at the other too."""
    paths: dict[nn.Module, set[str]] = defaultdict(set)
    for name, root in subject.components.items():
        for path, module in root.named_modules(remove_duplicate=False):
            paths[module].add(f"{name}/{path}")
    for site in sites:
        others = paths[subject.module(site)] - {f"{site.component}/{site.path}"}
        if others:
            raise ValueError(
                f"{subject.name}: the module at site {str(site)!r} is the one at {sorted(others)[0]!r} too, so nobody can tell "
                "what passes at which; give each place a module of its own (a deep copy)"
            )


def _awake(subject: Subject, site: Site, look: Look, unmet: set[Site]) -> Look:
    """`look`, but for the blocks `subject.pristine` that are entered after it; takes the site out of `unmet`."""
    state, depth = subject.state, subject.state.depth

    def awake(x: Tensor, moment: Moment) -> Tensor | None:
        if state.asleep(depth):
            return None
        unmet.discard(site)
        return look(x, moment)

    return awake


def _hook(subject: Subject, module: nn.Module, site: Site, look: Look) -> Any:
    segment = subject.segment(site)
    if segment is not None:
        look, site = _of_segment(subject, site, segment, look), replace(site, item=segment.item)
    if site.side == "out":
        return module.register_forward_hook(lambda _m, _args, out: _after(subject, site, look, out))
    if site.side == "change":
        return module.register_forward_hook(
            lambda _m, args, kwargs, out: _after(subject, site, _of_change(subject, site, look, args, kwargs), out),
            with_kwargs=True,
        )
    return module.register_forward_pre_hook(
        lambda _m, args, kwargs: _before(subject, site, look, args, kwargs), with_kwargs=True
    )


def _after(subject: Subject, site: Site, look: Look, out: Any) -> Any:
    if isinstance(out, Tensor) and site.item is None:
        return _seen(subject, site, look, out)
    if isinstance(out, tuple | list):
        at = _item(site, out)
        new = _seen(subject, site, look, out[at])
        return None if new is None else type(out)((*out[:at], new, *out[at + 1 :]))
    if isinstance(out, MutableMapping):  # a library's named outputs
        names = list(out)
        name = names[_item(site, [out[n] for n in names])]
        new = _seen(subject, site, look, out[name])
        if new is not None:
            out[name] = new
        return None
    raise TypeError(f"site {str(site)!r}: the output is a {type(out).__name__}, not a tensor or a tuple with that item")


def _of_segment(subject: Subject, site: Site, segment: Segment, look: Look) -> Look:
    """A look at a tensor that shows `look` the rows that the site names, and puts a replacement of those in."""

    def at_tensor(x: Tensor, moment: Moment) -> Tensor | None:
        rows = segment.rows()
        new = _seen(subject, site, look, rows.read(x))
        return None if new is None else rows.write(x, new)

    return at_tensor


def _of_change(subject: Subject, site: Site, look: Look, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Look:
    """A look at the output that shows `look` what the module adds to its input, and puts a replacement of that in."""
    start = next((one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)

    def at_output(out: Tensor, moment: Moment) -> Tensor | None:
        if start is None or start.shape != out.shape:
            came = "no tensor" if start is None else f"{tuple(start.shape)}"
            raise TypeError(
                f"site {str(site)!r}: {came} goes in and {tuple(out.shape)} comes out, so the module adds nothing to its "
                "input; ':out' is what it gives"
            )
        change = out - start
        new = _seen(subject, site, look, change)
        return None if new is None else out + (new - change)  # exact where nothing was replaced

    return at_output


def _item(site: Site, out: Any) -> int:
    tensors = [i for i, one in enumerate(out) if isinstance(one, Tensor)]
    if site.item is None and len(tensors) == 1:
        return tensors[0]
    if site.item in tensors:
        return site.item
    raise TypeError(f"site {str(site)!r}: the output has tensors at items {tensors}; name one of them as ':out[item]'")


def _before(subject: Subject, site: Site, look: Look, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for at, one in enumerate(args):
        if isinstance(one, Tensor):
            new = _seen(subject, site, look, one)
            return None if new is None else ((*args[:at], new, *args[at + 1 :]), kwargs)
    for name, one in kwargs.items():
        if isinstance(one, Tensor):
            new = _seen(subject, site, look, one)
            return None if new is None else (args, {**kwargs, name: new})
    raise TypeError(f"site {str(site)!r}: the module was called without a tensor")


def _seen(subject: Subject, site: Site, look: Look, x: Tensor) -> Tensor | None:
    scale = subject.scale(site)
    held = x if scale == 1 else x * scale
    new = look(held, subject.moment)
    if new is None or (new is held and scale != 1):
        return None
    if not isinstance(new, Tensor):
        raise TypeError(
            f"the tap at {str(site)!r} returned a {type(new).__name__}; return a tensor, or None to only look"
        )
    if new.shape != x.shape:
        raise ValueError(f"the tap at {str(site)!r} returned shape {tuple(new.shape)} for {tuple(x.shape)}")
    if new.dtype != x.dtype or new.device != x.device:
        raise TypeError(
            f"the tap at {str(site)!r} returned {new.dtype} on {new.device} for {x.dtype} on {x.device}; "
            "return `.to(x)`"
        )
    return new if scale == 1 else new / scale
