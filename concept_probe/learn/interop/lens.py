"""The format that is written, sae-lens 6's: cfg.json and sae_weights.safetensors; and live autoencoders of sae-lens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from concept_probe.learn.interop.keys import Keys
from concept_probe.learn.interop.lens_reader import CONFIG, WEIGHTS, parts_of
from concept_probe.learn.interop.parts import Checkpoint
from concept_probe.learn.interop.sealing import WITH_SEAL, write_config
from concept_probe.learn.sae import BatchTopK, Sae, TopK
from concept_probe.storage import file_sha256, only_writer, write_sealed
from concept_probe.types import Site

VERSION = "6.0.0"
"""The sae-lens version whose format is written: it selects sae-lens's reader."""


class SaeLensModule(Protocol):
    """What is asked of a live `sae_lens.SAE`."""

    cfg: Any

    def state_dict(self) -> Mapping[str, Tensor]: ...


def save_sae(sae: Sae, folder: str | Path) -> Path:
    """Write the autoencoder where sae-lens can load it, and return the folder.

    The scale is folded into the weights (W_enc scale, W_dec / scale, b_dec / scale), so that codes and
    reconstructions of raw rows are the same there; site, scale, told_by and the weights' sha256 are
    kept under metadata.concept_probe, with a seal over the whole configuration. Weights come first: a run killed in between leaves a
    configuration whose sha256 does not fit, which `load_sae` refuses.
    """
    folder = Path(folder)
    with only_writer(folder, "an autoencoder"):
        _write(sae, folder)
    return folder


def _write(sae: Sae, folder: Path) -> None:
    tensors = {"W_enc": sae.W_enc * sae.scale, "b_enc": sae.b_enc, "W_dec": sae.decoder, "b_dec": sae.bias}
    config: dict[str, Any] = {
        "architecture": sae.activation.architecture,
        "d_in": sae.d,
        "d_sae": sae.width,
        "dtype": str(sae.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": sae.row_norm,
        "reshape_activations": "none",
    }
    if isinstance(sae.activation, TopK):
        config |= {"k": sae.activation.k, "rescale_acts_by_decoder_norm": False}
    threshold = getattr(sae.activation, "threshold", None)
    if threshold is not None:  # one per feature there, whether ours has one for each or one for all
        tensors["threshold"] = threshold.detach().to(sae.W_enc.dtype).expand(sae.width)
    write_sealed(folder / WEIGHTS, tensors, WITH_SEAL)
    ours = {"site": str(sae.site), "scale": sae.scale, "sha256": file_sha256(folder / WEIGHTS), "made_by": sae.made_by}
    if isinstance(sae.activation, BatchTopK):
        ours["batch_topk"] = sae.activation.k
    config["metadata"] = {"sae_lens_version": VERSION, "hook_name": sae.site.path, "concept_probe": ours}
    write_config(folder / CONFIG, config)


def from_sae_lens(module: SaeLensModule, site: Site) -> Sae:
    """A live `sae_lens.SAE` as an `Sae`: topk, standard, jumprelu, gated, or one of the batchtopk kinds in training.

    ValueError as for `load_sae`.
    """
    tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    file = Checkpoint(Keys({}, ""), tensors, type(module).__name__)
    return parts_of(module.cfg.to_dict(), file).build(site, file.where)
