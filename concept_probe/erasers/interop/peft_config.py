"""What peft writes beside an adapter: how strong it acts, and what its tensors alone don't tell."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from concept_probe.erasers.interop.promised import Promise
from concept_probe.storage import CorruptFile, WrongFile, read_json

_MEND = "get the file again"
PEFT_KINDS = ("LORA", "LOHA", "LOKR")
"""Kinds of adapters of peft that are read."""
_NOT_READ = {
    "layer_replication": "layers that are used several times",
    "trainable_token_indices": "trained rows of an embedding",
    "alora_invocation_tokens": "an adapter that waits for given tokens (aLoRA)",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "target_parameters": "adapters of parameters that are no weight of a module",
    "arrow_config": "Arrow, which chooses between adapters",
    "monteclora_config": "MonteCLoRA, which is drawn at random",
    "kasa_config": "KaSA, which takes a part of the base away",
}
"""Key of a configuration to what it turns on."""
_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that take something from the base's weights, which the adapter alone doesn't hold."""


@dataclass(frozen=True)
class AdapterConfig:
    """The scale of each module's adapter."""

    rank: int = 0
    alpha: float = 0.0
    ranks: Mapping[str, int] = field(default_factory=dict)
    """By a pattern that the end of a module's path fits."""
    alphas: Mapping[str, float] = field(default_factory=dict)
    by_root: bool = False
    """Whether the scale is α / √rank."""
    with_magnitudes: bool = False
    """Whether each module's adapter is a DoRA, which has a magnitude beside its product."""
    promise: Promise = field(default_factory=Promise)
    """Which modules the adapter has, and what it holds besides."""

    def scale(self, path: str, rank: int | None) -> float:
        """α / rank of the module at `path`. ValueError where its adapter has another `rank`; None: its tensors don't tell."""
        said = _fitting(self.ranks, path, self.rank)
        if rank is not None and said != rank:
            raise ValueError(
                f"the configuration says rank {said} for {path!r}, and its tensors have {rank}; they are of different adapters"
            )
        alpha = float(_fitting(self.alphas, path, self.alpha))
        return alpha / (math.sqrt(said) if self.by_root else said)

    @classmethod
    def read(cls, path: Path) -> AdapterConfig:
        """Raises as `parsed`, MissingFile and CorruptFile for a file that is no table."""
        return cls.parsed(path, read_json(path, _MEND))

    @classmethod
    def parsed(cls, path: Path, said: Mapping[str, Any]) -> AdapterConfig:
        """WrongFile for another kind of adapter, or one that does more than add a product; CorruptFile for what is no rank."""
        kind = said.get("peft_type", "LORA")
        if kind not in PEFT_KINDS:
            mend = f"{', '.join(PEFT_KINDS)} are read; merge it with peft, and give the whole model"
            raise WrongFile(path, f"an adapter of kind {kind}", mend)
        for key, what in _NOT_READ.items():
            if said.get(key):
                raise WrongFile(path, f"{key} turns on {what}", "merge it with peft, and give the whole model")
        begins = said.get("init_lora_weights", True)
        if isinstance(begins, str) and begins.lower().startswith(_MOVES_BASE):
            raise WrongFile(
                path,
                f"init_lora_weights {begins!r} changed the base's weights too",
                "save it with peft's path_initial_model_for_weight_conversion, which makes a plain LoRA of it",
            )
        rank, alpha = said.get("r"), said.get("lora_alpha" if kind == "LORA" else "alpha")
        ranks, alphas = said.get("rank_pattern") or {}, said.get("alpha_pattern") or {}
        if not isinstance(ranks, Mapping) or not isinstance(alphas, Mapping):
            raise CorruptFile(path, "its rank_pattern or alpha_pattern is no table of numbers by pattern", _MEND)
        whole, strengths = [rank, *ranks.values()], [alpha, *alphas.values()]
        positive = all(_positive(n) for n in (*whole, *strengths))
        if rank is None or alpha is None or not positive or any(n % 1 for n in whole):
            raise CorruptFile(
                path, f"r, α or their patterns are no positive numbers, ranks whole ({[*whole, *strengths]})", _MEND
            )
        try:
            [re.compile(pattern) for pattern in (*ranks, *alphas)]
        except re.error as error:
            raise CorruptFile(path, f"a key of rank_pattern or alpha_pattern is no pattern ({error})", _MEND) from None
        return cls(int(rank), float(alpha), dict(ranks), dict(alphas), bool(said.get("use_rslora")),
                   bool(said.get("use_dora")), Promise.parsed(path, said))  # fmt: skip


def _positive(n: Any) -> bool:
    return isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) and n > 0


def _fitting(table: Mapping[str, Any], path: str, usual: Any) -> Any:
    """The value of the first pattern that the end of `path` fits, as peft looks it up."""
    return next((value for key, value in table.items() if re.match(rf"(.*\.)?({key})$", path)), usual)
