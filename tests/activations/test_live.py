"""Live rows are those of a store, mixed, and come again from any place to the bit."""

from __future__ import annotations

import itertools

import pytest
import torch

from concept_probe.activations import CaptureOptions, Live, capture, tap
from concept_probe.activations.mixing_buffer import MixingSchedule
from concept_probe.registry import UnknownName
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.types import Prompt, Query, Sampling
from tests.activations.test_store import PROMPTS

SAMPLING = Sampling(steps=2, batch=4)
QUERIES = [Query(p, i) for i, p in enumerate(PROMPTS[:12])]
# Words of three lengths, so that prompts differ in how many tokens they have.
UNEVEN = [Prompt(f"the {a} thing"[: 9 + i % 5]) for i, a in enumerate(["cat", "dog", "red", "sun"] * 10)]


@pytest.fixture(scope="module")
def subject():
    return tiny_sd()


def hooks(subject) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) for c in subject.components.values() for m in c.modules()
    )


def ordered(x: torch.Tensor) -> torch.Tensor:
    """Rows in an order of their own, coarse enough for another batch size to change nothing."""
    return x[(x.double() @ torch.linspace(1, 2, x.shape[1], dtype=torch.double)).argsort()]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("uneven", [0, 5])
def test_thirds_give_every_row_once(count, uneven):
    ends = [0, *itertools.accumulate(10 + uneven * (i % 3) for i in range(count))]
    mix = MixingSchedule(ends.__getitem__, count)
    left = [key for t in range(count) for key in mix.members(t)]
    assert sorted(left) == [(c, j) for c in range(count) for j in range(3)]
    at = 0
    for t in range(count):
        assert mix.before(t) == at
        size = sum(b - a for a, b in (mix.span(*key) for key in mix.members(t)))
        assert {mix.at(row) for row in range(at, at + size)} == {t}
        at += size
    assert at == ends[-1] == mix.before(count) and mix.at(at) == count


def test_thirds_without_an_end_draw_one_chunk_from_three():
    mix = MixingSchedule(lambda c: 30 * c, None)
    assert mix.members(0) == [(0, 0), (0, 1), (1, 0)]
    assert mix.members(7) == [(6, 2), (7, 1), (8, 0)]
    assert mix.before(1000) == 30_000 and mix.at(29_999) == 999


