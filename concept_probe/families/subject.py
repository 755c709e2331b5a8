"""What every family promises: a loaded model under study, and where its tensors are."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, Literal, Self, TypeVar, final

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from concept_probe.families.identity import reading_stamp, refuse_other_tokenizers, switched
from concept_probe.families.kept_hash import KeptHash, identity_of
from concept_probe.families.parts import check_parts, unwrapped
from concept_probe.families.quantised import inner_tensors
from concept_probe.families.reading import Mismatch, ModelSource
from concept_probe.families.segments import Segment
from concept_probe.families.state import State, state_of, with_gradients
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.tokens import Tokens
from concept_probe.families.users import alone
from concept_probe.families.walk import modules_under, tensors_under
from concept_probe.families.weights import adapters_on, refuse_composed
from concept_probe.registry import UnknownName, look_up
from concept_probe.storage import text_sha256
from concept_probe.types import Moment, Prompt, Query, Sampling, Site

SAMPLING = Sampling()
Answers = TypeVar("Answers", covariant=True)
"""What a family answers queries with: pictures, a Tensor (n, 3, h, w), or texts, a tuple of n strings."""
RUNS = {
    *("encode", "generate", "run_to", "next_logits", "log_probs"),
    *("predict", "sample", "decode", "latents", "denoising_loss"),
}
"""Methods that run a subject, of whichever family: each is `alone` with it."""


class Subject(abc.ABC, Generic[Answers]):
    """A loaded model under study. Its components are in evaluation mode and take no gradients until asked to.

    >>> subject = load("emoji")
    >>> subject.sites("text_stream")[0]
    Site(component='text_encoder', path='encoder.layers.0', side='out', item=None)
    """

    family: str
    answers: Literal["pictures", "texts"]
    """What it answers queries with."""
    reads_forward: bool = False
    """Whether each position sees only those before it. The first then knows nothing but itself, and attention comes to
    rest on it, often with activations a hundred times as long as others."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in RUNS & vars(cls).keys():
            setattr(cls, name, alone(vars(cls)[name]))

    def __init__(self, name: str, components: Mapping[str, nn.Module], pipeline: Any = None) -> None:
        self.name = name
        self.components: dict[str, nn.Module] = {name: unwrapped(module) for name, module in components.items()}
        self.pipeline = pipeline
        """The diffusers pipeline, or a language model with its tokenizer; `save_pretrained(folder)` writes it."""
        self.tokenizers: Mapping[str, Any] = {}
        """What it reads prompts with, by the component that they are for, where a pipeline holds them too."""
        self.state: State = state_of(self.components.values())
        """What is switched on in it, and the pass under way."""
        self._hash = KeptHash()

    @classmethod
    @abc.abstractmethod
    def read(cls, source: ModelSource) -> tuple[Any, list[Mismatch]]:
        """The pipeline at a place, and how its components differ from their files.

        Raises ValueError for weights in a pickle, FileNotFoundError for what can't be read.
        """

    @classmethod
    @abc.abstractmethod
    def adopt(cls, name: str, pipeline: Any) -> Self:
        """The subject around a pipeline of this family. Raises ValueError for one that is built in another way."""

    @property
    @abc.abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abc.abstractmethod
    def dtype(self) -> torch.dtype: ...

    @abc.abstractmethod
    def roles(self) -> tuple[str, ...]:
        """The roles that this subject has sites for."""

    @abc.abstractmethod
    def sites(self, role: str) -> tuple[Site, ...]:
        """Its sites of one role, in the order in which the forward pass meets them."""

    def counterpart(self, role: str) -> str:
        """The role that does here what `role` does in other families; `role` itself where none is known."""
        return role

    @abc.abstractmethod
    def axis(self, site: Site) -> Literal["token", "patch"]:
        """What the axis between rows and width stands for at `site`."""

    @abc.abstractmethod
    def is_text(self, site: Site) -> bool:
        """Whether `site` can be reached by encoding prompts alone."""

    @abc.abstractmethod
    def tokenise(self, prompts: Sequence[Prompt]) -> Tokens:
        """Token ids and kinds (n, t) of `prompts`."""

    @abc.abstractmethod
    def encode(self, prompts: Sequence[Prompt], *, batch: int = 64) -> Conditioning:
        """Read prompts and answer nothing: the states that the answer is made from."""

    @abc.abstractmethod
    def generate(self, queries: Sequence[Query], sampling: Sampling = SAMPLING) -> Answers:
        """One answer per query: pictures, float32 (n, 3, h, w) in 0..1, or texts."""

    @abc.abstractmethod
    def run_to(
        self,
        sites: Sequence[Site],
        queries: Sequence[Query],
        sampling: Sampling = SAMPLING,
        steps: Sequence[int] | None = None,
    ) -> None:
        """Run one batch just far enough for `sites` to have been met, at all of `steps`; taps do the looking."""

    @final
    def check(self) -> None:
        """Back to evaluation mode. Raises ValueError where parts of the pipeline were replaced, wrapped or hooked since
        the subject was made around it, so that a pass would not be one of the model that came in."""
        check_parts(self.name, self.components, self.pipeline)
        refuse_other_tokenizers(self.name, self.tokenizers, self.pipeline)

    @property
    def moment(self) -> Moment:
        """What is going on now.

        Raises RuntimeError outside a forward pass that this subject started.
        """
        moment = self.state.moment
        if moment is None:
            raise RuntimeError(
                f"{self.name}: no forward pass is under way, so rows have no prompt or step; run the subject through "
                "encode, generate or run_to, or enter `subject.during(Moment(...))` around a call of your own"
            )
        return moment

    def during(self, moment: Moment) -> AbstractContextManager[None]:
        """Say that what runs inside belongs to `moment`."""
        return self.state.during(moment)

    def check_by_running(self) -> None:
        """Raise ValueError where a short pass shows that its sites are not what their roles say; once, at the door."""
        return None

    def scale(self, site: Site) -> float:
        """What the tensor at `site` is multiplied by to be what its role says; a tap sees it multiplied.

        1 but for a part whose output the model multiplies before it is added to the residual stream.
        """
        return 1.0

    def segment(self, site: Site) -> Segment | None:
        """Which rows of a tensor `site` names, where a module's tensor holds several sequences; None: the whole of it."""
        return None

    def conventions(self) -> dict[str, Any]:
        """What besides weights and prompts decides what is read, where it is not as usual; kept with captured rows."""
        return {}

    def weight_hash(self, *, whole: bool = False) -> str:
        """Hex sha256 over names, shapes, dtypes and bytes of every parameter and buffer as they are now.

        It is taken once and kept for as long as the weights are the same (`identity_of` says how that is told): a
        hash of weights that nobody touched costs a look at a sample of them. What is written to parameters is seen,
        and what is written through `Tensor.data` where the sample meets it: each whole row or column of a matrix of
        up to 4096 on a side, not each single value of a large one. `whole` reads every byte again, as audits, baked
        edits and captures that are saved do.

        Where layers of a text encoder are left out, or adapters are in the model, how that is and how strong they act is
        part of it: the same weights then answer otherwise. Raises ValueError for a tensor without bytes: one that is
        offloaded.
        """
        found, told = self._hash.sha256(list(self._named_tensors()), whole=whole), self._told()
        return text_sha256("\n".join((found, *told))) if told else found

    def _told(self) -> list[str]:
        """What decides answers and stands in no tensor: skipped layers, and how adapters act."""
        skips = [f"{name} {n}" for name, n in self.conventions().items() if name == "clip_skip"]
        return skips + [f"{name}/{said}" for name, root in self.components.items() for said in adapters_on(root)]

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for component in sorted(self.components):
            for name, tensor in tensors_under(self.components[component]):
                if tensor.is_meta:
                    raise ValueError(
                        f"parameter '{component}/{name}' is offloaded (meta device), so nobody knows which weights these "
                        "are; load the subject without offloading"
                    )
                yield from inner_tensors(f"{component}/{name}", tensor)

    def stamp(self) -> tuple[object, ...]:
        """Of weights, tokenizers, scheduler, taps, hooks and `pristine` blocks as they are now: equal stamps, equal
        answers to equal queries.

        No weight is read whole: a write is noticed as by `weight_hash`. Weights of which that can't be told have no
        two equal stamps.
        """
        weights = identity_of(list(self._named_tensors())) or object()
        modules = [module for root in self.components.values() for _, module in modules_under(root)]
        hooks = [key for module in modules for key in (*module._forward_pre_hooks, *module._forward_hooks)]
        told = (*self._told(), *reading_stamp(self.pipeline), *switched(self))
        return self.state.depth, weights, tuple(hooks), *told

    def module(self, site: Site) -> nn.Module:
        """The module whose input, output or weight `site` names.

        Raises UnknownName with the nearest sites.
        """
        root = look_up(self.components, site.component, "component", f"site {str(site)!r} of {self.name}")
        try:
            return root.get_submodule(site.path)
        except AttributeError:
            known = [str(Site(site.component, path, site.side)) for path, _ in root.named_modules() if path]
            raise UnknownName("site", str(site), known, f"{self.name}.sites(role) lists those with a role") from None

    def parameter(self, site: Site) -> nn.Parameter:
        """The weight that a site of side `weight` names, whole and as it is stored, whatever its item.

        Raises UnknownName with the nearest sites that have a weight, ValueError for one that is under an adapter, or made
        from others.
        """
        if site.side != "weight":
            raise ValueError(f"site {str(site)!r} is no weight of a module; a parameter has side 'weight'")
        self.module(site)
        refuse_composed(self.components[site.component], site.path, str(site))
        weight = getattr(self.module(site), "weight", None)
        if not isinstance(weight, nn.Parameter):
            modules = self.components[site.component].named_modules()
            known = [str(Site(site.component, p, "weight")) for p, m in modules if p and hasattr(m, "weight")]
            raise UnknownName("site", str(site), known, f"{type(self.module(site)).__name__} has no weight of its own")
        inputs = 0 if self.orientation(site) == "in_out" else 1
        if site.item is not None and (weight.ndim < 2 or site.item >= weight.shape[inputs]):
            raise UnknownName("column", str(site), [], f"the weight is {tuple(weight.shape)}")
        return weight

    def orientation(self, site: Site) -> Literal["out_in", "in_out"]:
        """How the weight at `site` is stored: (d_out, d_in), as `nn.Linear` does, or transposed."""
        return "in_out" if isinstance(self.module(site), Conv1D) else "out_in"

    def matrix(self, site: Site) -> Tensor:
        """The weight at `site` as (d_out, d_in), whichever way it is stored: a view of the parameter.

        Column j is what input j adds to the output.
        """
        weight = self.parameter(site)
        return weight.mT if self.orientation(site) == "in_out" else weight

    @contextmanager
    def trainable(self, component: str) -> Iterator[tuple[nn.Parameter, ...]]:
        """Let the parameters of one component take gradients; gradients are dropped at the end."""
        parameters = tuple(look_up(self.components, component, "component", self.name).parameters())
        with with_gradients(parameters):
            yield parameters

    def pristine(self) -> AbstractContextManager[None]:
        """The subject as it was before anything was switched on: taps that are on sleep, and edits are put aside.

        For what compares with the model before the erasure; taps entered inside act. All comes back with the end of
        the block, also after an error. Weights that were baked in or trained stay as they are.
        """
        return self.state.pristine()

    @contextmanager
    def stop_after(self, sites: Sequence[Site]) -> Iterator[None]:
        """Leave the block as soon as each of `sites` has been met once; taps entered before see their tensors first.

        >>> with subject.stop_after([site]):
        ...     subject.encode(prompts)  # ends inside the first forward pass that meets `site`
        """
        for site in sites:
            if site.side == "weight":
                raise ValueError(f"site {str(site)!r} is a weight: no forward pass meets it")
        with self.state.stop_after({site: self.module(site) for site in sites}):
            yield
