"""What is going on in a subject: tensors in the place of its own, taps, the pass under way, and blocks that look past
what is on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from concept_probe.families.holds import Holds, Remake
from concept_probe.families.reads import Reads
from concept_probe.families.users import Users
from concept_probe.families.walk import modules_under
from concept_probe.types import Moment, Site


class Stopped(BaseException):
    """Raised from a hook and caught by the `stop_after` that raised it.

    Not an Exception, so that no `except Exception` of a model library swallows it.
    """


@contextmanager
def swapped(tensors: Iterable[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    """Hold tensors in the place of those of parameters, which come back with the end of the block, also after an error.

    >>> with swapped((p, p.data.clone()) for p in module.parameters()):
    ...     train(module)  # every byte as before afterwards

    Storage is exchanged and nothing is computed, so every byte comes back. Pairs are taken one by one: the second may
    depend on what the first has put in place.
    """
    held: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for parameter, tensor in tensors:
            held.append((parameter, parameter.data))
            parameter.data = tensor
        yield
    finally:
        for parameter, own in reversed(held):
            parameter.data = own


@contextmanager
def with_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients for these parameters, for a while; they are dropped at the end, and each flag is as it was."""
    before = [p.requires_grad for p in parameters]
    try:
        for p in parameters:
            p.requires_grad_(True)
        yield
    finally:
        for p, flag in zip(parameters, before, strict=True):
            p.requires_grad_(flag)
            p.grad = None


@contextmanager
def uncheckpointed(components: Iterable[nn.Module]) -> Iterator[None]:
    """Passes inside keep what their backward pass needs; gradient checkpointing is back at the end.

    It would run parts of a pass a second time, when nobody knows whose rows they are and taps may be gone.
    """
    switched = [
        m for root in components for _, m in modules_under(root) if vars(m).get("gradient_checkpointing") is True
    ]
    try:
        for module in switched:
            vars(module)["gradient_checkpointing"] = False
        yield
    finally:
        for module in switched:
            vars(module)["gradient_checkpointing"] = True


def eager() -> AbstractContextManager[Any]:
    """Run what `torch.compile` has compiled as it is written, inside the block."""
    return torch.compiler.set_stance("force_eager")


_STATES: WeakKeyDictionary[nn.Module, State] = WeakKeyDictionary()


def state_of(modules: Iterable[nn.Module]) -> State:
    """The state of these modules: subjects around the same ones share it, since what is on in one is on in all."""
    modules = tuple(modules)
    state = next((_STATES[m] for m in modules if m in _STATES), None) or State()
    for module in modules:
        _STATES.setdefault(module, state)
    return state


