"""What a configuration of peft promises beside its scales: which modules have an adapter, which are kept whole, which biases."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concept_probe.storage import CorruptFile, WrongFile

_MEND = "get the folder again, whole, or merge it with peft and give the whole model"
ALL_LINEAR = "all-linear"
_NUMBER = r".*?\.[^.]*\.(?P<number>\d+)\."


@dataclass(frozen=True)
class Promise:
    """Names as peft takes them: a list of ends of modules' paths, or a pattern of whole paths."""

    targets: str | tuple[str, ...] = ()
    """Modules with an adapter; empty where nothing is said."""
    excluded: str | tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    """Modules that are held as they are to be (`modules_to_save`)."""
    layers: tuple[int, ...] = ()
    """Numbers of the layers that alone are adapted; empty: all."""
    counted: tuple[str, ...] = ()
    """What the list of numbered layers is called; empty: whatever comes first."""
    biases: str = "none"
    """`all` that there are, or those of adapted modules (`lora_only`)."""

    @classmethod
    def parsed(cls, path: Path, said: Mapping[str, Any]) -> Promise:
        """CorruptFile for what is no name, list of names or pattern."""
        layers = said.get("layers_to_transform")
        found = cls(
            _names(path, said, "target_modules"), _names(path, said, "exclude_modules"),
            _listed(_names(path, said, "modules_to_save")),
            tuple(layers) if isinstance(layers, list) else () if layers is None else (layers,),
            _listed(_names(path, said, "layers_pattern")), str(said.get("bias") or "none"),
        )  # fmt: skip
        if any(not isinstance(n, int) for n in found.layers):
            raise CorruptFile(path, f"layers_to_transform is {layers!r:.60}, no list of numbers", _MEND)
        return found

    def adapts(self, module: str) -> bool:
        """Whether the module at this path of the component is to have an adapter."""
        if _fits(self.excluded, module) or any(
            re.match(rf"(^|.*\.){re.escape(m)}($|\..*)", module) for m in self.whole
        ):
            return False
        if not _fits(self.targets, module):
            return False
        if not self.layers or isinstance(self.targets, str):
            return True
        patterns = [rf"(?:^|.*?\.){name}\.(?P<number>\d+)\." for name in self.counted] or [_NUMBER]
        numbers = [found["number"] for pattern in patterns if (found := re.match(pattern, module))]
        return bool(numbers) and int(numbers[0]) in self.layers

    def refuse_broken(self, path: Path, modules: Sequence[str], held: Collection[str], biased: Collection[str]) -> None:
        """WrongFile where tensors and configuration are not of one adapter.

        `modules` are the paths of the component's modules that have a weight, `biased` those of its biases; `held` are the
        parameters that the file's tensors speak of.
        """
        adapted = {name.rpartition(".")[0] for name in held}
        if self.targets and self.targets != ALL_LINEAR:
            lacking = [m for m in modules if self.adapts(m) and m not in adapted]
            if lacking:
                check = f"its configuration promises an adapter of {lacking[0]!r} (target_modules), and of {len(lacking)} such"
                raise WrongFile(path, f"{check} modules its tensors hold nothing", _MEND)
            more = [m for m in sorted(adapted) if f"{m}.weight" in held and not self._covers(m)]
            if more:
                check = (
                    f"its tensors hold {more[0]!r} and {len(more) - 1} modules more that its configuration doesn't name"
                )
                raise WrongFile(path, f"{check}; peft would leave them out", _MEND)
        for name in self.whole:
            if not any(re.match(rf"(^|.*\.){re.escape(name)}($|\..*)", m) for m in adapted):
                check = f"its configuration promises the whole of {name!r} (modules_to_save), and its tensors hold none of it"
                raise WrongFile(path, check, _MEND)
        wanted = [b for b in biased if self.biases == "all" or b.rpartition(".")[0] in adapted]
        without = [b for b in wanted if b not in held] if self.biases != "none" else []
        if without:
            check = f"its configuration promises trained biases ({self.biases}), and its tensors hold no {without[0]!r}"
            raise WrongFile(path, check, _MEND)

    def _covers(self, module: str) -> bool:
        """Whether the module is named, to be adapted or to be held whole."""
        return self.adapts(module) or any(re.match(rf"(^|.*\.){re.escape(m)}($|\..*)", module) for m in self.whole)


def _fits(names: str | tuple[str, ...], module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _names(path: Path, said: Mapping[str, Any], key: str) -> str | tuple[str, ...]:
    value = said.get(key)
    if not value:
        return ()
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise CorruptFile(path, f"{key} is no pattern ({error})", _MEND) from None
        return value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise CorruptFile(path, f"{key} is {value!r:.60}, neither a list of names nor a pattern", _MEND)
    return tuple(value)


def _listed(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
