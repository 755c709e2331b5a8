"""The next batches, made in the background while one is used."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor

from concept_probe.families.users import for_this_thread
from concept_probe.types import Prompt, Site

_Batch = TypeVar("_Batch", Tensor, tuple[Tensor, ...])
AHEAD = 4
PATIENCE = 0.2
"""Seconds after which a full queue looks whether anybody is left to read it."""


def prefetch(
    source: Iterable[_Batch], *, ahead: int = AHEAD, device: torch.device | None = None
) -> Generator[_Batch, None, None]:
    """What `source` gives, made by a thread that is at most `ahead` batches ahead.

    >>> for x in prefetch(acts.batches(site, 4096, epochs=1), device=subject.device): ...

    With `device`, tensors that are not there are copied: from pinned memory, beside the computation, where it is a
    CUDA device. The batches are those of `source`, in its order. What `source` raises is raised here, with its own
    traceback, after the batches before it. Closing (also by dropping the iterator, or by leaving with
    KeyboardInterrupt) waits for the batch that is being made, ends the thread and closes `source`.
    """
    if ahead < 1:
        raise ValueError(f"ahead is {ahead}; it must be at least 1 batch")
    return _consume(source, _Queue(ahead), _mover(device))


def _consume(source: Iterable[_Batch], queue: _Queue[_Batch], move: _Mover) -> Generator[_Batch, None, None]:
    thread = threading.Thread(target=for_this_thread(_produce), args=(source, queue, move), name="prefetch")
    thread.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, _Failed):
                raise item.error
            yield move.arrived(item.batch)
    finally:
        queue.close()
        thread.join()


def _produce(source: Iterable[_Batch], queue: _Queue[_Batch], move: _Mover) -> None:
    iterator = iter(source)
    try:
        for batch in iterator:
            if not queue.put(_Made(move.sent(batch))):
                return
        queue.put(None)
    except BaseException as error:  # the consumer's to handle, whatever it is
        queue.put(_Failed(error))
    finally:
        if isinstance(iterator, Generator):
            iterator.close()
        del iterator


@dataclass(frozen=True)
class _Failed:
    error: BaseException


@dataclass(frozen=True)
class _Made(Generic[_Batch]):
    batch: _Batch


@dataclass
class _Queue(Generic[_Batch]):
    """Bounded; either side can leave."""

    ahead: int
    _items: deque[_Made[_Batch] | _Failed | None] = field(default_factory=deque)
    _change: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False

    def put(self, item: _Made[_Batch] | _Failed | None) -> bool:
        """Wait for room; False once nobody reads any more."""
        with self._change:
            while not self._closed and len(self._items) >= self.ahead:
                self._change.wait(PATIENCE)
                # An iterator that nobody closed must not keep a program from ending.
                self._closed |= not threading.main_thread().is_alive()
            if not self._closed:
                self._items.append(item)
                self._change.notify_all()
            return not self._closed

    def get(self) -> _Made[_Batch] | _Failed | None:
        with self._change:
            while not self._items:
                self._change.wait(PATIENCE)  # a wait without an end is deaf to an interruption on some systems
            self._change.notify_all()
            return self._items.popleft()

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._items.clear()
            self._change.notify_all()


class _Mover:
    """Leaves batches where they are, or copies them."""

    def __init__(self, device: torch.device | None) -> None:
        self.device = device

    def sent(self, batch: _Batch) -> _Batch:
        """In the thread that makes batches."""
        if self.device is None:
            return batch
        return _each(batch, lambda x: x.to(self.device))

    def arrived(self, batch: _Batch) -> _Batch:
        """In the thread that uses them."""
        return batch


class _CudaMover(_Mover):
    """Copies on a stream of its own; whoever uses a batch waits for its copy and for nothing else."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.stream = torch.cuda.Stream(device)
        self.copied: deque[torch.cuda.Event] = deque()

    def sent(self, batch: _Batch) -> _Batch:
        with torch.cuda.stream(self.stream):
            out = _each(batch, lambda x: x if x.is_cuda else x.pin_memory().to(self.device, non_blocking=True))
            copied = torch.cuda.Event()
            copied.record(self.stream)
        self.copied.append(copied)
        return out

    def arrived(self, batch: _Batch) -> _Batch:
        current = torch.cuda.current_stream(self.device)
        current.wait_event(self.copied.popleft())
        # The allocator would otherwise give the memory away while the user's stream still reads it.
        _each(batch, lambda x: x.record_stream(current) or x)
        return batch


def _mover(device: torch.device | None) -> _Mover:
    return _CudaMover(device) if device is not None and device.type == "cuda" else _Mover(device)


def _each(batch: _Batch, change: Callable[[Tensor], Tensor]) -> _Batch:
    if isinstance(batch, Tensor):
        return cast(_Batch, change(batch))
    return cast(_Batch, tuple(change(x) for x in batch))


class RowSource(Protocol):
    """What a store and a live draw have in common."""

    @property
    def subject(self) -> str: ...
    @property
    def weight_hash(self) -> str: ...
    @property
    def sites(self) -> tuple[Site, ...]: ...
    @property
    def prompts(self) -> tuple[Prompt, ...]: ...

    def width(self, site: Site) -> int: ...
    def rows(self, site: Site) -> int: ...
    def batches(
        self, site: Site, size: int, *, seed: int = 0, epochs: int | None = None, start: int = 0
    ) -> Iterator[Tensor]: ...
    def joint(
        self, sites: Sequence[Site], size: int, *, seed: int = 0, epochs: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, ...]]: ...


class Prefetched:
    """A store or a live draw whose batches are made in the background.

    >>> sae = train_sae(Prefetched(acts, device=device))

    Options as for `prefetch`.
    """

    def __init__(self, source: RowSource, *, ahead: int = AHEAD, device: torch.device | None = None) -> None:
        self.source = source
        self.ahead = ahead
        self.device = device

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.source.sites

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return self.source.prompts

    @property
    def subject(self) -> str:
        return self.source.subject

    @property
    def skips_first(self) -> bool:
        """Whether the source leaves first positions of texts out."""
        return bool(getattr(self.source, "skips_first", False))

    @property
    def weight_hash(self) -> str:
        return self.source.weight_hash

    def learnable(self) -> Prefetched:
        """The rows that a dictionary is learned from, as the source says."""
        chosen = getattr(self.source, "learnable", lambda: self.source)()
        return self if chosen is self.source else Prefetched(chosen, ahead=self.ahead, device=self.device)

    def width(self, site: Site) -> int:
        """Numbers per row, d."""
        return self.source.width(site)

    def rows(self, site: Site) -> int:
        """Rows of one epoch."""
        return self.source.rows(site)

    def batches(
        self, site: Site, size: int, *, seed: int = 0, epochs: int | None = None, start: int = 0
    ) -> Iterator[Tensor]:
        """The batches (size, d) of the source, on `device`."""
        drawn = self.source.batches(site, size, seed=seed, epochs=epochs, start=start)
        return prefetch(drawn, ahead=self.ahead, device=self.device)

    def joint(
        self, sites: Sequence[Site], size: int, *, seed: int = 0, epochs: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, ...]]:
        """Batches of the same rows at several sites, one (size, d) per site, on `device`."""
        drawn = self.source.joint(sites, size, seed=seed, epochs=epochs, start=start)
        return prefetch(drawn, ahead=self.ahead, device=self.device)
