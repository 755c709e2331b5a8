"""What training takes for rows, and what it says of anything else."""

from __future__ import annotations

import math

import pytest
import torch

from concept_probe.learn import TrainingOptions, evaluate_sae, train_sae, train_saes, train_transcoder
from concept_probe.types import Site

SITE, OTHER = Site("model", "one"), Site("model", "two")
OPTIONS = TrainingOptions(batch=32)


def rows(n: int = 128, d: int = 8) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def train(source, **more):
    return train_sae(source, **{"site": SITE, "k": 2, "expansion": 2, "samples": 128, "options": OPTIONS, **more})


WRONG = {
    "a tensor alone": (lambda: rows(), r"of shape \(8,\); rows are \(n, d\); a single tensor of rows goes into a list"),
    "three axes": (lambda: [rows().reshape(4, 32, 8)], r"of shape \(4, 32, 8\); rows are"),
    "no width": (lambda: [rows()[:, :0]], r"of shape \(128, 0\); rows are"),
    "whole numbers": (lambda: [torch.ones(128, 8, dtype=torch.int32)], "rows of torch.int32; .* give x.float"),
    "truths": (lambda: [rows() > 0], "rows of torch.bool"),
    "complex numbers": (lambda: [rows() + 0j], "rows of torch.complex64"),
    "sparse": (lambda: [rows().to_sparse()], "gave torch.sparse_coo; give plain tensors"),
    "no values": (lambda: [rows().to("meta")], r"gave no values \(meta\)"),
    "arrays": (lambda: [rows().numpy()], "the iterator gave a ndarray"),
    "lists": (lambda: [rows().tolist()], "the iterator gave a list"),
    "nothing": (lambda: None, "activations are a NoneType"),
    "another width in one batch": (lambda: [rows(40), rows(88, 7)], "rows of width 7 after rows of width 8"),
    "another width later": (lambda: [rows(64), rows(64, 7)], "rows of width 7 after rows of width 8"),
    "NaN": (lambda: [rows(), rows() * math.nan], "row 0 of step 4 holds NaN"),
    "squares that overflow": (lambda: [rows() * 1e30], r"so large \(up to 3e\+30|so large .* squares overflow in torch.float32"),
    "one row": (lambda: [rows(1)], "gave no batch of 32 rows"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_row_is_refused(what):
    source, said = WRONG[what]
    with pytest.raises((TypeError, ValueError, FloatingPointError), match=said):
        train(source(), samples=256)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"k": 17}, "k is 17, more than the 16 features"),
        ({"options": 3}, "options is 3; it is a TrainingOptions"),
        ({"on_step": 3}, "on_step is a int; it is a function"),
        ({"options": TrainingOptions(batch=1)}, "a batch of one row always is"),
    ],
)
def test_arguments_are_named(more, said):
    with pytest.raises((TypeError, ValueError), match=said):
        train([rows()], **more)


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="is a file, and an autoencoder is written into a folder"):
        train([rows()], folder=tmp_path / "file")
    with pytest.raises(TypeError, match="run 'a' is 3; it is a Run"):
        train_saes([rows()], {"a": 3})  # pyright: ignore[reportArgumentType]


def test_rows_of_two_sites_belong_together():
    with pytest.raises(ValueError, match="has 128 of model/one:out, 100 of model/two:out; rows of several sites"):
        train_transcoder([{SITE: rows(), OTHER: rows(100)}], (SITE, OTHER), samples=128, options=OPTIONS)


def test_rows_in_a_graph_and_of_any_precision_are_learned_from():
    own = train([rows()])
    assert torch.equal(train([rows().requires_grad_()]).W_dec, own.W_dec)
    assert torch.isfinite(train([rows(40), rows(88).half()]).W_dec).all()
    with pytest.raises(TypeError, match="activations are a Tensor; an autoencoder is judged on a store"):
        evaluate_sae(own, rows())  # pyright: ignore[reportArgumentType]
