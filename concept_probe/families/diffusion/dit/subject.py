"""Text-to-image pipelines with a diffusion transformer: what all of them share."""

from __future__ import annotations

import abc
import inspect
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self, final

import torch
from torch import Tensor

from concept_probe.families.diffusion.attentions import AttentionLayer
from concept_probe.families.diffusion.dit.joint import Given, Held, JointSequence, Stream
from concept_probe.families.diffusion.dit.ports import PORTS, ports_of
from concept_probe.families.diffusion.dit.sites import TransformerSites, transformer_sites
from concept_probe.families.diffusion.flow import refuse_unsaid_flow
from concept_probe.families.diffusion.guidance import Guidance, classifier_free
from concept_probe.families.diffusion.schedule import NoiseSchedule
from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.families.parts import unwrapped
from concept_probe.families.segments import Rows, Segment
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.sequence import SequenceEncoders
from concept_probe.types import Sampling, Site

COUNTERPARTS = {
    f"cross_{name}{end}": f"joint_{stream}_{name}{end}"
    for name, stream in (("query", "image"), ("key", "text"), ("value", "text"), ("out", "image"))
    for end in ("", "_weight")
}
"""What in an attention from image to text is called so, to what does the same in a joint one."""


ACROSS = ("cross_key_weight", "cross_value_weight")
"""Roles of the matrices that read a text which stays as it is from block to block."""


