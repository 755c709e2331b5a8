"""Closed forms, written from the papers and from reading their authors' code: sums and inverses, prompt by prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from concept_probe.erasers import Emcid, Mace, Memit, Rece, Speed, Uce
from concept_probe.erasers.closed_form.key_values import solve_key_values
from concept_probe.erasers.closed_form.mace import attention_left
from concept_probe.erasers.closed_form.null_space import small_projector
from concept_probe.erasers.closed_form.rece import Rounds, solve_rece
from concept_probe.erasers.closed_form.solve import Moments
from concept_probe.erasers.closed_form.speed import solve_speed
from concept_probe.erasers.closed_form.states import TokenStates
from concept_probe.find.directions.leace import fit_leace
from tests.parity.drawn import Case, Pair, drawn, end_of, names, pipeline, states_of


def changed(edit, where: list[str]) -> Tensor:
    """The changes of parameters, one after another, float64."""
    components, out = pipeline().components, []
    for place in where:
        component, _, rest = place.partition("/")
        parameter = components[component].get_parameter(rest.replace(":", ".")).detach()
        out.append((edit.deltas[place].apply(parameter.double()) - parameter.double()).flatten())
    return torch.cat(out)


def uce_inverse(
    w: Tensor, pairs: list[tuple[Tensor, Tensor]], kept: list[Tensor], lam: float, alpha: float, beta: float
) -> Tensor:
    """The new matrix: sums of outer products, one token at a time, and an inverse (arXiv 2308.14761, equation 7)."""
    left, right = lam * w, lam * torch.eye(w.shape[1], dtype=w.dtype)
    for c, g in pairs:
        left, right = left + alpha * torch.outer(w @ g, c), right + alpha * torch.outer(c, c)
    for p in kept:
        left, right = left + beta * torch.outer(w @ p, p), right + beta * torch.outer(p, p)
    return left @ torch.linalg.inv(right)


def uce() -> Pair:
    """(λW + αΣ(W g)cᵀ + βΣ(W p)pᵀ)(λI + αΣccᵀ + βΣppᵀ)⁻¹ over last subject tokens, every key and value matrix."""

    def last(word: str) -> Tensor:
        return states_of(word)[end_of(word) - 1]

    edit = Uce.published()(pipeline(), names())
    where = sorted(edit.deltas)
    unet = dict(pipeline().components["unet"].named_parameters())
    theirs = []
    for place in where:
        w = unet[place.partition("/")[2].replace(":", ".")].detach().double()
        kept = [last(word) for word in ("sun", "red", "thing", "dog")]
        theirs.append((uce_inverse(w, [(last("cat"), last("dog"))], kept, 0.5, 1.0, 1.0) - w).flatten())
    return torch.cat(theirs), changed(edit, where)


def rece() -> Pair:
    """First UCE, then the embedding that would be answered as before, led away; two matrices."""
    c, g, p = drawn(3, 6, seed=1), drawn(3, 6, seed=2), drawn(5, 6, seed=3)
    matrices = [drawn(4, 6, seed=4), drawn(7, 6, seed=5)]
    options = Rece.published()
    first = [uce_inverse(w, list(zip(c, g, strict=True)), list(p), 0.5, 1.0, options.beta) for w in matrices]
    moment, read = options.ridge * torch.eye(6, dtype=torch.float64), torch.zeros(6, 6, dtype=torch.float64)
    for new, old in zip(first, matrices, strict=True):
        moment, read = moment + new.mT @ new, read + new.mT @ old
    again = [torch.linalg.inv(moment) @ read @ one for one in c]
    theirs = []
    for new, old in zip(first, matrices, strict=True):
        left, right = options.lam * new, options.lam * torch.eye(6, dtype=torch.float64)
        for a, b in zip(again, g, strict=True):
            left, right = left + torch.outer(old @ b, a), right + torch.outer(a, a)
        for one in p:
            left, right = (
                left + options.beta * torch.outer(old @ one, one),
                right + options.beta * torch.outer(one, one),
            )
        theirs.append((left @ torch.linalg.inv(right) - old).flatten())
    stack = torch.stack([w.mT @ w for w in matrices[:1]]).sum(0) + matrices[1].mT @ matrices[1]
    rounds = Rounds(options.rounds, options.ridge, options.remember, options.first_lam)
    solved = solve_rece(
        TokenStates(c, g, p, {}), stack, rounds, lam=options.lam, alpha=options.alpha, beta=options.beta
    )
    return torch.cat(theirs), torch.cat([(w @ solved.solution.change).flatten() for w in matrices])


def speed() -> Pair:
    """ΔP with its equality constraints, for the mean over prompts and eigenvalues below a number."""
    options = Speed.published()
    c, g, retained, held = drawn(2, 6, seed=1), drawn(2, 6, seed=2), drawn(3, 6, seed=3), drawn(2, 6, seed=4)
    w, eye = drawn(4, 6, seed=5), torch.eye(6, dtype=torch.float64)
    cc = sum((torch.outer(a, a) for a in c), torch.zeros(6, 6, dtype=torch.float64)) / 2
    gc = sum((torch.outer(b, a) for a, b in zip(c, g, strict=True)), torch.zeros(6, 6, dtype=torch.float64)) / 2
    mean = sum((torch.outer(p, p) for p in retained), torch.zeros(6, 6, dtype=torch.float64)) / 3
    u, s, _ = torch.linalg.svd(mean)
    below = u[:, s < 0.1]
    p, k = below @ below.mT, held.mT
    m = torch.linalg.inv(cc @ p + options.rho * eye)
    inner = torch.linalg.inv(k.mT @ p @ m @ k + options.lam * torch.eye(2, dtype=torch.float64))
    theirs = w @ (gc - cc) @ p @ (eye - m @ k @ inner @ k.mT @ p) @ m
    sums = Moments.of(c, g, retained)
    halved = Moments(sums.edited / 2, sums.destination / 2, sums.retained, 2, 3)
    assert options.mean_over_prompts and options.eigenvalue is not None
    projector = small_projector(retained.mT @ retained / 3, options.eigenvalue)
    ours = solve_speed(halved, projector, held, rho=options.rho, lam=options.lam)
    return theirs, w @ ours.change


def mace() -> Pair:
    """The second stage: the norm of each layer's attention from patches of the subject to its tokens, one latent."""
    maps = [drawn(1, 2, 4, 5, seed=i).softmax(-1) for i in (1, 2)]
    masks = [torch.tensor([[1.0, 0, 1, 1]]), torch.tensor([[0.0, 1, 1, 0]])]
    asked = torch.tensor([[0.0, 1, 1, 0, 0]])
    total = torch.zeros((), dtype=torch.float64)
    for one, mask in zip(maps, masks, strict=True):
        squares = 0.0
        for head in range(2):
            for patch in range(4):
                for token in (1, 2):
                    squares += float(mask[0, patch]) * float(one[0, head, patch, token]) ** 2
        total += squares**0.5
    return total, attention_left(maps, masks, asked, Mace.published().norms)