@pytest.mark.parametrize("family", DIFFUSION)
@pytest.mark.parametrize("role", ["text_stream", "cross_out", "cross_key"])
def test_an_epoch_gives_the_rows_of_a_store(family, role):
    subject = DIFFUSION[family]()
    site = subject.sites(role)[0]
    kept = CaptureOptions(steps=None if role == "text_stream" else [1])
    options = {"sites": [site], "sampling": SAMPLING, "options": kept}
    stored = capture(subject, QUERIES, **options).read(site).x
    rows = Live(subject, QUERIES, **options, rows=max(400, len(stored) // 2))
    assert rows.rows(site) == len(stored) and rows.width(site) == stored.shape[1]
    got = torch.cat(list(rows.batches(site, 4, epochs=1)))
    torch.testing.assert_close(ordered(got), ordered(stored)[: len(got)], atol=1e-5, rtol=1e-4)
    assert len(got) == len(stored) // 4 * 4 and not torch.equal(got, stored)
    assert hooks(subject) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [None, ("content", "eos")])
def test_the_same_bits_come_again_from_any_start(subject, kinds):
    site = subject.sites("text_stream")[0]
    rows = Live(subject, UNEVEN, sites=[site], rows=300, kinds=kinds)
    size, epochs = 32, 4
    if kinds:
        assert len(set(rows._count(site).of_each)) > 1, "prompts of different length, or this shows nothing"
    whole = list(rows.batches(site, size, seed=3, epochs=epochs))
    assert len(whole) == rows.rows(site) * epochs // size
    for start in (0, 1, 7, len(whole) // 2, len(whole) - 1):
        again = list(
            Live(subject, UNEVEN, sites=[site], rows=300, kinds=kinds).batches(
                site, size, seed=3, epochs=epochs, start=start
            )
        )
        assert len(again) == len(whole) - start
        assert all(torch.equal(a, b) for a, b in zip(again, whole[start:], strict=True))
    assert list(rows.batches(site, size, seed=3, epochs=epochs, start=len(whole))) == []
    endless = list(itertools.islice(rows.batches(site, size, seed=3, start=5), 3))
    assert all(torch.equal(a, b) for a, b in zip(endless, whole[5:], strict=False))
    assert not torch.equal(next(rows.batches(site, size, seed=4)), whole[0])


def test_a_late_start_runs_three_halves_of_the_buffer_and_no_more(subject):
    site = subject.sites("text_stream")[0]
    rows = Live(subject, PROMPTS, sites=[site], rows=400)  # ten prompts to a half
    rows.rows(site)
    passed = []
    hook = subject.components["text_encoder"].register_forward_pre_hook(
        lambda _m, args, kwargs: passed.append(len(args[0] if args else kwargs["input_ids"])), with_kwargs=True
    )
    try:
        next(rows.batches(site, 40, start=100_000))
    finally:
        hook.remove()
    assert sum(passed) == 30


def test_rows_of_one_prompt_are_spread(subject):
    """Ten prompts come at a time; the rows of one leave over three draws of as many rows."""
    site = subject.sites("text_stream")[0]
    marks = {}

    def label(x, moment):
        out = x.clone()
        for i, text in enumerate(x[:, 1:].flatten(1)):
            out[i] = marks.setdefault(text.sum().item(), len(marks))
        return out

    with tap(subject, {site: label}):
        batches = list(Live(subject, PROMPTS, sites=[site], rows=800).batches(site, 40, epochs=2))
    prompts_per_batch = torch.tensor([len(b[:, 0].unique()) for b in batches]).double()
    assert len(marks) > 60 and prompts_per_batch.mean() > 20  # two prompts, as the subject gives them


@pytest.mark.slow
def test_joint_rows_are_the_same_rows(subject):
    one, two = subject.sites("cross_key")[0], subject.sites("cross_value")[0]
    rows = Live(subject, QUERIES, sites=[one, two], rows=800, sampling=SAMPLING)
    alone = rows.batches(two, 50, seed=1, epochs=2)
    key, value = subject.module(one).weight, subject.module(two).weight
    for x, y in rows.joint((one, two), 50, seed=1, epochs=2):
        assert torch.equal(y, next(alone))
        text = torch.linalg.lstsq(key.double(), x.double().T).solution
        torch.testing.assert_close(y.double(), (value.double() @ text).T, atol=1e-4, rtol=1e-3)
    other = Live(subject, QUERIES, roles=["cross_key", "cross_out"], rows=4000, sampling=SAMPLING)
    with pytest.raises(ValueError, match=r"gives 480 rows and .* gives \d+; a joint draw needs sites with the same"):
        other.joint((subject.sites("cross_key")[0], subject.sites("cross_out")[0]), 10)


@pytest.mark.slow
def test_the_size_of_a_pass_changes_no_row(subject):
    site = subject.sites("block_out")[0]
    a, b = (
        torch.cat(
            list(
                Live(subject, QUERIES, sites=[site], rows=2000, sampling=Sampling(steps=2, batch=n)).batches(
                    site, 64, epochs=1
                )
            )
        )
        for n in (2, 5)
    )
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_closing_or_failing_leaves_no_hook(subject):
    site = subject.sites("cross_out")[0]
    draw = Live(subject, QUERIES, sites=[site], rows=4000, sampling=SAMPLING).batches(site, 20)
    next(draw)
    draw.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert hooks(subject) == 0

    def spoil(x, moment):
        x = x.clone()
        if moment.step == 1:
            x[moment.branches.index("cond") + 2, 3, 0] = float("nan")
        return x

    rows = Live(subject, QUERIES, sites=[site], rows=4000, sampling=SAMPLING)
    rows.rows(site)
    with tap(subject, {site: spoil}), pytest.raises(FloatingPointError) as caught:
        list(rows.batches(site, 20, epochs=1))
    said = str(caught.value)
    for part in (str(site), "pass 1", "patch 3", "no row of this pass was given out"):
        assert part in said
    number = int(said.split("prompt ")[1].split(" ")[0])
    assert repr(QUERIES[number].prompt.text) in said
    assert hooks(subject) == 0


def test_wrong_requests(subject):
    text, cross = subject.sites("text_stream")[0], subject.sites("cross_out")[0]
    with pytest.raises(ValueError, match="no prompt was given to draw from"):
        Live(subject, [], sites=[text])
    with pytest.raises(ValueError, match="needs no sampling and others do"):
        Live(subject, PROMPTS, sites=[text, cross])
    with pytest.raises(UnknownName, match="token kind 'end' not found"):
        Live(subject, PROMPTS, sites=[text], kinds=["end"])
    rows = Live(subject, PROMPTS, sites=[text], rows=30)
    with pytest.raises(ValueError, match=r"one prompt gives 20 rows .* more than half of a buffer of rows=30"):
        rows.batches(text, 10)
    with pytest.raises(UnknownName, match="the sites that this draws from"):
        rows.batches(cross, 10)
    with pytest.raises(ValueError, match=r"a batch of 9999 rows was asked for .* gives 1500"):
        Live(subject, PROMPTS, sites=[text]).batches(text, 9999, epochs=1)
    with pytest.raises(ValueError, match="gives no row of kinds subject"):
        Live(subject, PROMPTS, sites=[text], kinds=["subject"]).rows(text)