class DitSubject(DiffusionSubject):
    """A pipeline of text encoders, a diffusion transformer and an autoencoder. A subclass knows one class of pipeline.

    Latents are maps (n, c, h, w) everywhere outside `_run`, also where the transformer reads them packed.
    """

    family = "dit"
    denoiser = "transformer"
    needs: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer", "transformer", "vae")
    """Parts that the pipeline must have."""
    blocks: ClassVar[tuple[tuple[str, Given | None], ...]] = (("transformer_blocks", None),)
    """Paths of the lists of blocks, in the order of the forward pass, and the stream that each is given; see
    `transformer_sites`."""
    joint: ClassVar[JointSequence] = JointSequence()
    """How text and image stand where they are one sequence."""
    embedders: ClassVar[tuple[str, ...]] = ("context_embedder",)
    """Paths of what brings the text to the width of the stream."""
    norms_states: ClassVar[bool] = False
    """Whether the transformer norms the text's states before anything reads them."""
    pooled: ClassVar[bool] = False
    """Whether the transformer reads a pooled text."""
    flows: ClassVar[bool] = True
    """Whether the transformers of this class were trained to predict flows."""
    packs: ClassVar[bool] = False
    """Whether a patch is two by two places of the latents; otherwise the transformer's configuration says how many."""

    def __init__(self, name: str, pipeline: Any) -> None:
        transformer = unwrapped(pipeline.transformer)
        self._found: TransformerSites = transformer_sites(self.denoiser, transformer, self.blocks, self.embedders)
        self.ports = ports_of(transformer)
        roles = {**self.ports.sites(pooled=self.pooled), **self._found.roles}
        super().__init__(name, pipeline, self.read_text(pipeline), roles, {PORTS: self.ports})

    @classmethod
    def adopt(cls, name: str, pipeline: Any) -> Self:
        for part in cls.needs:
            if getattr(pipeline, part, None) is None:
                raise ValueError(
                    f"{name}: the pipeline has no {part}, which {type(pipeline).__name__} needs here; load it whole"
                )
        if getattr(unwrapped(pipeline.transformer), "encoder_hid_proj", None) is not None:
            raise ValueError(
                f"{name}: the transformer reads pictures beside the text (encoder_hid_proj), as with an IP-adapter, which is "
                "not supported; unload it first (pipeline.unload_ip_adapter())"
            )
        cls.refuse(name, pipeline)
        subject = cls(name, pipeline)
        _ = subject.schedule  # raises for one that is not of the transformer's kind
        return subject

    @classmethod
    def refuse(cls, name: str, pipeline: Any) -> None:
        """Raise ValueError for what a pipeline of this class may have and this family can't give it."""
        return None

    @classmethod
    @abc.abstractmethod
    def read_text(cls, pipeline: Any) -> SequenceEncoders:
        """The pipeline's text encoders, and what is read of them."""

    @classmethod
    def own_size(cls, pipeline: Any) -> tuple[int, int]:
        size = getattr(pipeline.transformer.config, "sample_size", None)
        if size is not None:
            return size * pipeline.vae_scale_factor, size * pipeline.vae_scale_factor
        size = getattr(pipeline.vae.config, "sample_size", None)
        size = size if size is not None else pipeline.default_sample_size * pipeline.vae_scale_factor
        height, width = (size, size) if isinstance(size, int) else size
        return height, width

    @property
    def schedule(self) -> NoiseSchedule:
        """As of every pipeline; ValueError for a scheduler of another kind than what the transformer predicts."""
        schedule = super().schedule
        if not self.flows:
            refuse_unsaid_flow(schedule, self.name, self.denoiser)
        elif schedule.prediction != "flow_prediction":
            raise ValueError(
                f"{self.name}: {type(schedule.scheduler).__name__} is made for denoisers that predict {schedule.prediction!r}, and "
                f"the transformers of {type(self.pipeline).__name__} predict flows; give the pipeline a scheduler of flows "
                "(FlowMatchEulerDiscreteScheduler, or a solver with use_flow_sigmas and prediction_type 'flow_prediction')"
            )
        return schedule

    @property
    def patch(self) -> int:
        """How many rows and columns of the latents a patch takes."""
        return 2 if self.packs else self.pipeline.transformer.config.patch_size

    @property
    def grid(self) -> int:
        """How many pixels a patch is wide."""
        return self.cell * self.patch

    @property
    def channels(self) -> int:
        """Of the latents."""
        return self.pipeline.transformer.config.in_channels

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of the latents of one picture."""
        return self.channels, *self.latent_size

    @property
    def patches(self) -> int:
        """How many patches the transformer sees a picture as."""
        _, height, width = self.latent_shape
        return (height // self.patch) * (width // self.patch)

    def guidance(self, sampling: Sampling) -> Guidance:
        return classifier_free(sampling.guidance)

    def counterpart(self, role: str) -> str:
        """In a joint attention the image looks at the text by the text stream's keys and values."""
        return role if role in self.roles() else COUNTERPARTS.get(role, role)

    def state_readers(self) -> tuple[Site, ...]:
        read = "context_embedder_weight" in self.roles() and not self.norms_states
        return self.sites("context_embedder_weight") if read else ()

    def input_of(self, site: Site) -> Site | None:
        if site in self.state_readers():
            return None
        here = Site(site.component, site.path, "in")
        if self.axis(here) != "token":
            raise ValueError(f"{self.name}: the matrix at {str(site)!r} reads the image, not the text")
        roles = ("cross_key_weight", "joint_text_key_weight")
        of_keys = [one for role in roles if role in self.roles() for one in self.sites(role)]
        if site in {one for role in ACROSS if role in self.roles() for one in self.sites(role)}:
            return replace(here, path=of_keys[0].path)  # the blocks leave that text as it is
        beside = (one.path for one in of_keys if one.path.rpartition(".")[0] == site.path.rpartition(".")[0])
        return replace(here, path=next(beside, site.path))

    def axis(self, site: Site) -> Literal["token", "patch"]:
        place = self._found.places.get((site.path, site.item)) if site.component == self.denoiser else None
        if place is not None:
            return "token" if place.stream == "text" else "patch"
        if self.is_text(site) or site == Site(PORTS, "text"):
            return "token"
        if site.component == PORTS:
            return "patch"
        raise ValueError(
            f"{self.name}: whether the rows at site {str(site)!r} are tokens or patches is not declared; sites with a role are: "
            f"{', '.join(self.roles())}"
        )

    def segment(self, site: Site) -> Segment | None:
        place = self._found.places.get((site.path, site.item)) if site.component == self.denoiser else None
        if place is None or self.joint.plain(place.held, place.stream):
            return None

        return Segment(place.item, lambda: self._rows(place.held, place.stream))

    def attentions(self) -> tuple[AttentionLayer, ...]:
        return self._found.attentions

    def joint_rows(self, stream: Stream) -> Rows:
        """The rows of `stream` where the attention of the pass under way has text and image as one sequence.

        Raises RuntimeError outside a pass.
        """
        return self._rows("both", stream)

    def _rows(self, held: Held, stream: Stream) -> Rows:
        text, latents = self.condition, self._passes[-1][0]
        patches = (latents.shape[-2] // self.patch) * (latents.shape[-1] // self.patch)
        return self.joint.rows(held, stream, text, patches)

    @final
    def _forward(self, latents: Tensor, timestep: Tensor, text: Conditioning) -> Tensor:
        times = timestep.expand(len(latents)) if timestep.ndim == 0 else timestep

        def run(x: Tensor, condition: Conditioning) -> Tensor:
            return self._run(x, times, condition)

        return self.ports(run, latents, text)

    @abc.abstractmethod
    def _run(self, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
        """One pass of the transformer: latents (n, c, h, w), times (n,) as the scheduler counts, prediction (n, c, h, w)."""


def default_of(pipeline: Any, name: str, method: str = "__call__") -> Any:
    """The default of an argument of a pipeline's method, where a constant of its makers stands nowhere else."""
    return inspect.signature(getattr(type(pipeline), method)).parameters[name].default


def longest_text(pipeline: Any, tokenizer: Any, encoder: Any) -> int:
    """How many tokens are read: what the pipeline asks for, and no more than the tokenizer says that its encoder takes.

    An encoder with learned places, unlike T5, has no state for a token behind the last of them.
    """
    length = min(default_of(pipeline, "max_sequence_length"), tokenizer.model_max_length)
    return min(length, getattr(encoder.config, "max_position_embeddings", length))


def times_as(latents: Tensor, times: Tensor, span: float = 1000.0) -> Tensor:
    """Timesteps in the latents' dtype over `span`, as pipelines hand them on."""
    return times.to(device=latents.device, dtype=latents.dtype) / span if span != 1 else times.to(latents.device)


def zeros_for_rotation(tokens: int, like: Tensor) -> Tensor:
    """(t, 3): text stands at place 0 of the picture."""
    return torch.zeros(tokens, 3, device=like.device, dtype=like.dtype)
