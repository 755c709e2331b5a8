"""Batches made in the background are the same batches; the thread ends with whoever reads it."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
import torch

from concept_probe.activations import Live, Prefetched, prefetch
from concept_probe.activations.prefetch import _CudaMover
from concept_probe.learn import ActivationStore
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from tests.learn.training import trained

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def numbers(n: int | None = None, log: list[str] | None = None, pause: float = 0.0):
    try:
        for i in itertools.count() if n is None else range(n):
            time.sleep(pause)
            yield torch.tensor([i])
    finally:
        if log is not None:
            log.append(threading.current_thread().name)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_the_batches_are_the_source_s_in_order():
    assert [int(x) for x in prefetch(numbers(50))] == list(range(50))
    assert list(prefetch([])) == []
    pairs = list(prefetch((x, -x) for x in numbers(3)))
    assert [(int(a), int(b)) for a, b in pairs] == [(0, 0), (1, -1), (2, -2)]


def test_on_the_same_device_nothing_is_copied():
    x = torch.ones(3)
    assert next(prefetch([x], device=x.device)) is x


def test_an_error_comes_after_the_batches_before_it_with_its_traceback():
    def spoiled():
        yield from numbers(2)
        raise FloatingPointError("a value at site 'a/b:out' is not finite")

    got = []
    with pytest.raises(FloatingPointError, match="site 'a/b:out'") as caught:
        for x in prefetch(spoiled()):
            got.append(int(x))
    assert got == [0, 1]
    assert "spoiled" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


@pytest.mark.parametrize("how", ["closed", "dropped", "interrupted", "failed"])
def test_the_thread_and_the_source_end_with_the_reader(how):
    log: list[str] = []
    batches = prefetch(numbers(None, log), ahead=2)
    assert int(next(batches)) == 0
    if how == "closed":
        batches.close()
    elif how == "dropped":
        del batches
    else:
        with pytest.raises(KeyboardInterrupt if how == "interrupted" else ValueError):
            batches.throw(KeyboardInterrupt() if how == "interrupted" else ValueError())
    assert log == ["prefetch"]


@pytest.mark.slow
def test_a_reader_that_waits_can_be_interrupted():
    release = threading.Event()

    def stuck():
        yield torch.tensor([0])
        release.wait()

    batches = prefetch(stuck())
    next(batches)
    # A shell that starts tests in the background has them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    # As Ctrl-C does. The reader then waits for the batch that is being made, which comes two seconds later.
    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.3, lambda: (signal.pthread_kill(main, signal.SIGINT), time.sleep(2), release.set()))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(batches)
    timer.join()
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_a_program_ends_although_nobody_closed_the_iterator():
    code = (
        "import itertools, torch\nfrom concept_probe.activations import prefetch\n"
        "b = prefetch(torch.tensor([i]) for i in itertools.count())\nprint(int(next(b)))\n"
        "import sys; sys.modules['kept'] = b"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=root)
    assert done.returncode == 0 and done.stdout == "0\n" and not done.stderr


def test_no_more_than_asked_are_made_ahead():
    made = []
    batches = prefetch((made.append(i) or torch.tensor([i]) for i in itertools.count()), ahead=3)
    next(batches)
    time.sleep(0.3)
    assert len(made) == 1 + 3 + 1  # used, waiting, and one in hand
    batches.close()
    with pytest.raises(ValueError, match="ahead is 0"):
        prefetch([], ahead=0)


@pytest.mark.slow
def test_making_and_using_overlap():
    """Twenty batches, each 20 ms to make and 20 ms to use: 0.8 s one after the other, 0.42 s side by side."""

    def wall(batches) -> float:
        start = time.perf_counter()
        for _ in batches:
            time.sleep(0.02)
        return time.perf_counter() - start

    ratios = [wall(prefetch(numbers(20, pause=0.02))) / wall(numbers(20, pause=0.02)) for _ in range(3)]
    assert min(ratios) < 0.75, ratios


@pytest.mark.slow
def test_training_on_it_gives_the_same_bits():
    subject = tiny_sd()
    rows = Live(subject, list(tiny_concept().unrelated), roles=["text_stream"], rows=200)
    ahead = Prefetched(rows, ahead=2)
    assert isinstance(ahead, ActivationStore) and ahead.rows(rows.sites[0]) == rows.rows(rows.sites[0])
    options = {"site": rows.sites[0], "k": 2, "expansion": 2, "samples": 640, "batch": 64}
    one, two = trained(rows, **options), trained(ahead, **options)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert one.made_by == two.made_by


@CUDA
def test_batches_arrive_on_the_device():
    device = torch.device("cuda")
    assert isinstance(_CudaMover(device), _CudaMover)
    source = [torch.randn(4096, 512) for _ in range(20)]
    for x, y in zip(source, prefetch(iter(source), device=device), strict=True):
        busy = torch.randn(2048, 2048, device=device)
        assert y.device.type == "cuda" and torch.equal((y + 0 * (busy @ busy).sum().clamp(0, 0)).cpu(), x)