class State:
    """What is on in one subject, and which pass is under way.

    A tap is awake in the passes of its own block and asleep inside a `pristine` block that is entered after it: it
    remembers `depth` when it is entered and asks `asleep(depth)` at every pass.
    """

    def __init__(self) -> None:
        self._holds = Holds()
        self._taps: Counter[Site] = Counter()
        self._depth = 0
        self._moments: list[Moment] = []
        self._users = Users()
        self._reads: list[Reads] = []
        self._acting: list[tuple[int, str]] = []

    @contextmanager
    def acting(self, what: str) -> Iterator[None]:
        """Say that `what`, which changes what the subject does and no weight, is on inside."""
        entry = (self._depth, what)
        self._acting.append(entry)
        try:
            yield
        finally:
            self._acting.remove(entry)

    def on(self) -> list[str]:
        """What is on and awake that no hash of weights tells: each as `acting` was told it."""
        return [what for depth, what in self._acting if not self.asleep(depth)]

    def alone(self) -> AbstractContextManager[None]:
        """Keep other threads out until the end of the block. Raises RuntimeError where one is inside."""
        return self._users.alone()

    @property
    def moment(self) -> Moment | None:
        """The pass under way; None outside one."""
        return self._moments[-1] if self._moments else None

    @contextmanager
    def during(self, moment: Moment) -> Iterator[None]:
        """Say that what runs inside belongs to `moment`.

        What `torch.compile` has compiled runs as it is written, for compiled code passes over hooks of its parts.
        """
        with ExitStack() as stack:
            stack.enter_context(self.alone())
            stack.enter_context(eager())
            for reads in self._reads:
                if reads.unread:
                    stack.enter_context(reads)
            self._moments.append(moment)
            try:
                yield
            finally:
                self._moments.pop()

    @contextmanager
    def reading(self, weights: Mapping[str, nn.Parameter]) -> Iterator[Reads]:
        """Watch which of `weights`, by their addresses, the passes inside read."""
        reads = Reads(weights)
        self._reads.append(reads)
        try:
            yield reads
        finally:
            self._reads.remove(reads)

    @contextmanager
    def ending(self, components: Mapping[str, nn.Module]) -> Iterator[set[str]]:
        """The names of those components whose forward pass ran to its end inside, while not asleep: a set that fills."""
        ended: set[str] = set()
        depth = self._depth

        def end(name: str) -> None:
            if not self.asleep(depth):
                ended.add(name)

        handles = [m.register_forward_hook(lambda *_, name=name: end(name)) for name, m in components.items()]
        try:
            yield ended
        finally:
            for handle in handles:
                handle.remove()

    @property
    def depth(self) -> int:
        """How many `pristine` blocks are open."""
        return self._depth

    def asleep(self, depth: int) -> bool:
        """Whether what was entered at `depth` sleeps, since a `pristine` block was entered after it."""
        return self._depth > depth

    def taps(self, site: Site) -> int:
        """How many taps are on at a site."""
        return self._taps[site]

    def originals(self) -> list[tuple[nn.Parameter, Tensor]]:
        """The parameters that edits which are on have changed, each with the tensor that it held before the first."""
        return self._holds.originals()

    @contextmanager
    def tapped(self, site: Site) -> Iterator[None]:
        """Count a tap at `site` as on."""
        self._taps[site] += 1
        try:
            with self.alone():
                yield
        finally:
            self._taps[site] -= 1

    @contextmanager
    def edited(
        self, tensors: Sequence[tuple[nn.Parameter, Tensor]], changes: Sequence[Remake | None] | None = None
    ) -> Iterator[None]:
        """`swapped`, as an edit that `unedited` and `pristine` put aside; blocks of edits may end in any order.

        `changes` are how each tensor is made from what was there: for an edit that stays where one below it ends.
        """
        with self.alone(), self._holds.held(tensors, changes):
            yield

    @contextmanager
    def unedited(self) -> Iterator[None]:
        """The weights as they were before any edit that is on; taps act as ever."""
        with self.alone(), self._holds.held(self.originals()):
            yield

    @contextmanager
    def pristine(self) -> Iterator[None]:
        """`unedited`, with the taps that are on asleep."""
        self._depth += 1
        try:
            with self.unedited():
                yield
        finally:
            self._depth -= 1

    @contextmanager
    def stop_after(self, modules: Mapping[Site, nn.Module]) -> Iterator[None]:
        """Leave the block as soon as each of the sites, which are at `modules`, has been met once.

        Taps entered before see their tensors first; passes that a tap has made inside another are nobody's to wait for.
        """
        waiting, depth, mine = set(modules), self._depth, Stopped()

        def meet(site: Site) -> None:
            moment = self.moment
            if self.asleep(depth) or (moment is not None and moment.nested):
                return
            waiting.discard(site)
            if not waiting:
                raise mine

        handles = []
        try:
            for site, module in modules.items():
                if site.side == "in":
                    handles.append(module.register_forward_pre_hook(lambda *_, site=site: meet(site)))
                else:
                    handles.append(module.register_forward_hook(lambda *_, site=site: meet(site)))
            yield
        except Stopped as stopped:
            if stopped is not mine:
                raise
        finally:
            for handle in handles:
                handle.remove()
