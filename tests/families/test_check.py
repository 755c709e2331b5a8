"""Both doors refuse a model whose answers would not be its own, and name what is wrong with it."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import diffusers
import pytest
import torch
from accelerate import cpu_offload
from diffusers.hooks import apply_layerwise_casting
from safetensors.torch import load_file, save_file

from concept_probe.families import FAMILIES, Subject, UNetSubject, adopt, load
from concept_probe.registry import UnknownName
from concept_probe.testing.models import save_model
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.testing.models.language import LANGUAGE

FILES = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "model": "model.safetensors",
}


@pytest.fixture(params=FILES)
def saved(request, tmp_path) -> tuple[str, Path]:
    """A component, and a folder that it was saved in."""
    subject = LANGUAGE["llama"]() if request.param == "model" else tiny_sd()
    return request.param, save_model(subject, tmp_path / "saved")


def rewrite(path: Path, change) -> str:
    """Change the tensors of a file; the name that `change` gives back."""
    tensors = load_file(path)
    name = change(tensors)
    save_file(tensors, path, {"format": "pt"})
    return name


def drop(tensors: dict[str, torch.Tensor]) -> str:
    name = sorted(n for n in tensors if n.endswith("weight"))[0]
    del tensors[name]
    return name.rpartition(".")[0]


def spoil(tensors: dict[str, torch.Tensor]) -> str:
    name = sorted(n for n in tensors if n.endswith("weight"))[-1]
    tensors[name].view(-1)[3] = float("nan")
    return name.rpartition(".")[0]


def test_a_tensor_that_the_files_lack_is_refused(saved):
    component, folder = saved
    name = rewrite(folder / FILES[component], drop)
    with pytest.raises(ValueError, match=rf"{component} lacks '.*{name}.*so it was made at random"):
        load(folder)


def test_a_tensor_without_a_place_is_refused(saved):
    component, folder = saved
    rewrite(folder / FILES[component], lambda tensors: tensors.update({"stray.weight": torch.ones(2)}))
    with pytest.raises(ValueError, match=rf"{component} has no place for 'stray.weight'"):
        load(folder)


def test_what_is_no_number_is_refused(saved):
    component, folder = saved
    name = rewrite(folder / FILES[component], spoil)
    with pytest.raises(ValueError, match=rf"'{component}/.*{name}.*no finite numbers in torch.float32"):
        load(folder)


def test_numbers_that_a_narrow_dtype_can_not_hold_are_refused(tmp_path):
    folder = save_model(LANGUAGE["llama"](), tmp_path / "saved")

    def large(tensors: dict[str, torch.Tensor]) -> None:
        next(iter(tensors.values())).view(-1)[0] = 1e6

    rewrite(folder / FILES["model"], large)
    load(folder)
    with pytest.raises(ValueError, match=r"no finite numbers in torch.float16.*wider dtype"):
        load(folder, dtype=torch.float16)


@pytest.mark.parametrize("make", [*DIFFUSION.values(), *LANGUAGE.values()])
def test_a_pipeline_in_memory_passes_the_same_check(make):
    subject = make()
    again = adopt(subject.pipeline, "again")
    assert type(again) is type(subject) and again.weight_hash() == subject.weight_hash()
    component, module = next(iter(subject.components.items()))
    name, parameter = next(iter(module.named_parameters()))
    held, parameter.data = parameter.data, torch.full_like(parameter.data, float("inf"))
    with pytest.raises(ValueError, match=rf"again: '{component}/{name}' holds values that are no finite numbers"):
        adopt(subject.pipeline, "again")
    parameter.data = held
    adopt(subject.pipeline, "again")
    module.to("meta")
    with pytest.raises(ValueError, match=rf"'{component}/{name}' is not in memory \(meta device\)"):
        adopt(subject.pipeline, "again")


def test_offloading_is_refused_by_name():
    pipeline = tiny_sd().pipeline
    cpu_offload(pipeline.unet, torch.device("cpu"))
    with pytest.raises(ValueError, match="hook AlignDevicesHook of accelerate is on at 'unet/"):
        adopt(pipeline, "offloaded")


def test_hooks_of_diffusers_are_refused_by_name():
    pipeline = tiny_sd().pipeline
    apply_layerwise_casting(pipeline.unet, storage_dtype=torch.float16, compute_dtype=torch.float32)
    with pytest.raises(ValueError, match="hook layerwise_casting of diffusers is on at 'unet/"):
        adopt(pipeline, "cast")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encoder_hid_dim_type": "ip_image_proj"}, r"'ip_image_proj'\), as with an IP-adapter"),
        ({"in_channels": 8}, "reads 8 channels and the autoencoder has 4: the two belong"),
        ({"in_channels": 9}, r"reads 9 channels .* 4: it is made for inpainting: make the inpainting pipeline of it"),
    ],
)
def test_a_u_net_that_reads_something_else_is_refused(options, said):
    pipeline = tiny_sd().pipeline
    pipeline.unet.register_to_config(**options)
    with pytest.raises(ValueError, match=said):
        adopt(pipeline, "other")


def test_a_missing_part_and_an_unknown_scheduler_are_refused():
    pipeline = tiny_sd().pipeline
    pipeline.scheduler = diffusers.CMStochasticIterativeScheduler()
    with pytest.raises(UnknownName, match="scheduler class 'CMStochasticIterativeScheduler' not found"):
        adopt(pipeline, "other")
    pipeline.scheduler, pipeline.vae = diffusers.DDIMScheduler(), diffusers.AsymmetricAutoencoderKL(norm_num_groups=2)
    with pytest.raises(ValueError, match=r"autoencoder is AsymmetricAutoencoderKL, which decodes with the picture"):
        adopt(pipeline, "other")
    pipeline.text_encoder = None
    with pytest.raises(ValueError, match="the pipeline has no text_encoder"):
        adopt(pipeline, "other")


def test_another_class_of_pipeline_is_refused_at_both_doors(tmp_path):
    parts = dict(tiny_sd().pipeline.components)
    told = diffusers.StableDiffusionInstructPix2PixPipeline(**parts, requires_safety_checker=False)
    said = "pipeline class 'StableDiffusionInstructPix2PixPipeline' not found"
    with pytest.raises(UnknownName, match=rf"{said}.*\(other is one; those that load: "):
        adopt(told, "other")
    told.save_pretrained(tmp_path)
    with pytest.raises(UnknownName, match=rf"{said}.*in model_index.json"):
        load(tmp_path)
    controlled = type("StableDiffusionControlNetPipeline", (), {})()
    with pytest.raises(UnknownName, match="'StableDiffusionControlNetPipeline' not found"):
        adopt(controlled, "other")


class Described(UNetSubject):
    """What another package might add."""

    family = "described"


class DescribedPipeline(diffusers.StableDiffusionPipeline):
    pass


def test_another_package_adds_a_family(monkeypatch):
    """By an entry point, under the class name of its pipeline; it passes the same check."""
    module = types.ModuleType("stranger")
    monkeypatch.setitem(sys.modules, "stranger", module)
    monkeypatch.setattr(module, "Described", Described, raising=False)
    point = EntryPoint("DescribedPipeline", "stranger:Described", "concept_probe.families")
    monkeypatch.setitem(FAMILIES.__dict__, "added", {"DescribedPipeline": point})
    pipeline = DescribedPipeline(**tiny_sd().pipeline.components, requires_safety_checker=False)
    subject: Subject = adopt(pipeline, "theirs")
    assert isinstance(subject, Described) and subject.family == "described"
    pipeline.unet.conv_in.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"'unet/conv_in.weight' holds values"):
        adopt(pipeline, "theirs")
