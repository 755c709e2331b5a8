"""What a published configuration says of the model that its rows came from, and where a subject differs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

PROCESSING = (
    "center_writing_weights",
    "center_unembed",
    "fold_ln",
    "fold_value_biases",
    "refactor_factored_attn_matrices",
)
"""Options of transformer_lens that change weights, and with them activations, before a model runs."""
CENTRED = "center_writing_weights"


def processed(made_by: Mapping[str, Any]) -> tuple[str, ...]:
    """The options that changed the weights of the model that an autoencoder was trained on."""
    options = made_by.get("model_from_pretrained_kwargs")
    if not isinstance(options, Mapping):
        return ()
    return tuple(name for name in PROCESSING if options.get(name))


def warn_of_processing(made_by: Mapping[str, Any], where: str) -> None:
    """Say which changes of its model's weights an autoencoder expects: a subject as it was published has none of them."""
    if options := processed(made_by):
        mean = "; rows of the residual stream had their mean taken away" if CENTRED in options else ""
        warnings.warn(
            f"{where}: its rows come from a model loaded with {', '.join(options)}{mean}. A subject as published has other "
            "rows there, so codes are off; see made_by['model_from_pretrained_kwargs']",
            stacklevel=3,
        )
