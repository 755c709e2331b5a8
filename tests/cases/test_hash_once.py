"""The hash of a subject's weights is taken once, and every change of the weights is seen."""

from __future__ import annotations

import copy
import hashlib

import pytest
import torch
from torch import nn

from concept_probe.erasers import Edit, Uce
from concept_probe.erasers.erasure.deltas import LowRank
from concept_probe.families import kept_hash
from concept_probe.families.kept_hash import KeptHash, identity_of, sampled
from concept_probe.storage import hashing, tensors_sha256
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models import TINY_MODELS


@pytest.fixture
def subject():
    return TINY_MODELS["sd"]()


@pytest.fixture
def hashed(monkeypatch):
    """Bytes of every reading of all weights, in order."""
    read: list[int] = []

    def counted(tensors, before=""):
        tensors = list(tensors)
        read.append(sum(x.numel() * x.element_size() for _, x in tensors))
        return tensors_sha256(tensors, before)

    monkeypatch.setattr(kept_hash, "tensors_sha256", counted)
    return read


def own_tensors(subject):
    for component in sorted(subject.components):
        module = subject.components[component]
        for name, x in (*module.named_parameters(), *module.named_buffers()):
            yield f"{component}/{name}", x


def test_again_reads_no_weight_and_the_hash_is_that_of_all_bytes(subject, hashed):
    sha = hashlib.sha256()
    for name, x in own_tensors(subject):
        sha.update(f"{name} {tuple(x.shape)} {x.dtype}\n".encode() + x.detach().numpy().tobytes())
    assert subject.weight_hash() == subject.weight_hash() == sha.hexdigest() and len(hashed) == 1
    assert subject.weight_hash(whole=True) == sha.hexdigest() and len(hashed) == 2


def test_an_erasure_and_its_edit_hash_the_weights_once(subject, hashed):
    """Also with the edit off and on again, and under `pristine`: what an edit put aside is known when it comes back."""
    edit = Uce()(subject, tiny_concept())
    for _ in range(3):
        with edit.on(subject), subject.pristine():
            assert subject.weight_hash() == edit.base_hash
    assert len(hashed) == 1
    with edit.on(subject):
        assert subject.weight_hash() != edit.base_hash and len(hashed) == 2
    edit.bake(subject)
    assert len(hashed) == 3 and subject.weight_hash() != edit.base_hash


def _step(parameter: nn.Parameter) -> None:
    parameter.requires_grad_(True)
    parameter.grad = torch.ones_like(parameter)
    torch.optim.Adam([parameter], 1e-3).step()


def _one_value_through_data(parameter: nn.Parameter) -> None:
    parameter.data.view(-1)[-1] += 1


CHANGES = {
    "in place": lambda module, p: p.detach().add_(1),
    "through data": lambda module, p: p.data.add_(1),
    "one value through data": lambda module, p: _one_value_through_data(p),
    "other data": lambda module, p: setattr(p, "data", p.data + 1),
    "another parameter": lambda module, p: setattr(module, "weight", nn.Parameter(p.detach() + 1)),
    "an optimiser's step": lambda module, p: _step(p),
    "a state that is loaded": lambda module, p: module.load_state_dict({"weight": p.detach() + 1}, strict=False),
    "another type": lambda module, p: setattr(p, "data", p.data.double()),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(subject, change):
    before, stamp = subject.weight_hash(), subject.stamp()
    assert subject.stamp() == stamp
    module = subject.module(subject.sites("cross_key_weight")[0])
    CHANGES[change](module, module.weight)
    assert subject.weight_hash() == tensors_sha256(own_tensors(subject)) != before
    assert subject.stamp() != stamp


def test_weights_in_the_memory_of_weights_that_are_gone_are_others(subject):
    """An edit's tensors often get the memory that those of the edit before had, and writes begin to be counted anew."""
    where = str(subject.sites("cross_key_weight")[0]).replace(":weight", "") + ":weight"
    weight = subject.matrix(subject.sites("cross_key_weight")[0])
    base = subject.weight_hash()

    def edit(column: int) -> Edit:
        u, v = torch.ones(weight.shape[0], 1), torch.zeros(weight.shape[1], 1)
        v[column] = 1
        return Edit("column", "cat", {where: LowRank(u, v)}, base)

    seen = []
    for column in range(4):
        with edit(column).on(subject):
            seen.append((subject.weight_hash(), subject.stamp()))
            assert seen[-1][0] == tensors_sha256(own_tensors(subject))
    assert len({h for h, _ in seen}) == len({s for _, s in seen}) == 4


@pytest.mark.parametrize("shape", [(300, 4096), (4096, 640), (64, 32, 3, 3), (1000, 1000), (7,), (), (0, 3)])
@pytest.mark.parametrize("turned", [False, True])
def test_the_sample_meets_every_row_and_column(shape, turned):
    places = torch.arange(torch.Size(shape).numel(), dtype=torch.int32).view(shape)
    laid = places.mT.contiguous().mT if turned and places.ndim > 1 else places
    met = sampled(laid).long()
    assert len(met) >= min(places.numel(), kept_hash.SAMPLE) and len(met) < 5 * kept_hash.SAMPLE
    if places.numel():
        where = torch.unravel_index(met, shape)
        assert all(len(axis.unique()) == size for axis, size in zip(where, shape, strict=True))


def test_of_what_nobody_counts_the_hash_is_always_taken_anew():
    with torch.inference_mode():
        tensors = [("x", torch.zeros(20_000))]
    kept = KeptHash()
    first = kept.sha256(tensors)
    assert identity_of(tensors) is None
    with torch.inference_mode():
        tensors[0][1][1] = 1
    assert kept.sha256(tensors) != first


def test_a_copy_of_a_subject_keeps_its_own_hash(subject):
    base = subject.weight_hash()
    other = copy.deepcopy(subject)
    other.matrix(other.sites("cross_key_weight")[0]).data.add_(1)
    assert other.weight_hash() != base == subject.weight_hash()


@pytest.mark.parametrize("layout", ["plain", "turned", "every other"])
def test_bytes_are_hashed_alike_in_pieces_and_whole(monkeypatch, layout):
    x = torch.randn(50, 36)
    x = {"plain": x, "turned": x.mT, "every other": x[:, ::2]}[layout]
    whole = tensors_sha256([("x", x)])
    monkeypatch.setattr(hashing, "PART", 256)
    assert whole == tensors_sha256([("x", x)]) == tensors_sha256([("x", x.contiguous())])
