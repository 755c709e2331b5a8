"""From the tensors of a forward pass to rows that say what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor

from concept_probe.activations.columns import COLUMNS, FIRST_COLUMNS, stored_column
from concept_probe.activations.tap import refuse_shared_modules, tap
from concept_probe.arguments import Count, Natural, check_arguments, checked_argument
from concept_probe.families.text.kinds import kind_numbers
from concept_probe.registry import look_up
from concept_probe.types import BRANCHES, Branch, Moment, Query, Sampling, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

TEXT_BATCH = 64
"""Prompts of one pass where only text encoders run."""
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""What activations can be kept in."""
RowSink = Callable[[Site, Tensor, Mapping[str, Tensor], int], None]
"""Takes rows (n, d) of a site, their columns, and the number of the pass's first prompt."""


@dataclass(frozen=True)
class CaptureOptions:
    """Which rows of a site are kept, and how."""

    steps: Sequence[Natural] | None = None
    """Passes of the denoiser along a trajectory, 0 the first, as `Moment.step` counts them: not as many as
    `Sampling.steps` for every scheduler. None keeps all. A trajectory ends at the last of them."""
    branches: Sequence[Branch] = ("cond",)
    """Of guidance: rows of the prompt, or of the empty prompt."""
    dtype: torch.dtype = torch.float32
    """Of the rows that are kept."""
    device: torch.device | None = None
    """Where rows wait until they are written or drawn. None: a live draw holds them where the subject is, all else in
    main memory."""
    shard_rows: Count = 65536
    """Rows of one site in one file of a store."""

    def __post_init__(self) -> None:
        check_arguments(self, "capture options")
        if not isinstance(self.dtype, torch.dtype):
            raise TypeError(f"capture options: dtype is {self.dtype!r}; it is a type of torch, such as torch.float32")
        if self.dtype not in FLOATS:
            names = ", ".join(str(dtype) for dtype in FLOATS)
            raise ValueError(
                f"capture options: dtype is {self.dtype}, which can't hold activations; it is one of {names}"
            )


def chosen_sites(subject: Subject, roles: Sequence[str], sites: Sequence[Site]) -> tuple[Site, ...]:
    """Every site of `roles`, then `sites`, each once.

    Raises UnknownName for a role or site that the subject lacks; ValueError if there is none, or for one that is a weight
    or stands for several.
    """
    wanted = tuple(dict.fromkeys((*(s for role in roles for s in subject.sites(role)), *sites)))
    passed = [role for role in subject.roles() if all(site.side != "weight" for site in subject.sites(role))]
    if not wanted:
        raise ValueError(f"no site was given to capture; name roles ({', '.join(passed)}) or sites")
    for site in wanted:
        checked_argument(site, Site, "a site to capture")
        subject.module(site)
        if site.side == "weight":
            raise ValueError(
                f"site {str(site)!r} is a weight, so nothing passes there to be captured; roles that can be: "
                f"{', '.join(passed)}"
            )
    refuse_shared_modules(subject, wanted)
    return wanted


def check_names(kinds: Sequence[str] | None, branches: Sequence[str]) -> None:
    """Raises UnknownName for a token kind or a branch of guidance that does not exist."""
    kind_numbers(kinds or ())
    for branch in branches:
        look_up(dict.fromkeys(BRANCHES), branch, "branch")


def pass_size(subject: Subject, sites: Sequence[Site], sampling: Sampling) -> int:
    """Prompts that go through the subject together."""
    return TEXT_BATCH if all(subject.is_text(site) for site in sites) else sampling.batch


