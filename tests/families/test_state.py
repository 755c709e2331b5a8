"""What is switched on in a subject leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from concept_probe.families.state import State, swapped, with_gradients
from concept_probe.types import Site


def parameters(count: int = 2) -> list[nn.Parameter]:
    return [nn.Parameter(torch.full((2, 3), float(i))) for i in range(count)]


def test_tensors_come_back_as_the_same_storage_also_after_an_error():
    own = parameters()
    places, values = [p.data_ptr() for p in own], [p.detach().clone() for p in own]
    with pytest.raises(RuntimeError, match="on purpose"), swapped((p, p.data.clone()) for p in own):
        with torch.no_grad():
            for p in own:
                p += 1
        assert all(not torch.equal(p, v) for p, v in zip(own, values, strict=True))
        raise RuntimeError("on purpose")
    assert [p.data_ptr() for p in own] == places
    assert all(torch.equal(p, v) for p, v in zip(own, values, strict=True))


def test_what_was_put_in_comes_back_where_a_later_pair_can_not_be_made():
    first, second = parameters()
    place = first.data_ptr()

    def pairs():
        yield first, torch.ones(2, 3) * 9
        raise KeyError("second")

    with pytest.raises(KeyError), swapped(pairs()):
        pass
    assert first.data_ptr() == place and float(second.sum()) == 6


def test_one_parameter_twice_sees_what_came_before_and_ends_as_it_was():
    (p,) = parameters(1)
    with swapped((p, p.data + 1) for _ in range(3)):
        assert torch.equal(p, torch.full((2, 3), 3.0))
    assert torch.equal(p, torch.zeros(2, 3))


def test_edits_on_edits_are_put_aside_down_to_the_first():
    state, (p,) = State(), parameters(1)
    own = p.data
    with state.edited([(p, own + 1)]):
        with state.edited([(p, own + 2)]):
            ((parameter, original),) = state.originals()
            assert parameter is p and original.data_ptr() == own.data_ptr()
            with state.unedited():
                assert torch.equal(p, own) and state.depth == 0
            with state.pristine():
                assert torch.equal(p, own) and state.asleep(0)
            assert torch.equal(p, own + 2)
        assert torch.equal(p, own + 1) and len(state.originals()) == 1
    assert p.data_ptr() == own.data_ptr() and state.originals() == []


def test_taps_are_counted_while_they_are_on():
    state, site = State(), Site("unet", "mid_block")
    with pytest.raises(KeyError), state.tapped(site), state.tapped(site):
        assert state.taps(site) == 2
        raise KeyError
    assert state.taps(site) == 0


def test_gradients_are_taken_for_a_while_and_dropped():
    own = parameters()
    own[1].requires_grad_(False)
    with with_gradients(own):
        torch.stack([p.square().sum() for p in own]).sum().backward()
        assert all(p.grad is not None for p in own)
    assert [p.requires_grad for p in own] == [True, False] and all(p.grad is None for p in own)
