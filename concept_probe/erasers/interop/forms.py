"""The forms in which edits go from one tool to another, one declaration each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from concept_probe.erasers.interop.write import (
    ToWrite,
    write_checkpoint,
    write_comfy,
    write_diffusers,
    write_edit,
    write_kohya,
    write_peft,
    write_pipeline_folder,
    write_state_dicts,
)
from concept_probe.registry import Registry, look_up

if TYPE_CHECKING:
    from concept_probe.erasers.erasure.edit import Edit
    from concept_probe.families import Subject

ChangeKind = Literal["matrices", "convolutions", "biases", "norms", "embeddings"]
EVERY_CHANGE: tuple[ChangeKind, ...] = ("matrices", "convolutions", "biases", "norms", "embeddings")
ONLY_PRODUCTS: tuple[ChangeKind, ...] = ("matrices", "convolutions")


@dataclass(frozen=True)
class EditForm:
    """A form of files that hold an edit. `example` is the name of a tensor in it, by which it is told."""

    what: str
    """What lies there."""
    for_whom: str
    """Who writes and loads it."""
    example: str
    """A tensor's name as it stands in such a file."""
    read: tuple[ChangeKind, ...] = EVERY_CHANGE
    """Changes that `read_edit` takes from it."""
    write: Callable[[ToWrite], tuple[Path, ...]] | None = None
    """What `export_edit` writes it with; None: it is read alone."""
    holds: tuple[ChangeKind, ...] = ()
    """Changes that it can hold when it is written."""
    on: Literal["pictures", "texts", "both"] = "pictures"
    """Whose edits it holds, by what subjects answer with."""

    def row(self) -> str:
        """Its cells in the table of the documentation, behind its name."""
        reads, holds = (_listed(kinds) for kinds in (self.read, self.holds))
        return (
            f"{self.what} | {self.for_whom} | `{self.example}` | {reads} | {holds if self.write else 'is not written'}"
        )


def _listed(kinds: tuple[ChangeKind, ...]) -> str:
    return "all" if kinds == EVERY_CHANGE else ", ".join(kinds)


EDIT_FORMS = Registry[EditForm](
    "forms",
    {
        "edit": EditForm(
            "a folder with `edit.safetensors` and `edit.json`: the change of each parameter, sealed",
            "this package",
            "unet/mid_block.attentions.0.proj_in:weight#u",
            write=write_edit,
            holds=EVERY_CHANGE,
            on="both",
        ),
        "diffusers": EditForm(
            "a LoRA, `pytorch_lora_weights.safetensors`; also by attention processors, as earlier versions wrote it",
            "`load_lora_weights` of diffusers",
            "unet.mid_block.attentions.0.proj_in.lora_A.weight",
            ONLY_PRODUCTS,
            write_diffusers,
            ONLY_PRODUCTS,
        ),
        "kohya": EditForm(
            "a LoRA with its α, LoCon's convolutions and DoRA's magnitudes",
            "kohya's trainers, A1111, ComfyUI, diffusers",
            "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",
            ONLY_PRODUCTS,
            write_kohya,
            ONLY_PRODUCTS,
        ),
        "comfy": EditForm(
            "products and whole changes by the names of ComfyUI's own models",
            "ComfyUI",
            "diffusion_model.middle_block.1.proj_in.lora_up.weight",
            write=write_comfy,
            holds=EVERY_CHANGE,
        ),
        "lycoris": EditForm(
            "LoHa and LoKr, the products of Hadamard and of Kronecker",
            "LyCORIS, A1111, ComfyUI",
            "lora_unet_mid_block_attentions_0_proj_in.hada_w1_a",
            ONLY_PRODUCTS,
        ),
        "peft": EditForm(
            "a folder per component, or one, with `adapter_config.json`: LoRA, rsLoRA, DoRA, LoHa, LoKr",
            "`PeftModel.from_pretrained` of peft",
            "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight",
            write=write_peft,
            holds=ONLY_PRODUCTS,
            on="both",
        ),
        "state-dict": EditForm(
            "the weights of one component, or those that changed, in safetensors or in a pickle of nothing but tensors",
            "ESD, UCE, RECE, SPEED and most erasers' repositories",
            "mid_block.attentions.0.proj_in.weight",
            write=write_state_dicts,
            holds=EVERY_CHANGE,
            on="both",
        ),
        "checkpoint": EditForm(
            "all weights in one file, by the names of latent diffusion",
            "A1111, ComfyUI, `from_single_file` of diffusers",
            "model.diffusion_model.middle_block.1.proj_in.weight",
            write=write_checkpoint,
            holds=EVERY_CHANGE,
        ),
        "pipeline": EditForm(
            "a folder that `save_pretrained` wrote, of a pipeline, one of its components or a language model; variants too",
            "`from_pretrained`",
            "mid_block.attentions.0.proj_in.weight",
            write=write_pipeline_folder,
            holds=EVERY_CHANGE,
            on="both",
        ),
    },
)
"""By the name that `export_edit` is asked with."""


def export_edit(
    edit: Edit, subject: Subject, folder: str | Path, form: str, *, rank: int | None = None, leave_out: bool = False
) -> tuple[Path, ...]:
    """Write an edit of `subject` in one of `EDIT_FORMS`, into `folder`. Returns what was written.

    >>> export_edit(edit, subject, "camel", "kohya")
    (PosixPath('camel/camel.safetensors'),)

    Low-rank forms hold a change of full rank whole, as a product of full rank; with `rank` each is cut to its nearest of at
    most that rank, and a warning says how much of the edit is lost. UnknownName for another form; ValueError naming what
    the form can't hold, unless `leave_out` leaves that out with a warning; WrongBase for an edit of other weights;
    NotADirectoryError for a file in the folder's place.
    """
    chosen = look_up(EDIT_FORMS, form, "form of an edit", "concept-probe info forms")
    if chosen.write is None:
        written = ", ".join(name for name, one in EDIT_FORMS.items() if one.write is not None)
        raise ValueError(f"form {form!r} is read and not written; those that are: {written}")
    if chosen.on not in ("both", subject.answers):
        raise ValueError(
            f"form {form!r} is of models that answer with {chosen.on}, and {subject.name!r} with {subject.answers}"
        )
    if rank is not None and (isinstance(rank, bool) or rank < 1):
        raise ValueError(f"rank {rank} was asked for; it is a whole number from 1, or None for the whole change")
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise NotADirectoryError(f"{place} is a file, and an edit is written into a folder; give another place")
    return chosen.write(ToWrite(edit, subject, place, rank, leave_out))
