"""What is in a block that is not built as a language model's are read: the words of a refusal."""

from __future__ import annotations

import inspect
import re

from torch import nn
from transformers.pytorch_utils import Conv1D

NAMES_OF_EXPERTS = re.compile(r"(expert|router|moe)s?(block|layer|mlp)?$", re.IGNORECASE)
"""Names by which a mixture of experts gives itself away; only the words of a refusal depend on them."""


def described(block: nn.Module, most: int = 8) -> str:
    """The children of a block, each with its class and what it holds."""
    children = list(block.named_children())
    told = [f"{name} ({type(child).__name__}{_holds(child)})" for name, child in children[:most]]
    return ", ".join(told) + (f" and {len(children) - most} more" if len(children) > most else "") or "nothing"


def _holds(child: nn.Module) -> str:
    if isinstance(child, nn.Linear | Conv1D):
        rows, columns = shape_of(child)
        return f" {rows} to {columns}"
    count = sum(isinstance(m, nn.Linear | Conv1D) for m in child.modules())
    return f" of {count} matrices" if count else ""


def shape_of(matrix: nn.Module) -> tuple[int, int]:
    """(d_in, d_out) of an `nn.Linear` or a `Conv1D`, which keeps its weight the other way round."""
    rows, columns = matrix.weight.shape  # pyright: ignore[reportGeneralTypeIssues, reportAttributeAccessIssue]
    return (int(rows), int(columns)) if isinstance(matrix, Conv1D) else (int(columns), int(rows))


def experts_in(block: nn.Module) -> str | None:
    """The path of what looks like experts in a block; None where nothing does."""
    for path, module in block.named_modules():
        if path and any(NAMES_OF_EXPERTS.search(name) for name in (path.rsplit(".", 1)[-1], type(module).__name__)):
            return path
    return None


def why_no_block(block: nn.Module, width: int) -> str:
    """Why no feed-forward was found in a block, as the rest of a sentence that begins with the block."""
    experts = experts_in(block)
    if experts is not None:
        return (
            f"is a mixture of experts (at {experts!r}), and which of them answer differs by token; give a dense model"
        )
    for name, child in block.named_children():
        takes = [
            p.name
            for p in inspect.signature(child.forward).parameters.values()
            if p.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        matrices = [m for m in child.modules() if isinstance(m, nn.Linear | Conv1D)]
        widens = len(matrices) in (2, 3) and shape_of(matrices[-1])[1] == width != shape_of(matrices[-1])[0]
        if widens and len(takes) > 1:
            return (
                f"gives its feed-forward {name!r} more than one tensor ({', '.join(takes)}): it adds to the stream, or "
                "keeps a state, inside, so what it writes stands nowhere by itself"
            )
    if not any(list(child.children()) for child in block.children()):
        return "has no parts of its own that attend or feed forward"
    return f"has no feed-forward: no child takes one tensor from width {width} through two or three matrices and back"
