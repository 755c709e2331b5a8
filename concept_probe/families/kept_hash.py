"""Hashes of weights that are taken once, and kept for as long as the weights are the same."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import OrderedDict, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from concept_probe.storage import tensors_sha256

SAMPLE = 4096
"""Values of each tensor that are compared, at least; tensors of up to twice as many are compared whole."""
KEPT = 8
"""States of one model whose hashes are kept: as it is, and under the edits that are switched on in turn."""
Identity = tuple[object, ...]
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def identity_of(tensors: Sequence[tuple[str, Tensor]]) -> Identity | None:
    """What stays equal while named tensors are the same, without reading them whole.

    It is names, memory, layout, what PyTorch counts of writes (`Tensor._version`), and a sample of the values. Memory
    is known by its storage and not by its address, which the next tensor may be given. The sample is for writes
    through `Tensor.data`, which nobody counts: it is spread so that it meets every row and every column of a matrix
    of up to `SAMPLE` on a side, and misses changes of single values in larger tensors.

    None where that can't be told: of tensors that wrap others, as some that are quantised do, and of those made in
    inference mode, whose writes aren't counted.
    """
    out: list[object] = []
    samples: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for name, tensor in tensors:
        wraps = hasattr(type(tensor), "__tensor_flatten__")
        if wraps or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_inference():
            return None
        memory = StorageWeakRef(tensor.untyped_storage())
        layout = (tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        out.append((name, memory, tensor.data_ptr(), tensor._version, *layout))
        values = sampled(tensor)
        samples[values.device, values.dtype].append(values)
    sha = hashlib.sha256()
    for several in samples.values():
        sha.update(torch.cat(several).cpu().view(torch.uint8).numpy().data)
    return (*out, sha.hexdigest())


def sampled(tensor: Tensor) -> Tensor:
    """Values (s,) of a tensor from all over it, as integers of their size: every so many in the order of its memory.

    How many are skipped has no divisor in common with how many there are, so that the sample meets every place along
    each side of up to `SAMPLE`.
    """
    plain = tensor.detach()
    shape = plain.shape
    if _fills_its_memory(shape, plain.stride()):
        step = _step(plain.numel())
        some = plain.as_strided((-(-plain.numel() // step),), (step,))
    else:
        some = plain.reshape(-1)[:: _step(plain.numel())]
    as_integers = _INTEGERS.get(plain.element_size())
    return some.contiguous().view(torch.uint8) if as_integers is None else some.view(as_integers)


@functools.lru_cache(maxsize=4096)
def _step(count: int) -> int:
    step = max(1, count // SAMPLE)
    while math.gcd(step, max(count, 1)) > 1:
        step -= 1
    return step


@functools.lru_cache(maxsize=4096)
def _fills_its_memory(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the values of a tensor lie side by side, in whichever order of its axes, none of them twice."""
    expected = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


class KeptHash:
    """`tensors_sha256` of the tensors of one owner, whose bytes are read again only where they may have changed.

    A copy of it, as of its owner, begins with nothing kept.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Identity, str] = OrderedDict()

    def __deepcopy__(self, memo: object) -> KeptHash:
        return KeptHash()

    def __reduce__(self) -> tuple[type[KeptHash], tuple[()]]:
        return KeptHash, ()

    def sha256(self, tensors: Sequence[tuple[str, Tensor]], *, whole: bool = False) -> str:
        """Hex sha256 of the tensors as they are now; `whole` reads every byte in any case, and keeps what comes out."""
        identity = identity_of(tensors)
        known = None if whole or identity is None else self._kept.get(identity)
        found = tensors_sha256(tensors) if known is None else known
        if identity is not None:
            self._kept[identity] = found
            self._kept.move_to_end(identity)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found
