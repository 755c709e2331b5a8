"""Work in parts: the same bits with any number of threads, errors raised, gradients as they were."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from concept_probe.learn.kernels.parts import PARTS, in_parts, part_size
from concept_probe.learn.train.adam import Adam
from concept_probe.learn.train.objective import Objective, backward
from concept_probe.learn.train.parallel import Team
from concept_probe.learn.train.weights import DictionaryWeights

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads_stay():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def trained(threads: int, steps: int = 6) -> dict[str, torch.Tensor]:
    torch.set_num_threads(threads)
    g = torch.Generator().manual_seed(0)
    f, d = 1200, 96

    def make(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g) / shape[-1] ** 0.5

    weights = DictionaryWeights(make(f, d), torch.zeros(f), make(f, d), torch.zeros(d))
    adam, x = Adam(weights, Team()), torch.randn(700, d, generator=g)
    dead = torch.zeros(f, dtype=torch.bool)
    for step in range(steps):
        backward(weights, x, x, Objective(8), dead)
        adam.step(1e-2, held=step > steps // 2)
    return weights.parameters() | {f"{name}.first": x for name, x in adam.first.items()}


@pytest.mark.slow
def test_training_gives_the_same_bits_with_any_number_of_threads():
    one, two, three = (trained(threads) for threads in (1, 2, 3))
    for name, x in one.items():
        assert torch.equal(x, two[name]) and torch.equal(x, three[name]), name


def test_a_part_computes_with_one_thread_and_others_keep_theirs():
    torch.set_num_threads(2)
    seen = in_parts(8, 1, lambda part: (torch.get_num_threads(), threading.current_thread().name), CPU)
    assert {threads for threads, _ in seen} == {1} and all(name.startswith("concept_probe") for _, name in seen)
    assert torch.get_num_threads() == 2


def test_gradients_are_on_or_off_as_they_are_outside():
    torch.set_num_threads(2)
    for graded in (True, False):
        with torch.set_grad_enabled(graded):
            assert set(in_parts(8, 1, lambda part: torch.is_grad_enabled(), CPU)) == {graded}
    with torch.inference_mode():
        inside = in_parts(8, 1, lambda part: torch.ones(1) * 2, CPU)
    assert all(float(x) == 2 for x in inside)


def test_what_a_part_raises_is_raised_and_the_rest_is_left():
    torch.set_num_threads(2)
    begun: list[int] = []

    def work(part: slice) -> None:
        begun.append(part.start)
        if len(begun) > 1:
            time.sleep(0.001)  # else the second thread may be through before the first is heard
        raise ZeroDivisionError(part.start)

    with pytest.raises(ZeroDivisionError, match=r"^0$"):
        in_parts(1000, 1, work, CPU)
    assert len(begun) < 1000


def test_parts_cover_everything_in_order_and_may_hold_parts():
    torch.set_num_threads(2)

    def inner(part: slice) -> int:
        return sum(in_parts(part.stop - part.start, 1, lambda _: 1, CPU))

    assert in_parts(10, 4, inner, CPU) == [4, 4, 2] and in_parts(0, 4, inner, CPU) == []


@pytest.mark.parametrize(("count", "width"), [(12288, 768), (4096, 768), (1, 10), (0, 3), (2048, 128), (100_000, 16)])
def test_the_size_of_a_part_depends_on_the_shape(count: int, width: int):
    size = part_size(count, width)
    assert size >= 1 and (size <= count or count == 0)
    if count * width > 1 << 20:
        assert -(-count // size) >= PARTS and size * width <= 1 << 19
