"""What is refused of a pipeline with a U-Net, by name and with the mend, before a subject is made of it."""

from __future__ import annotations

from typing import Any

VAES = {
    "AsymmetricAutoencoderKL": "decodes with the picture that is painted in",
    "ConsistencyDecoderVAE": "decodes by drawing noise of its own, without a seed",
}
"""Autoencoders whose decoder does not give one picture for one latent, and why."""


def refuse_pipeline(name: str, pipeline: Any) -> None:
    """Raise ValueError for a pipeline that lacks a part, or whose U-Net reads or predicts anything else than this
    family gives it."""
    _refuse_parts(name, pipeline)
    refuse_inputs(name, pipeline.unet.config)
    _refuse_sizes(name, pipeline)
    _refuse_channels(name, pipeline)
    _refuse_text(name, pipeline)


def refuse_inputs(name: str, unet: Any) -> None:
    """Raise ValueError where a U-Net, by its configuration, asks for more than latents, time, text and guidance."""
    if unet.encoder_hid_dim_type is not None:
        raise ValueError(
            f"{name}: the U-Net reads pictures or another projection beside the text (encoder_hid_dim_type "
            f"{unet.encoder_hid_dim_type!r}), as with an IP-adapter, which is not supported; unload it first "
            "(pipeline.unload_ip_adapter())"
        )
    if unet.class_embed_type is not None or unet.num_class_embeds is not None:
        raise ValueError(
            f"{name}: the U-Net reads a class label (class_embed_type {unet.class_embed_type!r}, num_class_embeds "
            f"{unet.num_class_embeds!r}), which is not supported"
        )
    if unet.addition_embed_type not in (None, "text_time"):
        raise ValueError(
            f"{name}: the U-Net reads something beside the text (addition_embed_type {unet.addition_embed_type!r}), which is "
            "not supported"
        )


def refuse_skip(name: str, pipeline: Any, clip_skip: int) -> None:
    """Raise ValueError for a number of skipped layers that is none, or that this pipeline does not read at one place."""
    if type(clip_skip) is not int or clip_skip < 0:
        raise ValueError(
            f"{name}: clip_skip is {clip_skip!r}; it is how many layers are left out, a whole number from 0 on"
        )
    zeroed = pipeline.config.get("force_zeros_for_empty_prompt", False)
    if clip_skip and getattr(pipeline, "text_encoder_2", None) is not None and not zeroed:
        raise ValueError(
            f"{name}: clip_skip {clip_skip} was asked of a pipeline that reads the empty prompt of guidance "
            "(force_zeros_for_empty_prompt is False): it reads prompts at the skipped layer and the empty one at the usual, so "
            "no one site is what the denoiser reads; leave clip_skip 0"
        )


def paints_in(pipeline: Any) -> bool:
    """Whether the U-Net reads, beside the latents, a mask and the latents of the picture without what is under it."""
    channels = pipeline.vae.config.latent_channels
    return hasattr(pipeline, "mask_processor") and pipeline.unet.config.in_channels == 2 * channels + 1


def _refuse_parts(name: str, pipeline: Any) -> None:
    for part in ("unet", "vae", "text_encoder"):
        if getattr(pipeline, part, None) is None and not (part == "text_encoder" and _encoders(pipeline)):
            raise ValueError(f"{name}: the pipeline has no {part}, which this family needs; give the pipeline whole")
    kind = type(pipeline.vae).__name__
    if kind in VAES:
        raise ValueError(
            f"{name}: the autoencoder is {kind}, which {VAES[kind]}, so latents alone give no picture; give the pipeline the "
            "AutoencoderKL that its model was trained with"
        )


def _refuse_sizes(name: str, pipeline: Any) -> None:
    edges, scale = pipeline.unet.config.sample_size, pipeline.vae.config.scaling_factor
    sizes = edges if isinstance(edges, list | tuple) else [edges]
    if not all(isinstance(edge, int) and edge > 0 for edge in sizes):
        raise ValueError(
            f"{name}: the U-Net's configuration has sample_size {edges!r}, so nobody knows how large its pictures are; set it: "
            "pipeline.unet.register_to_config(sample_size=64)"
        )
    if not isinstance(scale, int | float) or not 0 < scale < float("inf"):
        raise ValueError(
            f"{name}: the autoencoder's configuration has scaling_factor {scale!r}; it is a number above 0, by which latents are "
            "multiplied"
        )


def _refuse_channels(name: str, pipeline: Any) -> None:
    reads, latent = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
    if reads == latent or paints_in(pipeline):
        return
    mend = "the two belong to different models, or it is made for another kind of pipeline"
    if reads == 2 * latent + 1:
        mend = "it is made for inpainting: make the inpainting pipeline of it (StableDiffusionInpaintPipeline)"
    raise ValueError(f"{name}: the U-Net reads {reads} channels and the autoencoder has {latent}: {mend}")


def _refuse_text(name: str, pipeline: Any) -> None:
    unet, encoders = pipeline.unet.config, _encoders(pipeline)
    width, read = sum(e.config.hidden_size for e in encoders.values()), unet.cross_attention_dim
    if set(read if isinstance(read, list | tuple) else [read]) != {width}:
        raise ValueError(
            f"{name}: the U-Net reads a text {read} wide and the text encoders give {width}: they belong to different models"
        )
    pooling = encoders.get("text_encoder_2")
    if (unet.addition_embed_type is not None) != (pooling is not None):
        raise ValueError(
            f"{name}: the U-Net reads {'a' if unet.addition_embed_type else 'no'} pooled text and the pipeline has "
            f"{len(encoders)} text encoder{'s' * (len(encoders) > 1)}: they belong to different models"
        )
    if pooling is None:
        return
    scores = bool(pipeline.config.get("requires_aesthetics_score", False))
    given = pooling.config.projection_dim + (5 if scores else 6) * unet.addition_time_embed_dim
    wanted = unet.projection_class_embeddings_input_dim
    if given != wanted:
        raise ValueError(
            f"{name}: the U-Net reads {wanted} numbers of pooled text and sizes and the pipeline gives {given}: they belong "
            f"to different models, or requires_aesthetics_score is {scores} and should be {not scores} "
            f"(pipeline.register_to_config(requires_aesthetics_score={not scores}))"
        )


def _encoders(pipeline: Any) -> dict[str, Any]:
    """The text encoders that there are, by their names."""
    named = {name: getattr(pipeline, name, None) for name in ("text_encoder", "text_encoder_2")}
    return {name: encoder for name, encoder in named.items() if encoder is not None}
