"""What is no change of weights is refused where it is made; what does not fit, where it is applied."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from concept_probe.activations import capture
from concept_probe.erasers import Edit, Intervention, Uce, erase
from concept_probe.erasers.erasure.deltas import Columns, LowRank, Shift, Sum
from concept_probe.families import Subject
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Prompt

NAN, INF = float("nan"), float("inf")
ONES = torch.ones(2, 3)
WRONG: list[tuple[Any, str]] = [
    (lambda: Shift(ONES * NAN), "shift: values .2, 3. holds 6 values that are not finite"),
    (lambda: Shift(ONES * INF), "not finite"),
    (lambda: Shift(ONES.int()), r"values is of torch.int32"),
    (lambda: Shift(ONES.bool()), r"values is of torch.bool"),
    (lambda: Shift(ONES.to(torch.complex64)), r"values is of torch.complex64"),
    (lambda: Shift(ONES).scaled(NAN), "not finite"),
    (lambda: Sum((Shift(ONES), Shift(ONES))).scaled(INF), "not finite"),
    (lambda: LowRank(ONES, ONES * NAN), "v .2, 3. holds 6 values"),
    (lambda: LowRank(ONES, torch.ones(4, 2)), r"u is \(2, 3\) and v \(4, 2\)"),
    (lambda: LowRank(torch.ones(3), torch.ones(3)), r"they are \(d_out, r\)"),
    (lambda: Columns(torch.tensor([0, 0]), torch.ones(4, 2), 5), "a column is named twice"),
    (lambda: Columns(torch.tensor([-1, 0]), torch.ones(4, 2), 5), "run from -1 to 0.*columns 0 to 4"),
    (lambda: Columns(torch.tensor([5]), torch.ones(4, 1), 5), "run from 5 to 5"),
    (lambda: Columns(torch.tensor([0.0]), torch.ones(4, 1), 5), "give whole numbers"),
    (lambda: Columns(torch.tensor([0]), torch.ones(4, 2), 5), "1 indices and values"),
    (lambda: Columns(torch.tensor([0]), torch.ones(4, 1) * NAN, 5), "not finite"),
    (lambda: Edit("x", "c", {"no address": Shift(ONES)}, ""), "is not of the form"),
    (lambda: Edit("x", "c", {"model/a:weight": Shift(ONES)}, "").scaled(NAN), "x: a strength of nan"),
    (lambda: Edit("x", "c", {}, "").scaled(INF), "x: a strength of inf"),
    (lambda: Intervention("x", "c", {}, strength=NAN), "x: a strength of nan"),
    (lambda: Intervention("x", "c", {}).scaled(INF), "x: a strength of inf"),
]


@pytest.mark.parametrize(("make", "said"), WRONG)
def test_what_is_no_change_is_refused_where_it_is_made(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_what_is_no_delta_is_refused():
    wrong: Any = {"model/a:weight": ONES}
    with pytest.raises(TypeError, match="the change of 'model/a:weight' is a Tensor, not a delta"):
        Edit("x", "c", wrong, "")


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def subject(request) -> Subject:
    """A matrix held as it is, and one held transposed."""
    return LANGUAGE[request.param]()


def test_what_does_not_fit_is_refused_and_nothing_applied(subject: Subject):
    site = subject.sites("mlp_value")[0]
    where, stored = f"{site.component}/{site.path}:weight", subject.orientation(site)
    out, into = subject.matrix(site).shape
    own = subject.weight_hash()
    wrong = [
        Shift(torch.ones(1)),
        Shift(torch.ones(subject.parameter(site).shape[1])),
        LowRank(torch.ones(into, 1), torch.ones(out, 1), stored),
        LowRank(torch.ones(2 * out, 1), torch.ones(into // 2, 1), stored),
        Columns(torch.tensor([0]), torch.ones(1, 1), into, stored),
        Columns(torch.tensor([0]), torch.ones(out, 1), into + 1, stored),
    ]
    for delta in wrong:
        edit = Edit("wrong", "c", {where: delta}, own)
        with (
            pytest.raises(ValueError, match=r"edit 'wrong', 'model/.*does not fit.*nothing was applied"),
            edit.on(subject),
        ):
            pass
    right = [
        LowRank(torch.ones(out, 1), torch.ones(into, 1), stored),
        Columns(torch.tensor([into - 1]), torch.ones(out, 1), into, stored),
    ]
    for delta, changed in zip(right, (out * into, out), strict=True):
        before = subject.parameter(site).clone()
        with Edit("right", "c", {where: delta}, own).on(subject):
            assert int((subject.parameter(site) != before).sum()) == changed
    assert subject.weight_hash() == own


def test_what_a_dtype_can_not_hold_is_refused():
    subject = LANGUAGE["llama"]()
    subject.model.to(torch.float16)
    site = subject.sites("mlp_value")[0]
    edit = Edit("large", "c", {f"model/{site.path}:weight": Shift(torch.full((16, 40), 1e6))}, subject.weight_hash())
    with (
        pytest.raises(ValueError, match=r"edit 'large' takes 'model/.*beyond what torch.float16 holds"),
        edit.on(subject),
    ):
        pass


@pytest.mark.parametrize(
    "change",
    [lambda x: torch.ones(1, 1, 1), lambda x: torch.ones_like(x).long(), lambda x: x > 0, lambda x: 1.0],
)
def test_a_change_of_a_guard_has_the_shape_of_what_it_is_added_to(change):
    subject = tiny_sd()
    guard = Intervention("mine", "c", {subject.sites("text_stream")[0]: lambda x, moment: change(x)})
    with guard.on(subject), pytest.raises(ValueError, match=r"guard 'mine' gave .* to add to .* of torch.float32"):
        subject.encode([Prompt("a cat")])


@pytest.mark.parametrize("factor", ["2", None, True, 1j])
def test_a_strength_is_a_number(factor):
    with pytest.raises(TypeError, match=r"x: a strength of .* it is a finite number"):
        Intervention("x", "c", {}).scaled(factor)
    with pytest.raises(TypeError, match="x: a strength of"):
        Edit("x", "c", {}, "hash").scaled(factor)


def test_what_is_no_subject_or_concept_is_named():
    subject = tiny_sd()
    with pytest.raises(TypeError, match=r"got a StableDiffusionPipeline in the place of a Subject; adopt\(pipeline\)"):
        erase("uce", subject.pipeline, tiny_concept())
    with pytest.raises(TypeError, match=r"got a str in the place of a Concept; concept\(name\)"):
        erase("uce", subject, "cat")  # pyright: ignore
    with pytest.raises(TypeError, match="for the method; give a name, or an eraser with its options"):
        erase(Uce, subject, tiny_concept())  # pyright: ignore
    with pytest.raises(TypeError, match="a site to capture is 'text_encoder/x:out'; it is a Site"):
        capture(subject, [Prompt("a")], sites=["text_encoder/x:out"])  # pyright: ignore
