"""Autoencoders on disk, in sae-lens 6's format: cfg.json and sae_weights.safetensors, no pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from concept_probe.learn.checkpoint import (
    CorruptFile,
    file_sha256,
    read_tensors,
    refuse_pickle,
    write_tensors,
    write_text,
)
from concept_probe.learn.sae import Activation, JumpRelu, Relu, Sae, TopK
from concept_probe.registry import look_up
from concept_probe.types import Site

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
FORMAT = "6.0.0"
"""The sae-lens version whose format is written: it selects sae-lens's reader."""
MEND = "get the file again, or train again"


class SaeLensModule(Protocol):
    """What is asked of a live `sae_lens.SAE`."""

    cfg: Any

    def state_dict(self) -> Mapping[str, Tensor]: ...


ACTIVATIONS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Tensor]], Activation]] = {
    "topk": lambda cfg, tensors: TopK(int(cfg["k"])),
    "standard": lambda cfg, tensors: Relu(),
    "jumprelu": lambda cfg, tensors: JumpRelu(tensors["threshold"]),
}


def save_sae(sae: Sae, folder: str | Path) -> Path:
    """Write the autoencoder where sae-lens can load it, and return the folder.

    The scale is folded into the weights (W_enc scale, W_dec / scale, b_dec / scale), so that codes and
    reconstructions of raw rows are the same there; site, scale, provenance and the weights' sha256 are
    kept under metadata.concept_probe. Weights come first: a run killed in between leaves a
    configuration whose sha256 does not fit, which `load_sae` refuses.
    """
    folder = Path(folder)
    tensors = {"W_enc": sae.W_enc * sae.scale, "b_enc": sae.b_enc, "W_dec": sae.decoder, "b_dec": sae.bias}
    config: dict[str, Any] = {
        "architecture": sae.activation.architecture,
        "d_in": sae.d,
        "d_sae": sae.width,
        "dtype": str(sae.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if isinstance(sae.activation, TopK):
        config |= {"k": sae.activation.k, "rescale_acts_by_decoder_norm": False}
    if isinstance(sae.activation, JumpRelu):
        tensors["threshold"] = sae.activation.threshold
    write_tensors(folder / WEIGHTS, tensors, {})
    ours = {"site": str(sae.site), "scale": sae.scale, "sha256": file_sha256(folder / WEIGHTS), "made_by": sae.made_by}
    config["metadata"] = {"sae_lens_version": FORMAT, "hook_name": sae.site.path, "concept_probe": ours}
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    return folder


def load_sae(folder: str | Path, *, site: Site | None = None) -> Sae:
    """Read an autoencoder that `save_sae` or sae-lens wrote (architectures topk, standard, jumprelu).

    `site` must be given where the folder does not name one, as with files made by sae-lens.

    Raises CorruptFile for a file that was cut or altered (naming it and the check), ValueError for a
    pickle, another site or width (naming both values), or an option that would change the codes.
    """
    folder = Path(folder)
    refuse_pickle(folder)
    config_path, weights_path = folder / CONFIG, folder / WEIGHTS
    for path in (config_path, weights_path):
        if not path.is_file():
            for other in sorted(folder.glob("*")):
                refuse_pickle(other)
            raise FileNotFoundError(f"{path} not found; an autoencoder's folder holds {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFile(config_path, f"not whole JSON ({error})", MEND) from None
    written = _ours(config).get("sha256")
    if written is not None and written != (found := file_sha256(weights_path)):
        raise CorruptFile(weights_path, f"sha256 is {found}, {CONFIG} says {written}", MEND)
    tensors, _ = read_tensors(weights_path, MEND)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CorruptFile(weights_path, f"{name} holds NaN or infinity", MEND)
    return _build(config, tensors, site, str(folder))


def from_sae_lens(module: SaeLensModule, site: Site) -> Sae:
    """A live `sae_lens.SAE` (topk, standard or jumprelu) as an `Sae`. ValueError as for `load_sae`."""
    tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    return _build(module.cfg.to_dict(), tensors, site, type(module).__name__)


def _ours(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return (config.get("metadata") or {}).get("concept_probe") or {}


def _build(config: Mapping[str, Any], tensors: dict[str, Tensor], site: Site | None, where: str) -> Sae:
    ours = _ours(config)
    stored = Site.parse(ours["site"]) if "site" in ours else None
    if site is not None and stored is not None and site != stored:
        raise ValueError(f"{where}: the autoencoder is for site {stored}, {site} was asked for; nothing was loaded")
    if (site := site or stored) is None:
        raise ValueError(f"{where}: the file does not say which site it is for; pass site=Site(component, path)")
    make = look_up(ACTIVATIONS, str(config.get("architecture")), "sae architecture", f"{where}, {CONFIG}")
    for option, value in (("normalize_activations", "none"), ("reshape_activations", "none")):
        if config.get(option, value) != value:
            why = "which would change the codes and is not supported; fold it into the weights with sae-lens first"
            raise ValueError(f"{where}: {option} is {config[option]!r}, {why}")
    d, f = int(config["d_in"]), int(config["d_sae"])
    shapes = {"W_enc": (d, f), "b_enc": (f,), "W_dec": (f, d), "b_dec": (d,)}
    if config["architecture"] == "jumprelu":
        shapes["threshold"] = (f,)
    for name, shape in shapes.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shape:
            raise ValueError(f"{where}: {name} is {found}, {CONFIG} (d_in {d}, d_sae {f}) asks for {shape}")
    W_enc, b_enc, W_dec, b_dec = (tensors[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    if config.get("rescale_acts_by_decoder_norm", False):
        norms = torch.linalg.vector_norm(W_dec, dim=1)
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms, W_dec / norms[:, None]
    if not config.get("apply_b_dec_to_input", True):
        # the encoder there reads x, ours x - b_dec: what it subtracts is given back to the bias
        b_enc = (b_enc.double() + b_dec.double() @ W_enc.double()).to(b_enc.dtype)
    scale = float(ours.get("scale", 1.0))
    return Sae(
        site,
        make(config, tensors),
        W_enc=W_enc / scale,
        b_enc=b_enc,
        W_dec=W_dec * scale,
        b_dec=b_dec * scale,
        scale=scale,
        made_by=ours.get("made_by"),
    )
