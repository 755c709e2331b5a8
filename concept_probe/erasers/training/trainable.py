"""What an optimiser works on: parameters, entries or columns of them, or adapters. Outside `on` the subject is frozen."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from concept_probe.erasers.erasure.deltas import Columns, Delta, LowRank, Shift
from concept_probe.erasers.erasure.parameters import address, dtype_of, find_parameter, refuse_shared, split_address
from concept_probe.families.state import swapped, with_gradients
from concept_probe.types import Site

if TYPE_CHECKING:
    from concept_probe.families import Subject


class Trainable(ABC):
    """A change of a subject that an optimiser works on; nothing of the subject is changed outside `on`."""

    @abstractmethod
    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Groups for an optimiser; a step of Adam moves a weight by about `rate` times the mean size of its entries."""

    @abstractmethod
    def on(self) -> contextlib.AbstractContextManager[None]:
        """The subject with the change, taking gradients; its own bytes are back afterwards."""

    @abstractmethod
    def reference(self) -> contextlib.AbstractContextManager[None]:
        """Within `on`: the subject as it was, for a while."""


class Student(Trainable):
    """A change of weights, which can be kept as an edit."""

    @abstractmethod
    def deltas(self) -> dict[str, Delta]:
        """What the change has become."""


class HookDelta:
    """How what is added to the outputs of modules has its reference: hooks add nothing while `disabled`."""

    disabled = False

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """Within `on`: the subject as it was, for a while."""
        self.disabled = True
        try:
            yield
        finally:
            self.disabled = False


def root_mean_square(x: Tensor) -> float:
    """Root mean square of the entries."""
    return float(x.detach().float().square().mean().sqrt())


def groups_by_size(parameters: Sequence[nn.Parameter], sizes: Sequence[float], rate: float) -> list[dict[str, Any]]:
    """Groups for an optimiser in which each parameter moves by `rate` times its size per step of Adam.

    A size is a root mean square; one below a hundredth of the largest counts as that.
    """
    floor = 1e-2 * max(sizes)
    return [{"params": [p], "lr": rate * max(size, floor)} for p, size in zip(parameters, sizes, strict=True)]


class FullWeights(Student):
    """Parameters at addresses, all of their entries. Raises as `find_parameter` does, and for tied ones."""

    def __init__(self, subject: Subject, addresses: Sequence[str]) -> None:
        self.parameters = {where: find_parameter(subject.components, where) for where in dict.fromkeys(addresses)}
        refuse_shared(subject.components, self.parameters)
        self.original = {where: p.data for where, p in self.parameters.items()}
        self.trained = {where: x.clone() for where, x in self.original.items()}
        self.transposed = {where for where in self.parameters if _is_transposed(subject, where)}

    def groups(self, rate: float) -> list[dict[str, Any]]:
        sizes = [root_mean_square(x) for x in self.original.values()]
        return groups_by_size(list(self.parameters.values()), sizes, rate)

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        with self._holding(self.trained), with_gradients(list(self.parameters.values())):
            yield

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        with self._holding(self.original):
            yield

    def _holding(self, tensors: Mapping[str, Tensor]) -> contextlib.AbstractContextManager[None]:
        return swapped((p, tensors[where]) for where, p in self.parameters.items())

    def deltas(self) -> dict[str, Delta]:
        return {
            where: Shift(x.float() - self.original[where].float(), "in_out" if where in self.transposed else "out_in")
            for where, x in self.trained.items()
        }


def _is_transposed(subject: Subject, where: str) -> bool:
    """Whether the parameter at an address is a matrix that is held transposed."""
    component, name = split_address(where)
    path, _, leaf = name.rpartition(".")
    return leaf == "weight" and subject.orientation(Site(component, path, "weight")) == "in_out"


class MaskedWeights(FullWeights):
    """Those entries of parameters where a mask is true: bool, in the parameter's shape, by address."""

    def __init__(self, subject: Subject, masks: Mapping[str, Tensor]) -> None:
        super().__init__(subject, list(masks))
        self.masks = dict(masks)

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        with super().on():
            # Adam moves no entry whose gradient was 0 at every step.
            handles = [p.register_hook(partial(torch.mul, self.masks[w].to(p))) for w, p in self.parameters.items()]
            try:
                yield
            finally:
                for handle in handles:
                    handle.remove()


