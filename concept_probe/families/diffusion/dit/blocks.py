"""Which tensor of a transformer block is which: one declaration for each class of block.

Nothing else tells them apart: an attention of FLUX returns the image first and its block the text first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from concept_probe.families.diffusion.attentions import AttentionKind
from concept_probe.registry import look_up

ADDED = {"query": "attn.add_q_proj", "key": "attn.add_k_proj", "value": "attn.add_v_proj"}
OWN = {"query": "attn.to_q", "key": "attn.to_k", "value": "attn.to_v", "out": "attn.to_out.0"}
ALONE = {"query": "attention.to_q", "key": "attention.to_k", "value": "attention.to_v", "out": "attention.to_out.0"}
CROSS = {"query": "attn2.to_q", "key": "attn2.to_k", "value": "attn2.to_v", "out": "attn2"}
"""Where diffusers puts the projections of the added text, of the image, of an attention that a block calls
`attention`, and of one from image to text."""

ATTENTION: tuple[tuple[str, AttentionKind, str], ...] = (("attn", "joint", "attn.to_out.0"),)
"""The attention that most blocks have: its path, its kind, and the matrix behind it."""
BEFORE_MLP: tuple[tuple[str, AttentionKind, str], ...] = (("attn", "joint", "proj_out"),)
NAMED_WHOLE: tuple[tuple[str, AttentionKind, str], ...] = (("attention", "joint", "attention.to_out.0"),)
TO_ITSELF: tuple[str, AttentionKind, str] = ("attn1", "self", "attn1.to_out.0")
LINEAR: tuple[str, AttentionKind, str] = ("attn1", "linear", "attn1.to_out.0")
TO_TEXT: tuple[str, AttentionKind, str] = ("attn2", "cross", "attn2.to_out.0")
"""Those of others: whose heads' numbers go with an MLP's through one matrix, that a block calls `attention`, of the image
to itself beside another, the same without weights, and from image to text."""


@dataclass(frozen=True)
class BlockStreams:
    """One class of transformer block. Paths are inside the block; a path that a block lacks is left out."""

    image: int | None = None
    """Which item of the block's output is the image stream; None where the output is that one tensor."""
    text: int | None = None
    """Which item of the block's output is the text stream; None where it gives none."""
    of_image: Mapping[str, str] = field(default_factory=dict)
    """`query`, `key`, `value`, `out` (what the attention writes), `mlp`, `mlp_value` (the MLP's last matrix): of the image
    stream alone."""
    of_text: Mapping[str, str] = field(default_factory=dict)
    """The same of the text stream alone."""
    of_both: Mapping[str, str] = field(default_factory=dict)
    """The same where text and image pass one module as one sequence, or blocks of this class are given one of the two."""
    across: Mapping[str, str] = field(default_factory=dict)
    """`query`, `key`, `value`, `out` of an attention from the image to a text that the blocks leave as it is."""
    attends: tuple[tuple[str, AttentionKind, str], ...] = ATTENTION
    """Its attentions in the order of the forward pass: path, kind where the block is given text and image, and the path of
    the matrix that brings what the heads read back to the image."""
    ends: str | None = None
    """The attribute that is True of a block whose text goes nowhere, so that it gives none."""


BLOCKS: Mapping[str, BlockStreams] = {
    "JointTransformerBlock": BlockStreams(
        image=1,
        text=0,
        of_image=OWN | {"mlp": "ff", "mlp_value": "ff.net.2"},
        of_text=ADDED | {"mlp": "ff_context", "mlp_value": "ff_context.net.2"},
        ends="context_pre_only",
        attends=(*ATTENTION, ("attn2", "self", "attn2.to_out.0")),
    ),
    "FluxTransformerBlock": BlockStreams(
        image=1,
        text=0,
        of_image=OWN | {"mlp": "ff", "mlp_value": "ff.net.2"},
        of_text=ADDED | {"mlp": "ff_context", "mlp_value": "ff_context.net.2"},
    ),
    "FluxSingleTransformerBlock": BlockStreams(
        image=1, text=0, of_both=OWN | {"mlp_value": "proj_out"}, attends=BEFORE_MLP
    ),
    "Flux2TransformerBlock": BlockStreams(
        image=1,
        text=0,
        of_image=OWN | {"mlp": "ff", "mlp_value": "ff.linear_out"},
        of_text=ADDED | {"mlp": "ff_context", "mlp_value": "ff_context.linear_out"},
    ),
    "ChromaTransformerBlock": BlockStreams(
        image=1,
        text=0,
        of_image=OWN | {"mlp": "ff", "mlp_value": "ff.net.2"},
        of_text=ADDED | {"mlp": "ff_context", "mlp_value": "ff_context.net.2"},
    ),
    "ChromaSingleTransformerBlock": BlockStreams(of_both=OWN | {"mlp_value": "proj_out"}, attends=BEFORE_MLP),
    "BasicTransformerBlock": BlockStreams(
        of_image={"mlp": "ff", "mlp_value": "ff.net.2"},
        across=CROSS,
        attends=(TO_ITSELF, TO_TEXT),
    ),
    "AuraFlowJointTransformerBlock": BlockStreams(
        image=1,
        text=0,
        of_image=OWN | {"mlp": "ff", "mlp_value": "ff.out_projection"},
        of_text=ADDED | {"mlp": "ff_context", "mlp_value": "ff_context.out_projection"},
    ),
    "AuraFlowSingleTransformerBlock": BlockStreams(of_both=OWN | {"mlp": "ff", "mlp_value": "ff.out_projection"}),
    "Flux2SingleTransformerBlock": BlockStreams(attends=(("attn", "joint", "attn.to_out"),)),
    "QwenImageTransformerBlock": BlockStreams(
        image=1,
        text=0,
        of_image=OWN | {"mlp": "img_mlp", "mlp_value": "img_mlp.net.2"},
        of_text=ADDED | {"mlp": "txt_mlp", "mlp_value": "txt_mlp.net.2"},
    ),
    "SanaTransformerBlock": BlockStreams(across=CROSS, attends=(LINEAR, TO_TEXT)),
    "Lumina2TransformerBlock": BlockStreams(
        of_both=OWN | {"mlp": "feed_forward", "mlp_value": "feed_forward.linear_2"}
    ),
    "ZImageTransformerBlock": BlockStreams(
        of_both=ALONE | {"mlp": "feed_forward", "mlp_value": "feed_forward.w2"},
        attends=NAMED_WHOLE,
    ),
}
"""By class name."""


def block_of(module: nn.Module) -> BlockStreams:
    """The declaration of a block. Raises UnknownName for a class that has none."""
    return look_up(BLOCKS, type(module).__name__, "class of transformer block", "BLOCKS lists them")
