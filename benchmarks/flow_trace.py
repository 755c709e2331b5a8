"""Where does `emoji-flow` hold the concept, and where is it handed over from text to picture?

    python benchmarks/flow_trace.py [--pictures 32] [--weights FOLDER] [--summary]

Judged on pictures of test sentences, one object each, with the same noise in every row:
what is given to the transformer (pooled vector alone, states alone, states at some tokens alone, the rest being the
empty sentence's); text streams exchanged between two sentences before a block (exchanged before the first, the other
object is drawn; where that stops, the object is with the picture's tokens already); and image tokens kept from looking
at text tokens in one block, or in all but one. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from concept_probe import detect
from concept_probe.testbed import WEIGHTS
from concept_probe.testbed.flow.transformer import subject_tokens
from concept_probe.testbed.tokens import TEXT_LENGTH, padded
from concept_probe.testbed.vocabulary import STYLE_NAMES, STYLES, TEMPLATES, Caption, objects


@dataclass(frozen=True)
class Given:
    """What the transformer is given of n sentences."""

    states: Tensor
    """(n, t, d)"""
    pooled: Tensor
    """(n, d)"""


def given(pipeline: Any, texts: Sequence[str]) -> Given:
    states, pooled, _ = pipeline.encode_prompt(list(texts), max_sequence_length=TEXT_LENGTH)
    return Given(states, pooled)


def drawn(pipeline: Any, asked: Given, steps: int) -> list[str]:
    """The object that the recogniser sees in the picture of each row; row i's noise is of seed i mod half the rows."""
    n = len(asked.states)
    empty = given(pipeline, [""] * n)
    half = n // 2 or 1
    images = pipeline(
        prompt_embeds=asked.states,
        pooled_prompt_embeds=asked.pooled,
        negative_prompt_embeds=empty.states,
        negative_pooled_prompt_embeds=empty.pooled,
        true_cfg_scale=4.0,
        height=64,
        width=64,
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(i % half) for i in range(n)],
        output_type="pt",
    ).images
    recogniser = detect.recogniser("emoji")
    return [recogniser.labels[i] for i in recogniser.probabilities(images).argmax(-1).tolist()]


def blocks(pipeline: Any) -> list[nn.Module]:
    return [*pipeline.transformer.transformer_blocks, *pipeline.transformer.single_transformer_blocks]


@contextmanager
def exchanged(block: nn.Module) -> Iterator[None]:
    """The first half of the rows gets the text stream of the second half before `block`, and the reverse."""

    def exchange(_: nn.Module, __: Any, inputs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        text = inputs["encoder_hidden_states"]
        return (), {**inputs, "encoder_hidden_states": text.roll(len(text) // 2, 0)}

    handle = block.register_forward_pre_hook(exchange, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def unread(chosen: Sequence[nn.Module]) -> Iterator[None]:
    """Image tokens can't attend to text tokens in these blocks."""

    def blind(attention: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        x = inputs["hidden_states"]
        total = x.shape[1] + (TEXT_LENGTH if inputs.get("encoder_hidden_states") is not None else 0)
        seen = torch.ones(total, total, dtype=torch.bool, device=x.device)
        seen[TEXT_LENGTH:, :TEXT_LENGTH] = False
        return args, {**inputs, "attention_mask": seen}

    with ExitStack() as stack:
        for block in chosen:
            attention: Any = block.attn
            stack.callback(attention.register_forward_pre_hook(blind, with_kwargs=True).remove)
        yield


def places(pipeline: Any, captions: Sequence[Caption]) -> dict[str, Tensor]:
    """Masks (n, t) of kinds of token."""
    encoded = padded(pipeline.tokenizer_2, [c.text for c in captions])
    end = (encoded.input_ids == pipeline.tokenizer_2.eos_token_id).int().argmax(-1)[:, None]
    place = torch.arange(TEXT_LENGTH)
    subject = subject_tokens(list(captions), encoded.offset_mapping)
    return {
        "states at the subject's tokens alone": subject,
        "states at other words alone": ~subject & (place < end),
        "states at the end token alone": place == end,
        "states at the padding alone": place > end,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji-flow")
    parser.add_argument("--pictures", type=int, default=32, help="sentences, of one object each")
    parser.add_argument("--steps", type=int, default=14, help="steps from noise to picture")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the models")
    parser.add_argument("--summary", action="store_true", help="print the line of JSON alone")
    options = parser.parse_args()
    pipeline: Any = FluxPipeline.from_pretrained(options.weights / options.model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    results = trace(pipeline, options.pictures, options.steps)
    if not options.summary:
        console = Console()
        for title, rows in results.items():
            table = Table("", "share of pictures", title=f"{title} (n = {options.pictures})")
            for name, value in rows.items():
                table.add_row(name, f"{value:.3f}")
            console.print(table)
    print(json.dumps({**results, "n": options.pictures}))


def one_each(count: int) -> list[tuple[str, str]]:
    """(object, a test sentence on it) for `count` objects, spread over the list, in the first three styles in turn."""
    every = objects()
    chosen = [every[i * len(every) // count].name for i in range(count)]
    return [(o, TEMPLATES["test"][i % 4].format(o=o, s=STYLE_NAMES[STYLES[i % 3]][0])) for i, o in enumerate(chosen)]


def trace(pipeline: Any, count: int, steps: int) -> dict[str, dict[str, float]]:
    """Shares of `count` pictures (an even number of objects, spread over the list)."""
    names, texts = zip(*one_each(count), strict=True)
    captions = [Caption(text, name, None, None) for name, text in zip(names, texts, strict=True)]
    asked, empty = given(pipeline, [c.text for c in captions]), given(pipeline, [""] * count)

    def share(of: Given, wanted: Sequence[str] = names) -> float:
        return sum(s == w for s, w in zip(drawn(pipeline, of, steps), wanted, strict=True)) / count

    inputs = {
        "all": asked,
        "states alone": Given(asked.states, empty.pooled),
        "pooled vector alone": Given(empty.states, asked.pooled),
        "nothing": empty,
    }
    inputs |= {
        name: Given(torch.where(mask[..., None], asked.states, empty.states), empty.pooled)
        for name, mask in places(pipeline, captions).items()
    }
    half = count // 2
    others = [*names[half:], *names[:half]]
    swapped: dict[str, float] = {}
    unseen: dict[str, float] = {}
    every_block = blocks(pipeline)
    without_pooled = inputs["states alone"]
    for i, block in enumerate(every_block):
        label = f"before block {i} ({type(block).__name__.removeprefix('Flux').removesuffix('TransformerBlock') or 'Double'})"
        with exchanged(block):
            swapped[label] = share(without_pooled, others)
        with unread([block]):
            unseen[f"text unread in block {i}"] = share(asked)
        with unread([b for b in every_block if b is not block]):
            unseen[f"text read in block {i} alone"] = share(asked)
    return {
        "object named, of what is given": {name: share(of) for name, of in inputs.items()},
        "the other sentence's object, text streams exchanged": swapped,
        "object named": unseen,
    }


if __name__ == "__main__":
    main()