class LowRankAdapters(HookDelta, Student):
    """W + u vᵀ beside the weight of each module, `rank` columns each; u starts at 0, v at random.

    Of a convolution, whose weight (d_out, c, h, w) counts as a matrix (d_out, c h w), v is a convolution to `rank` channels
    of the same stride and padding, and u one of a single place.
    """

    def __init__(self, subject: Subject, sites: Sequence[Site], rank: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.modules: dict[str, nn.Module] = {}
        self.pairs: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        self.sizes: dict[str, float] = {}
        self.transposed: set[str] = set()
        for site in sites:
            where, module = address(site), subject.module(site)
            weight = find_parameter(subject.components, where)
            transposed = subject.orientation(site) == "in_out"
            plain = isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"
            if not isinstance(module, nn.Linear) and not transposed and not plain:
                raise ValueError(
                    f"{where!r} belongs to a {type(module).__name__}; adapters go beside linear modules and convolutions that are "
                    "not in groups"
                )
            wide = dtype_of(weight)
            d_out, d_in = reversed(weight.shape) if transposed else (len(weight), weight[0].numel())
            v = torch.randn(d_in, rank, generator=generator).to(weight.device, wide)
            u = torch.zeros(d_out, rank, device=weight.device, dtype=wide)
            self.transposed |= {where} if transposed else set()
            self.modules[where], self.sizes[where] = module, root_mean_square(weight)
            self.pairs[where] = (nn.Parameter(u, requires_grad=False), nn.Parameter(v, requires_grad=False))

    def groups(self, rate: float) -> list[dict[str, Any]]:
        out = []
        for where, (u, v) in self.pairs.items():
            out += [{"params": [u], "lr": rate * self.sizes[where]}, {"params": [v], "lr": rate}]
        return out

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        with with_gradients([x for pair in self.pairs.values() for x in pair]), self.active():
            yield

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The subject with the change as it is, which takes no gradients."""
        handles = []
        try:
            for where, (u, v) in self.pairs.items():
                # Before any tap, so that taps see what the changed weight would give.
                module = self.modules[where]
                hook = self._of_convolution(module, u, v) if isinstance(module, nn.Conv2d) else self._hook(u, v)
                handles.append(module.register_forward_hook(hook, prepend=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, u: Tensor, v: Tensor) -> Callable[[Any, Any, Tensor], Tensor | None]:
        def hook(module: Any, args: Any, out: Tensor) -> Tensor | None:
            return None if self.disabled else out + (args[0].to(v) @ v @ u.mT).to(out)

        return hook

    def _of_convolution(self, module: nn.Conv2d, u: Tensor, v: Tensor) -> Callable[[Any, Any, Tensor], Tensor | None]:
        def hook(_: Any, args: Any, out: Tensor) -> Tensor | None:
            if self.disabled:
                return None
            kernel = v.mT.reshape(-1, *module.weight.shape[1:])
            low = nn.functional.conv2d(args[0].to(v), kernel, None, module.stride, module.padding, module.dilation)
            return out + nn.functional.conv2d(low, u[..., None, None]).to(out)

        return hook

    def deltas(self) -> dict[str, Delta]:
        out: dict[str, Delta] = {}
        for where, pair in self.pairs.items():
            u, v = (x.detach().clone() for x in pair)
            out[where] = LowRank(u, v, "in_out" if where in self.transposed else "out_in")
        return out


class ColumnDeltas(HookDelta, Student):
    """What is added to some columns of matrices (linear ones), beginning at `start`: site -> (their numbers, (d, m)).

    Raises as `find_parameter` does, and for tied ones.
    """

    def __init__(self, subject: Subject, start: Mapping[Site, tuple[Sequence[int], Tensor]]) -> None:
        found = {address(site): find_parameter(subject.components, address(site)) for site in start}
        refuse_shared(subject.components, found)
        self.subject = subject
        self.sites = {address(site): site for site in start}
        self.sizes = {where: root_mean_square(weight) for where, weight in found.items()}
        self.indices = {address(site): torch.tensor(list(items)) for site, (items, _) in start.items()}
        self.values = {
            address(site): nn.Parameter(added.detach().to(found[address(site)].device, copy=True), requires_grad=False)
            for site, (_, added) in start.items()
        }

    def groups(self, rate: float) -> list[dict[str, Any]]:
        return [{"params": [x], "lr": rate * self.sizes[where]} for where, x in self.values.items()]

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        with with_gradients(list(self.values.values())), contextlib.ExitStack() as stack:
            for where, x in self.values.items():
                module = self.subject.module(self.sites[where])
                # Before any tap, so that taps see what the changed weight would give.
                handle = module.register_forward_hook(self._hook(self.indices[where], x), prepend=True)
                stack.callback(handle.remove)
            yield

    def _hook(self, indices: Tensor, values: Tensor) -> Callable[[Any, Any, Tensor], Tensor | None]:
        def hook(module: Any, args: Any, out: Tensor) -> Tensor | None:
            if self.disabled:
                return None
            return out + (args[0][..., indices.to(out.device)].to(values) @ values.mT).to(out)

        return hook

    def deltas(self) -> dict[str, Delta]:
        return {
            where: Columns(
                self.indices[where], x.detach().clone(), self.subject.matrix(self.sites[where]).shape[1],
                self.subject.orientation(self.sites[where]),
            )
            for where, x in self.values.items()
        }  # fmt: skip
