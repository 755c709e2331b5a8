"""Edits in the files of others: adapters and whole weights read as edits, and edits written in every form that holds them.

`read_edit` reads: `held` is what lies at a path, `groups` what its tensors say by the endings of their names, `naming` the
names that each of their worlds has for a subject's parameters (`ldm`: those of latent diffusion), `fit` which places a file
means, `products` and `changes` what its tensors multiply out to. What a file is is told by its tensors alone. `export_edit` writes,
in one of `EDIT_FORMS`: `write`, with products brought to a `lower` rank where that is asked for.
"""

from concept_probe.erasers.interop.forms import EDIT_FORMS, EditForm, export_edit
from concept_probe.erasers.interop.read import read_edit

__all__ = ["EDIT_FORMS", "EditForm", "export_edit", "read_edit"]
