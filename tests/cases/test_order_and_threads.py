"""Edits leave in any order, and a subject is used by one thread at a time."""

from __future__ import annotations

import threading

import pytest
import torch

import concept_probe as cp
from concept_probe.activations.prefetch import prefetch
from concept_probe.erasers import Edit
from concept_probe.erasers.erasure.deltas import Shift
from concept_probe.families.diffusion.trajectory import SamplingHook
from concept_probe.families.state import State
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Prompt, Query, Sampling

QUERIES, SAMPLING = [Query(Prompt("a cat", "cat"))], Sampling(steps=2, guidance=3.0)


def shift_of(subject: cp.Subject, size: float) -> Edit:
    site = subject.sites("mlp_value")[0]
    delta = Shift(torch.full_like(subject.parameter(site), size))
    return Edit("shift", "cat", {f"{site.component}/{site.path}:weight": delta}, subject.weight_hash())


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_edits_leave_in_any_order(order):
    subject = LANGUAGE["llama"]()
    site = subject.sites("mlp_value")[0]
    own, place = subject.parameter(site).clone(), subject.parameter(site).data_ptr()
    sizes, blocks = (1.0, 2.0, 4.0), []
    for size in sizes:
        blocks.append(shift_of(subject, size).on(subject))
        blocks[-1].__enter__()
    left = dict(enumerate(sizes))
    for which in order:
        blocks[which].__exit__(None, None, None)
        del left[which]
        wanted = own
        for size in left.values():
            wanted = wanted + size
        assert torch.equal(subject.parameter(site), wanted)
    assert subject.parameter(site).data_ptr() == place and subject.state.originals() == []


def test_an_edit_that_leaves_while_it_is_put_aside_stays_away():
    subject = LANGUAGE["gpt2"]()
    own = subject.weight_hash()
    edit, aside = shift_of(subject, 1.0).on(subject), subject.pristine()
    edit.__enter__()
    aside.__enter__()
    edit.__exit__(None, None, None)
    assert subject.weight_hash() == own
    aside.__exit__(None, None, None)
    assert subject.weight_hash() == own and subject.state.depth == 0


def test_hooks_of_trajectories_leave_in_any_order():
    subject, first, second = tiny_sd(), SamplingHook(), SamplingHook(start=lambda trajectory, rows: None)
    blocks = subject.hooked(first), subject.hooked(second)
    for block in blocks:
        block.__enter__()
    blocks[0].__exit__(None, None, None)
    assert subject.hooks == (second,)
    blocks[1].__exit__(None, None, None)
    assert subject.hooks == ()


def said_elsewhere(work) -> str:
    """What another thread is told."""
    said = []

    def run() -> None:
        try:
            work()
            said.append("")
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=run, name="other")
    thread.start()
    thread.join()
    return said[0]


@pytest.mark.parametrize("make", [tiny_sd, LANGUAGE["gpt2"]])
def test_a_second_thread_is_refused_until_the_first_is_done(make):
    subject = make()
    tapped = subject.sites(subject.roles()[1])[0]
    edit = shift_of(subject, 1.0)
    ways = {
        "generate": lambda: subject.generate(QUERIES, SAMPLING),
        "capture": lambda: cp.capture(subject, QUERIES, sites=[tapped], sampling=SAMPLING),
        "edit": lambda: subject.state.edited([]).__enter__(),
        "aside": lambda: subject.pristine().__enter__(),
    }
    refused = "thread 'other' asked for a subject that thread 'MainThread' is using"
    for block in (edit.on(subject), cp.tap(subject, {tapped: lambda x, moment: None}), subject.pristine()):
        with block:
            assert all(refused in said_elsewhere(work) for work in ways.values())
    met = []
    with cp.tap(subject, {tapped: lambda x, moment: met.append(1)}):
        subject.encode([Prompt("a cat")])
    assert met and not said_elsewhere(ways["generate"]) and not said_elsewhere(ways["capture"])


def test_one_in_many_threads_runs_or_is_refused_and_weights_come_back():
    subject = LANGUAGE["gpt2"]()
    own, plain, edit = subject.weight_hash(), subject.generate(QUERIES), shift_of(subject, 3.0)
    ready, wrong = threading.Barrier(6), []

    def work(which: int) -> None:
        ready.wait()
        for _ in range(10):
            try:
                if which % 2:
                    with edit.on(subject):
                        subject.encode([Prompt("a cat")])
                elif subject.generate(QUERIES) != plain:
                    wrong.append(which)
            except RuntimeError as error:
                if "is using" not in str(error):
                    wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and subject.weight_hash() == own


def test_a_producer_works_for_the_thread_that_started_it():
    subject = tiny_sd()
    live = cp.Live(subject, [Prompt("a cat"), Prompt("the dog")], roles=["text_stream"])
    with shift_of(subject, 1.0).on(subject):
        made = list(prefetch(live.batches(live.sites[0], 2, epochs=1)))
    assert made and said_elsewhere(lambda: subject.encode([Prompt("a cat")])) == ""


def test_a_state_lets_the_next_thread_in_after_an_error():
    state = State()
    with pytest.raises(KeyError), state.alone(), state.alone():
        raise KeyError
    assert said_elsewhere(lambda: state.alone().__enter__()) == ""


@pytest.mark.slow
def test_subjects_around_one_pipeline_are_one_to_use():
    subject = tiny_sd()
    other = cp.families.adopt(subject.pipeline, "again")
    plain, refused = other.generate(QUERIES, SAMPLING), []

    def use() -> None:
        try:
            other.generate(QUERIES, SAMPLING)
        except RuntimeError as error:
            refused.append(str(error))

    with shift_of(subject, 0.5).on(subject):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        edited = other.generate(QUERIES, SAMPLING)  # reads what is edited, whichever of the two it is asked of
        with other.pristine():
            assert torch.equal(other.generate(QUERIES, SAMPLING), plain)
    assert len(refused) == 1 and "is using" in refused[0]
    assert not torch.equal(edited, plain) and torch.equal(other.generate(QUERIES, SAMPLING), plain)
    assert tiny_sd().state is not subject.state
