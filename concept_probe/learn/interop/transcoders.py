"""Transcoders on disk: sae-lens's files, and its reader where it has the activation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from concept_probe.learn.activation import Activation, BatchTopK, TopK
from concept_probe.learn.interop.lens import VERSION
from concept_probe.learn.interop.lens_dialects import ours_of
from concept_probe.learn.interop.lens_reader import CONFIG, WEIGHTS
from concept_probe.learn.interop.sealing import WITH_SEAL, broken_seal, write_config
from concept_probe.learn.transcoder import Transcoder
from concept_probe.storage import (
    CorruptFile,
    check_file,
    file_sha256,
    only_writer,
    read_json,
    read_tensors,
    refuse_pickle,
    write_sealed,
)
from concept_probe.types import Site

_MEND = "get the file again, or train again"


def save_transcoder(transcoder: Transcoder, folder: str | Path) -> Path:
    """Write the transcoder to `folder` and return it.

    Scales are folded into the weights. One of BatchTopK is sae-lens's `jumprelu_transcoder` and loads there; sae-lens
    has no reader for one of TopK, whose architecture is written as `topk_transcoder`.
    """
    folder = Path(folder)
    with only_writer(folder, "an autoencoder"):
        _write(transcoder, folder)
    return folder


def _write(transcoder: Transcoder, folder: Path) -> None:
    activation = transcoder.activation
    tensors = {
        "W_enc": transcoder.W_enc * transcoder.scale,
        "b_enc": transcoder.b_enc,
        "W_dec": transcoder.decoder,
        "b_dec": transcoder.b_dec / transcoder.target_scale,
    }
    config: dict[str, Any] = {
        "architecture": "topk_transcoder",
        "d_in": transcoder.d,
        "d_out": transcoder.d_out,
        "d_sae": transcoder.width,
        "dtype": str(transcoder.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if isinstance(activation, BatchTopK):
        config["architecture"] = "jumprelu_transcoder"
        tensors["threshold"] = activation.threshold.detach().to(transcoder.W_enc.dtype).expand(transcoder.width)
    elif isinstance(activation, TopK):
        config["k"] = activation.k
    else:
        raise ValueError(f"a transcoder with {type(activation).__name__} is not written; TopK and BatchTopK are")
    write_sealed(folder / WEIGHTS, tensors, WITH_SEAL)
    ours = {
        "site": str(transcoder.site),
        "target": str(transcoder.target),
        "scale": transcoder.scale,
        "target_scale": transcoder.target_scale,
        "k": activation.k,
        "sha256": file_sha256(folder / WEIGHTS),
        "made_by": transcoder.made_by,
    }
    config["metadata"] = {"sae_lens_version": VERSION, "hook_name": transcoder.site.path, "concept_probe": ours}
    write_config(folder / CONFIG, config)


def load_transcoder(folder: str | Path) -> Transcoder:
    """Read what `save_transcoder` wrote.

    Raises FileNotFoundError where there is none, CorruptFile for a file that was cut or altered, ValueError for
    a checkpoint that is no transcoder of this project.
    """
    folder = Path(folder)
    refuse_pickle(folder)
    path, weights = folder / CONFIG, folder / WEIGHTS
    for file in (path, weights):
        if not file.is_file():
            raise FileNotFoundError(f"{file} not found; a transcoder's folder holds {CONFIG} and {WEIGHTS}")
    config = read_json(path, _MEND)
    ours = ours_of(config)
    if "target" not in ours:
        raise ValueError(
            f"{folder}: {CONFIG} names no target site, so it is no transcoder; load_sae reads autoencoders"
        )
    tensors, metadata = read_tensors(weights, _MEND)
    if (wrong := broken_seal(config, metadata)) is not None:
        raise CorruptFile(path, wrong, _MEND)
    check_file(weights, ours["sha256"], CONFIG, _MEND)
    lacking = sorted({"target_scale", "k"} - set(ours)) + sorted({"W_enc", "b_enc", "W_dec", "b_dec"} - set(tensors))
    if lacking:
        raise CorruptFile(path, f"it or {WEIGHTS} lacks {', '.join(lacking)}", _MEND)
    activation: Activation = TopK(ours["k"])
    if "threshold" in tensors:
        activation = BatchTopK(ours["k"], tensors["threshold"])
    scale, target_scale = float(ours["scale"]), float(ours["target_scale"])
    return Transcoder(
        (Site.parse(ours["site"]), Site.parse(ours["target"])),
        activation,
        W_enc=tensors["W_enc"] / scale,
        b_enc=tensors["b_enc"],
        W_dec=tensors["W_dec"] * target_scale,
        b_dec=tensors["b_dec"] * target_scale,
        scales=(scale, target_scale),
        made_by=ours["made_by"],
    )
