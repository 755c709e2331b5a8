"""Whether the weights that an edit changes are read at all when the subject runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

from concept_probe.erasers.erasure.parameters import split_address
from concept_probe.families.reads import passed_over
from concept_probe.types import Prompt, Query, Sampling

if TYPE_CHECKING:
    from concept_probe.families import Subject


@contextmanager
def all_read(subject: Subject, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Raise ValueError at the end of the block for a parameter, by its address, that no pass inside has read.

    Of a component none of whose passes ran to its end inside, nothing is known, and nothing is said.
    """
    components = {name: subject.components[name] for name in {split_address(where)[0] for where in parameters}}
    with subject.state.ending(components) as ended, subject.state.reading(parameters) as reads:
        yield
    for where in reads.unread:
        component, name = split_address(where)
        if component in ended:
            raise ValueError(
                f"{subject.name}: a forward pass of {component!r} ran to its end and never read the weight {where!r}, so "
                f"an edit of it does nothing; {passed_over(components[component], name.rpartition('.')[0])}"
            )


def answer_shortly(subject: Subject) -> None:
    """Run every part of a subject once."""
    subject.generate([Query(Prompt("a"))], Sampling(steps=2, guidance=1.0, tokens=1))
