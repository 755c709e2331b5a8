"""LEACE against its theorem and the published package; oblique removals; what a site's directions hold."""

from __future__ import annotations

import pytest
import torch

from concept_probe.find import difference_of_means, fit_leace, leace
from concept_probe.find.directions.oblique import fit_oblique
from concept_probe.find.rows import RowQuery
from concept_probe.registry import UnknownName
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Site


def rows(n: int = 400, d: int = 12, k: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = (torch.rand(n, k, generator=generator) < 0.4).double()
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    x = (
        torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix
        + z @ torch.randn(k, d, generator=generator).double()
    )
    return x + 2.0, z


def test_parity_with_the_published_package():
    package = pytest.importorskip("concept_erasure")
    x, z = rows()
    eraser = package.LeaceEraser.fit(x, z, shrinkage=False, constrain_cov_trace=False)
    torch.testing.assert_close(fit_leace(x, z)(x), eraser(x), atol=1e-8, rtol=1e-8)
    linear = package.LeaceEraser.fit(x, z, affine=False, shrinkage=False, constrain_cov_trace=False)
    assert linear.bias is None


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_nothing_linear_is_left(affine: bool, shrinkage: float):
    x, z = rows()
    projection = fit_leace(x, z, affine=affine, shrinkage=shrinkage)
    erased = projection(x)
    cross = (erased - erased.mean(0)).mT @ (z - z.mean(0)) / len(x)
    assert cross.abs().max() < 1e-10
    torch.testing.assert_close(projection(erased), erased)
    assert projection.basis.shape == (12, 3)


def test_it_changes_less_than_the_orthogonal_projection():
    x, z = rows()
    centred = x - x.mean(0)
    axes, _ = torch.linalg.qr(centred.mT @ (z - z.mean(0)))
    assert (fit_leace(x, z)(x) - x).square().sum() < (centred @ axes @ axes.mT).square().sum()


def test_a_degenerate_site_is_no_trouble():
    x, z = rows()
    flat = torch.cat([x, x[:, :2] * 2, torch.ones(len(x), 1)], 1)
    erased = fit_leace(flat, z)(flat)
    assert erased.isfinite().all()
    cross = (erased - erased.mean(0)).mT @ (z - z.mean(0)) / len(x)
    assert cross.abs().max() < 1e-8


def test_an_oblique_removal_moves_the_concept_onto_the_rest_and_little_else():
    generator = torch.Generator().manual_seed(3)
    scale = torch.linspace(0.1, 2, 12)
    others = 1 + torch.randn(300, 12, generator=generator) * scale
    direction = torch.randn(12, 1, generator=generator)
    own = others + direction.mT
    removal = fit_oblique(direction, others, ridge=1e-6)
    torch.testing.assert_close(removal.dual.mT @ removal.basis, torch.eye(1, dtype=torch.float64))
    moved = removal(own.double())
    drift = (removal(others.double()) - others).square().sum()
    torch.testing.assert_close(moved, removal(others.double()), atol=1e-5, rtol=1e-5)
    axis = torch.nn.functional.normalize(direction, dim=0)
    assert drift < 0.1 * (others @ axis @ axis.mT).square().sum()


@pytest.mark.slow
def test_directions_separate_held_out_prompts_and_say_so():
    subject, concept = tiny_sd(), tiny_concept()
    for make in (difference_of_means, leace):
        space = make(subject, concept, subject.sites("text_stream")[0])
        assert space.rank == 3
        assert space.role == "text_stream"
        assert space.score.value > 0.7
        assert len(space.scores) == 3
        assert space.score.control is not None
        assert (space.dual is None) == (make is difference_of_means)


def test_a_site_in_the_denoising_loop_has_one_direction():
    from concept_probe.types import Sampling

    subject = tiny_sd()
    space = difference_of_means(
        subject, tiny_concept(), subject.sites("block_out")[0], which=RowQuery(limit=2, sampling=Sampling(steps=2))
    )
    assert space.rank == 1


def test_wrong_sites_are_refused():
    subject = tiny_sd()
    with pytest.raises(UnknownName, match="nearest"):
        leace(subject, tiny_concept(), Site("text_encoder", "final_layer_normm"))
    with pytest.raises(ValueError, match="is a weight"):
        leace(subject, tiny_concept(), subject.sites("mlp_value")[0])
    with pytest.raises(UnknownName, match="token kind"):
        leace(subject, tiny_concept(), subject.sites("text_out")[0], which=RowQuery(("subjekt",)))