class RowCollector:
    """Turns the tensors of a pass into rows with their columns, and gives them away."""

    def __init__(
        self,
        subject: Subject,
        queries: Sequence[Query],
        kinds: Sequence[str] | None,
        options: CaptureOptions,
        give: RowSink,
        *,
        lost: str,
        numbers: Sequence[int] | None = None,
        first: bool = True,
    ) -> None:
        """`first` says whether rows of the first position of a text are kept. A message calls query i number
        `numbers[i]` (None: i), and says with `lost` what became of a value that is not finite."""
        self.subject = subject
        self.queries = queries
        self.options = options
        self.give = give
        self.lost = lost
        self.numbers = range(len(queries)) if numbers is None else numbers
        self.device = options.device or torch.device("cpu")
        self.steps = None if options.steps is None else frozenset(options.steps)
        self.kinds = None if kinds is None else torch.tensor(kind_numbers(kinds))
        self.branches = frozenset(options.branches)
        self.first = first

    def run(self, sites: Sequence[Site], sampling: Sampling, first: int = 0) -> Iterator[int]:
        """Take the queries from number `first` on through the subject, a pass at a time; yields how many are done."""
        size = pass_size(self.subject, sites, sampling)
        for start in range(first, len(self.queries), size):
            part = self.queries[start : start + size]
            with tap(self.subject, self._looks(sites, start)):
                self.subject.run_to(sites, part, sampling, self.options.steps)
            yield start + len(part)

    def _looks(self, sites: Sequence[Site], start: int) -> dict[Site, Any]:
        """One look per site, for the batch whose first prompt is number `start`."""

        def at(site: Site) -> Any:
            return lambda x, moment: self._take(site, x, moment, start)

        return {site: at(site) for site in sites}

    def _take(self, site: Site, x: Tensor, moment: Moment, start: int) -> None:
        if self.steps is not None and moment.step is not None and moment.step not in self.steps:
            return
        # The empty prompt (row -1) passes the text encoders once per batch; it is kept once.
        kept = [
            i
            for i, (prompt, branch) in enumerate(zip(moment.prompts, moment.branches, strict=True))
            if branch in self.branches and (prompt >= 0 or start == 0)
        ]
        if not kept:
            return
        x, columns = self._rows(site, x.detach(), moment, torch.tensor(kept), start)
        finite = torch.isfinite(x).all(-1)
        if not bool(finite.all()):
            self._refuse(site, columns, int((~finite).nonzero()[0]))
        self.give(site, x, columns, start)

    def _rows(
        self, site: Site, x: Tensor, moment: Moment, kept: Tensor, start: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """x (b, c, h, w), (b, a, d) or (b, d) -> rows (n, d) of the kept batch rows, with their columns."""
        x = x[kept.to(x.device)]
        if x.ndim == 4:
            x = rearrange(x, "b c h w -> b (h w) c")
        single = x.ndim == 2
        x = x[:, None] if single else x
        if x.ndim != 3:
            raise ValueError(
                f"site {str(site)!r} gives shape {tuple(x.shape)}; rows need (b, d), (b, a, d) or (b, c, h, w)"
            )
        b, a, _ = x.shape
        asked = torch.tensor(moment.prompts)[kept]
        blank = torch.full((b, a), -1)
        place = torch.arange(a).expand(b, a)
        axis = None if single else self.subject.axis(site)
        read = torch.ones(b, a, dtype=torch.bool)
        if axis == "token" and moment.places is not None:
            place = moment.places.to(kept.device)[kept]
            read = place >= 0
        kinds = blank
        if axis == "token" and moment.token_kinds is not None:
            kinds = moment.token_kinds.to(kept.device)[kept]
        grid = {
            "prompt": torch.where(asked < 0, asked, asked + start)[:, None].expand(b, a),
            "token": place if axis == "token" else blank,
            "kind": kinds,
            "step": torch.full((b, a), -1 if moment.step is None else moment.step),
            "branch": torch.tensor([BRANCHES.index(moment.branches[i]) for i in kept.tolist()])[:, None].expand(b, a),
            "patch": place if axis == "patch" else blank,
            "sigma": torch.full((b, a), -1.0 if moment.sigma is None else moment.sigma),
        }
        chosen = read
        if axis == "token" and self.kinds is not None:
            chosen = read & torch.isin(kinds, self.kinds)
        if axis == "token" and not self.first:
            chosen = chosen & (place != 0)
        rows = x[chosen.to(x.device)].to(device=self.device, dtype=self.options.dtype)
        return rows, {c: stored_column(c, grid[c][chosen]) for c in COLUMNS}

    def _refuse(self, site: Site, columns: dict[str, Tensor], row: int) -> None:
        at = {c: int(columns[c][row]) for c in FIRST_COLUMNS}
        asked = at["prompt"]
        number, prompt = (self.numbers[asked], self.queries[asked].prompt.text) if asked >= 0 else (-1, "")
        step = "the text encoder" if at["step"] < 0 else f"pass {at['step']}"
        where = f", token {at['token']}" if at["token"] >= 0 else f", patch {at['patch']}" if at["patch"] >= 0 else ""
        raise FloatingPointError(
            f"a value at site {str(site)!r} is not finite: prompt {number} {prompt!r}, {step}, branch "
            f"{BRANCHES[at['branch']]}{where}; {self.lost}; check the weights, or run in float32"
        )
