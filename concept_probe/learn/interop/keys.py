"""A configuration is used whole or refused: every key is used by a reader, kept as provenance, or an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

OFF = (None, False, 0, "", "none", "None", [], {}, ())
"""Values that say that nothing is done."""
COMPUTES = re.compile(
    r"norm|scal|activation|act_fn|nonlin|bias|b_dec|thresh|top_?k|tied|cent|mean|whiten|std|reshape|skip|affine|"
    r"transcod|sign|preproc|clamp|temper|delta|diff|subtract|d_out|glu|binar|rotat|hook_name_out|noise"
)
"""Words in the name of a key that may stand for arithmetic: one of them under a name that no reader knows is refused."""
OF_TRAINING = frozenset(
    [
        "act_size",
        "act_store_device",
        "activation_dim",
        "activation_store_device",
        "activations_dtype",
        "activations_mixing_fraction",
        "activations_path",
        "aux_loss_scaling",
        "auxk_alpha",
        "auxk_threshold",
        "b_dec_init_method",
        "b_enc_init_method",
        "bias_init",
        "bias_init_method",
        "cached_activations_path",
        "clip_grad_norm",
        "dead_feature_threshold",
        "dead_neuron_threshold",
        "dead_steps_threshold",
        "dead_threshold",
        "decoder_bias_init_method",
        "decoder_heuristic_init_norm",
        "decoder_init_norm",
        "finetuning_method",
        "init_decoder_norm",
        "init_encoder_with_decoder_transpose",
        "initial_k",
        "jumprelu_bandwidth",
        "jumprelu_init_threshold",
        "jumprelu_tanh_scale",
        "k_aux",
        "log_activations_store_to_wandb",
        "lp_norm",
        "lr_scheduler",
        "lr_scheduler_name",
        "max_grad_norm",
        "mse_loss_normalization",
        "multi_topk",
        "n_batches_for_norm_estimate",
        "new_cached_activations_path",
        "noise_scale",
        "normalize_decoder",
        "normalize_sae_decoder",
        "num_activations",
        "save_activations",
        "scale_sparsity_penalty_by_decoder_norm",
        "sparsity_threshold_schedule",
        "standardize_loss",
        "threshold_beta",
        "threshold_lr",
        "threshold_start_step",
        "top_k_aux",
        "topk_threshold_lr",
        "train_topk_aux",
        "use_cached_activation",
        "use_cached_activations",
        "use_sparse_activations",
    ]
)
"""Names with such a word that belong to training alone."""


def _of_training(key: str) -> bool:
    return key in OF_TRAINING or key.startswith(("wandb", "log_"))


class Keys:
    """The keys of a configuration; those that a reader asks for are used, `kept` gives the others."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self._config = dict(config)
        self.where = where
        """What messages call it."""
        self._used: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._config

    def get(self, key: str, default: Any = None) -> Any:
        """The value, which counts as used from now on."""
        self._used.add(key)
        return self._config.get(key, default)

    def whole_object(self) -> dict[str, Any]:
        """All of it, for a reader with names of its own; every key counts as used."""
        self._used.update(self._config)
        return dict(self._config)

    def peek(self, key: str) -> Any:
        """The value, or None; it still has to be used or kept."""
        return self._config.get(key)

    def section(self, key: str) -> Keys:
        """The keys of an object inside; empty where there is none. ValueError for another kind of value."""
        value = self.get(key)
        if value is None:
            return Keys({}, f"{self.where}, {key}")
        if not isinstance(value, Mapping):
            raise ValueError(f"{self.where}: {key} is {value!r} in the configuration; an object is needed")
        return Keys(value, f"{self.where}, {key}")

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false. ValueError naming what is there instead."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ValueError(f"{self.where}: {key} is {value!r} in the configuration; true or false is needed")
        return value

    def whole(self, key: str) -> int:
        """The whole number of 1 or more under `key`. ValueError naming what is there instead."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            raise ValueError(f"{self.where}: {key} is {value!r} in the configuration; a whole number is needed")
        if value < 1:
            raise ValueError(f"{self.where}: {key} is {value!r} in the configuration; at least 1 is needed")
        return int(value)

    def number(self, key: str) -> float:
        """The finite number under `key`. ValueError naming what is there instead."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
            raise ValueError(f"{self.where}: {key} is {value!r} in the configuration; a number is needed")
        return float(value)

    def choice(self, key: str, known: Sequence[str], default: str) -> str:
        """One of `known`. ValueError naming the key, what is there, and what is known."""
        value = self.get(key)
        if value is None:
            return default
        if value not in known:
            raise ValueError(
                f"{self.where}: {key} is {value!r}, which is not known; known: {', '.join(known)}; nothing was loaded"
            )
        return value

    def agrees(self, key: str, found: int, what: str) -> None:
        """ValueError where the configuration has another number under `key` than the tensors say."""
        if self.get(key) is not None and self.whole(key) != found:
            raise ValueError(f"{self.where}: {what}, the configuration says {key} {self.peek(key)}")

    def off(self, key: str, why: str) -> None:
        """ValueError where `key` is switched on: an option under which our codes would differ from the original's."""
        if (value := self.get(key)) not in OFF:
            shown = "true" if value is True else repr(value)
            raise ValueError(f"{self.where}: {key} is {shown}, {why}; nothing was loaded")

    def kept(self) -> dict[str, Any]:
        """Every key that no reader used, with its value, for `made_by`.

        ValueError for one that is switched on and whose name says that it may change the codes.
        """
        rest = {key: value for key, value in self._config.items() if key not in self._used}
        for key, value in rest.items():
            if value not in OFF and COMPUTES.search(key.lower()) and not _of_training(key):
                raise ValueError(
                    f"{self.where}: {key} is {value!r}, which no reader here knows and which may change the codes; "
                    "nothing was loaded: take the key out of the configuration if it does not"
                )
        return rest
