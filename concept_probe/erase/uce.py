"""Unified concept editing: cross-attention's K/V matrices in closed form (arXiv 2308.14761)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.erase.alignment import Policy, paired_states, preserved_states
from concept_probe.erase.deltas import Delta, LowRank
from concept_probe.erase.edit import Edit
from concept_probe.erase.parameters import address, dtype_of, find_parameter
from concept_probe.find.rows import NEGATIVE, POSITIVE
from concept_probe.types import Concept, Kind, Prompt, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class Solution:
    """K (d, d) with W_new = W + W K for every matrix W that reads the text states, and how well it was solved."""

    change: Tensor
    condition: float
    """Condition number of the matrix that was solved for."""
    residual: float
    """|K M - R| / |R|: what the solve left over."""


def solve_uce(
    target: Float[Tensor, "n d"],
    guide: Float[Tensor, "n d"],
    preserve: Float[Tensor, "m d"],
    *,
    lam: float,
    alpha: float,
    beta: float,
) -> Solution:
    """K = α Σ(g - c)cᵀ M⁻¹ with M = λI + αΣccᵀ + βΣppᵀ, in float64 by Cholesky; nothing is inverted.

    This is W_new = [λW + αΣ(W g)cᵀ + βΣ(W p)pᵀ] M⁻¹, minus W: every matrix shares K. The paper has it without λ
    and with α = β = 1.
    Raises ValueError where M is singular.
    """
    c, g, p = target.double(), guide.double(), preserve.double()
    moment = alpha * c.mT @ c + beta * p.mT @ p
    moment.diagonal().add_(lam)
    factor, failed = torch.linalg.cholesky_ex(moment)
    if int(failed):
        raise ValueError(f"uce: the moment matrix ({len(moment)} wide) is singular; lam is {lam}, make it larger")
    right = alpha * (g - c).mT @ c
    change = torch.cholesky_solve(right.mT, factor).mT
    values = torch.linalg.eigvalsh(moment)
    size = torch.linalg.matrix_norm(right).clamp_min(torch.finfo(right.dtype).tiny)
    residual = torch.linalg.matrix_norm(change @ moment - right) / size
    return Solution(change, float(values[-1] / values[0]), float(residual))


@dataclass(frozen=True)
class Uce:
    """Make every to_k and to_v answer the concept's tokens as it answers the guide's, and other prompts as before.

    >>> edit = Uce(policy="suffix", alpha=1.0, beta=0.1)(subject, concept)
    """

    name: ClassVar[str] = "uce"
    policy: Policy = "suffix"
    """Which tokens of the concept's prompts are moved: `last_subject`, `subject` (all tokens that name it),
    `suffix` (those and all after them, through the end token and padding), `all` (every token but bos)."""
    guide: str | None = None
    """What stands in for the concept. None: the concept's anchor prompts. A text: put in place of the subject in
    each of its prompts. The empty text: the subject is left out."""
    sources: tuple[Kind, ...] = POSITIVE
    """Lists of the concept's prompts (fit split) that are moved."""
    preserve: tuple[Kind, ...] = NEGATIVE
    """Lists of other prompts (fit split) that are kept, all of their tokens."""
    lam: float = 0.1
    """λ: weight of staying near the old matrix everywhere."""
    alpha: float = 1.0
    """α: weight of each moved token."""
    beta: float = 1.0
    """β: weight of each preserved token."""
    balance: Literal["sum", "mean"] = "mean"
    """`sum` takes the sums of the paper; `mean` divides each sum by its number of tokens and multiplies by d,
    so that α, β and λ mean the same whatever the number of prompts."""
    strength: float = 1.0
    """Factor on the change of the weights."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found` is not used. ValueError where the concept has no prompts to move."""
        moved = [prompt for kind in self.sources for prompt in concept.prompts(kind, "fit")]
        if not moved:
            raise ValueError(f"uce: concept {concept.name!r} has no prompts in {', '.join(self.sources)} (fit split)")
        guides = self._guides(moved, concept)
        target, guide, drawn = paired_states(subject, moved, guides, self.policy)
        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        preserve = preserved_states(subject, others) if others else target[:0]
        d = target.shape[1]
        per_moved, per_kept = (1.0, 1.0) if self.balance == "sum" else (d / len(target), d / max(len(preserve), 1))
        solution = solve_uce(
            target, guide, preserve, lam=self.lam, alpha=self.alpha * per_moved, beta=self.beta * per_kept
        )
        made_by: dict[str, Any] = {
            "method": self.name,
            "options": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()},
            "subject": subject.name,
            "condition": solution.condition,
            "residual": solution.residual,
            "moved_tokens": len(target),
            "preserved_tokens": len(preserve),
            "guides": drawn,
            **self._fit(solution.change, target, guide, preserve),
        }
        deltas = self._deltas(subject, solution.change) if self.strength else {}
        return Edit(self.name, concept.name, deltas, subject.weight_hash(), made_by)

    def _guides(self, moved: Sequence[Prompt], concept: Concept) -> list[Prompt]:
        """For each moved prompt, the prompts it may be led to."""
        if self.guide is None:
            guides = concept.prompts("anchor", "fit")
            if not guides:
                raise ValueError(f"uce: concept {concept.name!r} has no anchor prompts (fit split); give a `guide`")
            return list(guides)
        words = self.guide.strip()
        out = []
        for prompt in moved:
            text = prompt.text.replace(prompt.subject, words) if prompt.subject else words
            out.append(Prompt(" ".join(text.split()), words if words and words in text else None))
        return out

    def _deltas(self, subject: Subject, change: Tensor) -> dict[str, Delta]:
        u, s, v = torch.linalg.svd(change, full_matrices=False)
        kept = s > s[:1] * len(s) * torch.finfo(torch.float32).eps
        left, right = u[:, kept] * s[kept] * self.strength, v.mT[:, kept]
        deltas: dict[str, Delta] = {}
        for role in ("cross_key_weight", "cross_value_weight"):
            for site in subject.sites(role):
                parameter = find_parameter(subject.components, address(site))
                if parameter.shape[1] != len(left):
                    found = f"{address(site)!r} reads width {parameter.shape[1]}"
                    raise ValueError(f"uce: {found}, the text states have {len(left)}")
                wide = dtype_of(parameter)
                moved = parameter.detach().double() @ left
                deltas[address(site)] = LowRank(moved.to(wide), right.to(parameter.device, wide).clone())
        return deltas

    @staticmethod
    def _fit(change: Tensor, target: Tensor, guide: Tensor, preserve: Tensor) -> dict[str, float]:
        """How far moved tokens still are from their guides (1: not moved), and how far preserved ones went."""
        gap = torch.linalg.matrix_norm(guide - target).clamp_min(torch.finfo(torch.float64).tiny)
        left = torch.linalg.matrix_norm(target + target @ change.mT - guide) / gap
        out = {"gap_left": float(left)}
        if len(preserve):
            drift = torch.linalg.matrix_norm(preserve @ change.mT) / torch.linalg.matrix_norm(preserve)
            out["preserved_drift"] = float(drift)
        return out