def key_values(keys: Tensor, wanted: Tensor, kept: Tensor, weight: float) -> Tensor:
    """R Kᵀ (w C + K Kᵀ)⁻¹, with C the mean over kept keys (arXiv 2210.07229, equation 14)."""
    mean = sum((torch.outer(k, k) for k in kept), torch.zeros(kept.shape[1], kept.shape[1], dtype=kept.dtype)) / len(
        kept
    )
    own = sum((torch.outer(k, k) for k in keys), torch.zeros_like(mean))
    return wanted.mT @ torch.linalg.solve(weight * mean + own, keys.mT).mT


def memit() -> Pair:
    """R Kᵀ (w C + K Kᵀ)⁻¹ with w = 20,000 (arXiv 2210.07229, equation 14)."""
    keys, wanted, kept = drawn(3, 6, seed=1), drawn(3, 4, seed=2), drawn(40, 6, seed=3)
    options = Memit.published()
    ours = solve_key_values(keys, wanted, kept, options.weight(keys))
    return key_values(keys, wanted, kept, 20000.0), ours.u @ ours.v.mT


def emcid() -> Pair:
    """The same with the authors' edit weight of 0.5, which is one of 1: (1 - e) / 0.5 before C, √(e / 0.5) before keys."""
    keys, wanted, kept, e = drawn(3, 6, seed=4), drawn(3, 4, seed=5), drawn(40, 6, seed=6), 0.5
    scale = (e / 0.5) ** 0.5
    options = Emcid.published()
    assert options.lam_of_sum
    ours = solve_key_values(keys, wanted, kept, options.lam / len(keys))
    return key_values(keys * scale, wanted * scale, kept, 10000.0 * (1 - e) / 0.5), ours.u @ ours.v.mT


def leace() -> Pair:
    """x - Σ^½ U Uᵀ Σ^-½ (x - μ), U the range of Σ^-½ Σ_xz (arXiv 2306.03819, theorem 4.3)."""
    x, z = drawn(30, 5, seed=1), (drawn(30, 1, seed=2) > 0).double()
    mean, rows = x.mean(0), []
    sigma = sum((torch.outer(r - mean, r - mean) for r in x), torch.zeros(5, 5, dtype=torch.float64)) / 30
    cross = (
        sum(
            ((r - mean) * (float(y) - float(z.mean())) for r, y in zip(x, z, strict=True)),
            torch.zeros(5, dtype=torch.float64),
        )
        / 30
    )
    values, vectors = torch.linalg.eigh(sigma)
    half = vectors @ torch.diag(values.sqrt()) @ vectors.mT
    whiten = torch.linalg.inv(half)
    u = whiten @ cross
    u = u / u.norm()
    rows = [-(half @ u) * float(u @ (whiten @ (r - mean))) for r in x]
    found = fit_leace(x, z, shrinkage=0.0)
    assert found.mean is not None
    return torch.stack(rows), -(x - found.mean) @ found.dual @ found.basis.mT


CASES: dict[str, Case] = {
    "uce": uce,
    "rece": rece,
    "speed": speed,
    "mace": mace,
    "memit": memit,
    "emcid": emcid,
    "leace": leace,
}
