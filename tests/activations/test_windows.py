"""The windowed order: every row once, resumable anywhere, mixed over the store, aligned over sites."""

from __future__ import annotations

import os

import pytest
import torch

from concept_probe.activations import Activations
from concept_probe.activations.columns import COLUMNS
from concept_probe.activations.shuffle import Windows
from concept_probe.activations.writer import StoreWriter
from concept_probe.types import Site

ONE, TWO, FEWER, OTHER = (Site("c", name) for name in ("one", "two", "fewer", "other"))
PER_PROMPT = 77


def written(folder, rows: int, shard_rows: int, dtype: torch.dtype = torch.float32) -> Activations:
    """Site ONE holds (row, prompt), TWO its negative with three columns, OTHER the prompts shifted by one."""
    sites = (ONE, TWO, FEWER, OTHER)
    header = {
        "subject": "s",
        "weight_hash": "",
        "sites": [str(s) for s in sites],
        "prompts": [["x", None, None, 0]],
        "dtype": str(dtype).removeprefix("torch."),
    }
    writer = StoreWriter.resume(folder, header, sites, shard_rows)
    for part in torch.arange(rows).split(100):
        prompt = part // PER_PROMPT
        columns = {c: torch.full((len(part),), -1, dtype=torch.int32) for c in COLUMNS} | {"prompt": prompt.int()}
        x = torch.stack([part, prompt], 1).to(dtype)
        writer.add(ONE, x, columns, done=0)
        writer.add(TWO, -torch.cat([x, x[:, :1]], 1), columns, done=0)
        writer.add(FEWER, x[1:], {c: v[1:] for c, v in columns.items()}, done=0)
        writer.add(OTHER, x, columns | {"prompt": prompt.int() + 1}, done=0)
    writer.end_batch(1, 1)
    return Activations.open(folder)


@pytest.fixture(scope="module")
def acts(tmp_path_factory):
    return written(tmp_path_factory.mktemp("store"), 10_000, 700)


@pytest.mark.parametrize("n,window,block", [(1, 1, 1), (10, 3, 4), (1000, 128, 16), (1003, 100, 7), (640, 10_000, 128)])
def test_windows_cover_every_row_once_and_agree_with_their_bounds(n, window, block):
    order = Windows(n, window, block, 5)
    rows, at = [], 0
    for w in range(order.count):
        begin, end = order.bounds(w)
        here = torch.cat([torch.arange(*span) for span in order.spans(w)])
        assert begin == at and len(here) == end - begin <= max(window, block)
        assert sorted(order.mixed(w).tolist()) == list(range(len(here)))
        assert {order.at(p) for p in range(begin, end)} == {w}
        rows, at = rows + here.tolist(), end
    assert sorted(rows) == list(range(n))


@pytest.mark.parametrize("window", [1, 500, 3000, 65536, None])
def test_an_epoch_gives_every_row_once_and_starts_anywhere(acts, window):
    epochs = list(acts.batches(ONE, 100, seed=3, epochs=2, window=window))
    assert len(epochs) == 200
    for epoch in (epochs[:100], epochs[100:]):
        assert sorted(torch.cat(epoch)[:, 0].long().tolist()) == list(range(10_000))
    assert not torch.equal(epochs[0], epochs[100])
    for start in (1, 57, 100, 163, 199):
        assert torch.equal(next(acts.batches(ONE, 100, seed=3, start=start, window=window)), epochs[start])
    assert not torch.equal(next(acts.batches(ONE, 100, seed=4, window=window)), epochs[0])


def test_every_epoch_leaves_other_rows_over(acts):
    left = [
        set(range(10_000)) - set(torch.cat(list(acts.batches(ONE, 3000, seed=s, epochs=1))).long()[:, 0].tolist())
        for s in range(2)
    ]
    assert len(left[0]) == len(left[1]) == 1000 and len(left[0] & left[1]) < 300


def test_the_order_depends_on_neither_shards_nor_dtype(acts, tmp_path):
    other = written(tmp_path, 10_000, 4096, torch.float64)
    pairs = zip(
        acts.batches(ONE, 256, window=2000, epochs=1), other.batches(ONE, 256, window=2000, epochs=1), strict=True
    )
    assert all(torch.equal(a.double(), b) for a, b in pairs)


@pytest.mark.slow
def test_rows_of_one_prompt_are_spread(tmp_path):
    """A full shuffle puts two rows of one prompt in one batch for a share of about size / rows of the pairs."""
    acts = written(tmp_path, 40_000, 4000)

    def crowding(batches):
        """Pairs of one prompt in one batch, over what a full shuffle is expected to give."""
        pairs = 0.0
        for x in batches:
            counts = x[:, 1].long().bincount().double()
            pairs += float((counts * (counts - 1)).sum() / 2)
        prompts = 40_000 // PER_PROMPT
        return pairs / (prompts * PER_PROMPT * (PER_PROMPT - 1) / 2 * 400 / 40_000)

    as_stored = acts.read(ONE).x.split(400)
    full = crowding(acts.batches(ONE, 400, epochs=1, window=None))
    mixed = {w: crowding(acts.batches(ONE, 400, epochs=1, window=w)) for w in (1000, 10_000, 40_000)}
    assert crowding(as_stored) > 50
    assert 0.9 < full < 1.1 and 0.9 < mixed[40_000] < 1.1
    # Rows of one prompt lie in one or two blocks, so a quarter of the store draws them up to four times as often.
    assert 2 < mixed[10_000] < 4.5 < mixed[1000] < 41


@pytest.mark.parametrize("window", [1500, None])
def test_a_joint_draw_gives_the_same_rows_at_every_site(acts, window):
    seen = 0
    alone = acts.batches(TWO, 300, seed=2, epochs=1, window=window, start=4)
    for x, y in acts.joint((ONE, TWO), 300, seed=2, epochs=1, window=window, start=4):
        assert torch.equal(-x, y[:, :2]) and torch.equal(y, next(alone))
        seen += 1
    assert seen == 33 - 4


def test_sites_of_other_rows_are_not_drawn_jointly(acts):
    with pytest.raises(ValueError, match=r"'c/one:out' has 10000 rows and 'c/fewer:out' has 9900; a joint draw needs"):
        acts.joint((ONE, FEWER), 100)
    with pytest.raises(ValueError, match=r"row 0 is of prompt 0 at site 'c/one:out' and of prompt 1 at 'c/other:out'"):
        acts.joint((ONE, TWO, OTHER), 100)
    with pytest.raises(ValueError, match="a window of 0 rows was asked for"):
        acts.joint((ONE,), 100, window=0)
    with pytest.raises(ValueError, match="no site was given"):
        acts.joint((), 100)


@pytest.mark.slow
def test_many_shards_keep_no_file_open(tmp_path):
    acts = written(tmp_path, 3000, 20)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    batches = acts.batches(ONE, 100)
    next(batches)
    assert len(list(tmp_path.glob("*.safetensors"))) > 25
    assert before is None or len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_keep_the_stored_dtype(tmp_path, dtype):
    acts = written(tmp_path, 400, 100, dtype)
    whole = torch.cat(list(acts.batches(ONE, 100, epochs=1, window=250)))
    assert whole.dtype == dtype and torch.equal(whole[:, 0].sort().values, acts.read(ONE).x[:, 0].sort().values)
