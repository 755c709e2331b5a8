"""Gemma Scope (params.npz and nothing else) and Gemma Scope 2 (config.json and params.safetensors): JumpReLU."""

from __future__ import annotations

import re
from dataclasses import replace

from concept_probe.learn.interop.parts import Checkpoint, Format, Parts, centred, told_by, widths
from concept_probe.learn.sae import JumpRelu

UNNAMED = (
    "no folder above it is called as the published sets are (gemma-scope-2b-pt-res, -mlp or -att), so nobody knows whether "
    "it reads the residual stream"
)
TRANSCODER = re.compile(r"gemma-scope.*transcoder")


def _weights(file: Checkpoint, upper: bool) -> tuple[Parts, int]:
    """codes = ReLU(x W_enc + b_enc) where that exceeds the threshold; x̂ = codes W_dec + b_dec."""
    matrix = "W" if upper else "w"
    d, f = widths(file, f"{matrix}_enc")
    shapes = {f"{matrix}_enc": (d, f), "b_enc": (f,), f"{matrix}_dec": (f, d), "b_dec": (d,), "threshold": (f,)}
    W_enc, b_enc, W_dec, b_dec, threshold = file.take(shapes, f"{matrix}_enc {(d, f)}")
    file.finish()
    return Parts(JumpRelu(threshold), W_enc, centred(W_enc, b_enc, b_dec), W_dec, b_dec), f


def _read_first(file: Checkpoint) -> Parts:
    place = "" if file.folder is None else file.folder.as_posix()
    if TRANSCODER.search(place):
        raise ValueError(
            f"{file.where} is of a set of transcoders, which read one site and write another; nothing was loaded"
        )
    if "/embedding/" in place + "/":
        raise ValueError(
            f"{file.where} is of the embedding, whose rows were multiplied by a number that the file doesn't hold; "
            "nothing was loaded"
        )
    parts, _ = _weights(file, "W_enc" in file.tensors)
    layer, hook = re.search(r"layer_(\d+)(?=/)", place), re.search(r"gemma-scope[^/]*-(res|mlp|att)\b", place)
    named = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
    at = f"blocks.{layer[1]}.{named[hook[1]]}" if layer and hook else None
    parts = parts if hook else replace(parts, layer_of=UNNAMED)
    return _with(parts, at, told_by("gemma-scope", file.config))


def _read_second(file: Checkpoint) -> Parts:
    config = file.config
    config.choice("architecture", ("jump_relu",), "jump_relu")
    config.choice("type", ("sae",), "sae")
    config.off("affine_connection", "and an autoencoder has no such path")
    if "affine_skip_connection" in file.tensors:
        raise ValueError(f"{file.where}: affine_skip_connection is there, and an autoencoder has no such path")
    source, target = config.get("hf_hook_point_in"), config.get("hf_hook_point_out")
    if target not in (None, "", source):
        raise ValueError(
            f"{file.where}: hf_hook_point_in is {source!r} and hf_hook_point_out {target!r}: a transcoder reads one site "
            "and writes another; nothing was loaded"
        )
    parts, f = _weights(file, False)
    config.agrees("width", f, f"w_enc has {f} features")
    made_by = told_by("gemma-scope-2", config) | {"hf_hook_point_in": source}
    return _with(parts, source if isinstance(source, str) else None, made_by)


def _with(parts: Parts, hook: str | None, made_by: dict[str, object]) -> Parts:
    return replace(parts, hook=hook, made_by=made_by)


GEMMA_SCOPE = Format(
    None,
    "params.npz",
    lambda names, config: names >= {"W_enc", "W_dec", "threshold"} or names >= {"w_enc", "w_dec", "threshold"},
    _read_first,
    "W_enc, b_enc, W_dec, b_dec, threshold",
)
GEMMA_SCOPE_2 = Format(
    "config.json",
    "*.safetensors",
    lambda names, config: names >= {"w_enc", "w_dec", "threshold"} and "trainer" not in config,
    _read_second,
    "w_enc, b_enc, w_dec, b_dec, threshold",
)
