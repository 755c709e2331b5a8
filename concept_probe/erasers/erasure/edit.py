"""An edit: a change of weights that can be switched on and off, saved, baked in and exported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from concept_probe.erasers.erasure.base import WrongBase, moved
from concept_probe.erasers.erasure.deltas import Delta, Sum
from concept_probe.erasers.erasure.files import read_deltas, write_deltas
from concept_probe.erasers.erasure.lora import write_lora
from concept_probe.erasers.erasure.parameters import find_parameter, refuse_shared, split_address
from concept_probe.erasers.erasure.provenance import check_strength, condensed
from concept_probe.erasers.erasure.used import all_read, answer_shortly

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class Edit:
    """Deltas of a subject's parameters, tied to the weights that they were made for.

    >>> with edit.on(subject):
    ...     pictures = subject.generate(queries)      # edited
    >>> subject.generate(queries)                     # every byte as before
    """

    name: str
    """The method that made it, with what distinguishes it."""
    concept: str
    deltas: Mapping[str, Delta]
    """By parameter address, `component/path:weight` or `component/path:bias`."""
    base_hash: str
    """`subject.weight_hash()` of the weights it was made for."""
    made_by: Mapping[str, Any] = field(default_factory=dict)
    """Method, options, and what its solve reported; values that JSON can hold."""

    def __post_init__(self) -> None:
        """Raises ValueError for what is no address, TypeError for what is no delta; deltas check their own numbers."""
        for where, delta in self.deltas.items():
            split_address(where)
            if not isinstance(delta, Delta):
                raise TypeError(f"edit {self.name!r}: the change of {where!r} is a {type(delta).__name__}, not a delta")

    @contextlib.contextmanager
    def on(self, subject: Subject) -> Iterator[Subject]:
        """The subject with the edit in place; its own tensors come back afterwards, also after an error.

        Raises `WrongBase` for other weights, UnknownName for a parameter that the subject lacks,
        ValueError for tied, quantised or offloaded ones: in each case nothing is applied. At the end of the block,
        ValueError for a weight that no pass inside has read, though one of its component ran to its end.
        """
        with subject.state.alone():
            edited = self._edited(subject)
            parameters = {address: parameter for address, parameter, _ in edited}
            changes = [self.deltas[address].apply for address in parameters]
            with (
                all_read(subject, parameters),
                subject.state.edited([(parameter, tensor) for _, parameter, tensor in edited], changes),
            ):
                yield subject

    def bake(self, subject: Subject) -> None:
        """Write the edit into the subject's weights for good. The hash of the subject changes.

        Raises as `on` does, after one answer to a short prompt; nothing is written then.
        """
        with self.on(subject):
            if not all(delta.is_empty() for delta in self.deltas.values()):
                answer_shortly(subject)
        for _, parameter, edited in self._edited(subject, whole=True):
            parameter.data = edited

    def _edited(self, subject: Subject, *, whole: bool = False) -> list[tuple[str, torch.nn.Parameter, Tensor]]:
        """Every edited parameter with its address and new tensor, all computed before the first is put in place.

        `whole` reads all weights once more to see that they are those that the edit was made for.
        """
        deltas = {address: delta for address, delta in self.deltas.items() if not delta.is_empty()}
        if not deltas:
            return []
        found = subject.weight_hash(whole=whole)
        if found != self.base_hash:
            raise WrongBase(
                f"edit {self.name!r} was made for weights {self.base_hash}, but subject {subject.name!r} has weights "
                f"{found}; nothing was applied. Load the subject the edit was made for, or make the edit again "
                "(an edit made on top of another one is switched on inside that other's `on`, or merged with `then`; "
                "`edit.meant_for(subject)` says that these weights are meant)"
            )
        parameters = {address: find_parameter(subject.components, address) for address in deltas}
        refuse_shared(subject.components, parameters)
        return [(address, parameters[address], self._applied(address, parameters[address].data)) for address in deltas]

    def _applied(self, address: str, base: Tensor) -> Tensor:
        """The new tensor of one parameter. Raises ValueError where it does not fit, or overflows."""
        try:
            edited = self.deltas[address].apply(base)
        except ValueError as problem:
            raise ValueError(f"edit {self.name!r}, {address!r}: {problem}; nothing was applied") from None
        if not bool(torch.isfinite(edited).all()):
            raise ValueError(
                f"edit {self.name!r} takes {address!r} beyond what {base.dtype} holds; nothing was applied. Make it weaker "
                "(`scaled`), or load the subject in a wider dtype"
            )
        return edited

    def scaled(self, factor: float) -> Edit:
        """The same edit `factor` times as strong; 0 changes nothing. Raises ValueError for a factor that is not finite."""
        check_strength(self.name, factor)
        deltas = {address: delta.scaled(factor) for address, delta in self.deltas.items()} if factor else {}
        total = self.made_by.get("scaled", 1.0) * factor
        return replace(self, deltas=deltas, made_by={**self.made_by, "scaled": total})

    def meant_for(self, subject: Subject) -> Edit:
        """The same change, meant for these weights although it was made for others: a finetuned model's, say.

        >>> with edit.meant_for(finetuned).on(finetuned): ...

        What it does there is for you to show. Shapes have to fit: `on` looks.
        """
        return replace(self, base_hash=subject.weight_hash(), made_by=moved(self.made_by, self.base_hash))

    def then(self, second: Edit, subject: Subject) -> Edit:
        """One edit that does what `second` does after this one; `subject` holds this one's base weights.

        `second` must have been made with this one on; otherwise `WrongBase`.
        """
        with self.on(subject):
            found = subject.weight_hash()
        if found != second.base_hash:
            raise WrongBase(
                f"edit {second.name!r} was made for weights {second.base_hash}, but after {self.name!r} the weights "
                f"are {found}; make it inside `with first.on(subject)`"
            )
        deltas = dict(self.deltas)
        for address, delta in second.deltas.items():
            deltas[address] = Sum((deltas[address], delta)) if address in deltas else delta
        concepts = dict.fromkeys((self.concept, second.concept))
        return Edit(
            f"{self.name}+{second.name}",
            "+".join(concepts),
            deltas,
            self.base_hash,
            {"method": "then", "first": dict(self.made_by), "second": dict(second.made_by)},
        )

    def describe(self) -> dict[str, Any]:
        """What it is, as values that JSON can hold."""
        return {
            "kind": "edit",
            "name": self.name,
            "concept": self.concept,
            "base_hash": self.base_hash,
            "parameters": {address: delta.describe() for address, delta in self.deltas.items()},
            "made_by": condensed(self.made_by),
        }

    def save(self, folder: str | Path) -> Path:
        """Write `edit.safetensors` and `edit.json` into `folder`. Returns the folder."""
        place = Path(folder)
        note = {"name": self.name, "concept": self.concept, "base_hash": self.base_hash, "made_by": dict(self.made_by)}
        write_deltas(place, self.deltas, note)
        return place

    @classmethod
    def load(cls, folder: str | Path) -> Edit:
        """Read what `save` wrote. Raises ValueError naming the file and the check that failed."""
        deltas, note = read_deltas(Path(folder))
        return cls(note["name"], note["concept"], deltas, note["base_hash"], note["made_by"])

    def export_lora(
        self, folder: str | Path, subject: Subject | None = None, *, leave_out: bool = False
    ) -> tuple[Path, ...]:
        """One adapter folder per component, loadable with `peft.PeftModel.from_pretrained(component, folder)`.

        Beside them, for a pipeline, `pytorch_lora_weights.safetensors`: `pipe.load_lora_weights(folder)` loads it, and so
        do web interfaces. Changes of matrices and of convolutions are held whole, at scale 1. Returns the folders.

        Raises ValueError naming the first change of a bias, a norm or an embedding, which an adapter of low-rank matrices
        can't hold. With `leave_out` such changes are left out, and a warning says how much of the edit they are. `subject` is
        needed where a convolution's change is low-rank: it tells the kernel.
        """
        return write_lora(self.deltas, Path(folder), subject, leave_out=leave_out)
