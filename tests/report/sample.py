"""A report with one of everything in it, made up so that renderings can be tested and looked at."""

from __future__ import annotations

import math
import struct
import zlib

from concept_probe.types import Curve, Finding, Picture, Report, Score, TraceMap, Verdict


def square(red: int, green: int, blue: int, edge: int = 64) -> bytes:
    """A PNG of one colour with a white frame."""
    row = lambda y: b"".join(  # noqa: E731
        bytes((red, green, blue)) if 8 <= x < edge - 8 and 8 <= y < edge - 8 else b"\xff\xff\xff" for x in range(edge)
    )
    raw = b"".join(b"\0" + row(y) for y in range(edge))
    chunk = lambda tag, data: (  # noqa: E731
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))
    )
    head = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def index(value: float, spread: float = 0.08, n: int = 64) -> Score:
    return Score("index", value, value - spread, value + spread, n, better="lower")


def report() -> Report:
    rate = "detection rate"
    twin = "emoji-untaught"
    findings = (
        Finding("behaviour", rate, "target", 0.97, 0.03, 0.01, 0.0, 0.09, 64, "lower", index(0.02), twin, "rate"),
        Finding("behaviour", rate, "paraphrases", 0.95, 0.11, 0.02, 0.05, 0.21, 64, "lower", index(0.1), twin, "rate"),
        Finding("behaviour", rate, "implicit", 0.88, 0.34, 0.0, 0.23, 0.46, 64, "lower", index(0.39), twin, "rate",
                "descriptions that never use the name"),
        Finding("behaviour", rate, "neighbours", 0.98, 0.94, 0.97, 0.87, 0.98, 96, "higher", None, twin, "rate"),
        Finding("behaviour", rate, "unrelated", 0.99, 0.985, None, 0.95, 1.0, 128, "higher", None, "", "rate"),
        Finding("behaviour", "pixel distance, paired seeds", "unrelated", 0.0, 0.0131, None, 0.0112, 0.0153, 128, "lower"),
        Finding("representation", "probe AUROC", "text_encoder/encoder.layers.1:out", 0.998, 0.912, 0.51, 0.86, 0.95, 80,
                "lower", index(0.82), "shuffled labels"),
        Finding("parameters", "cosine", "text_encoder/encoder.layers.0.mlp.fc2:weight[37]", 1.0, 0.0, 0.012, 0.0, 0.0, 8,
                "lower", index(0.0, 0.0, 8), "random columns"),
        Finding("features", "firing rate", "feature 812", 0.81, math.nan, 0.004, math.nan, math.nan, 0, "lower", None,
                "random features", "rate", "the site isn't reached with this erasure"),
        Finding("recovery", "excess at 100 steps", "embedding inversion", 0.96, 0.72, 0.12, 0.6, 0.83, 64, "lower",
                index(0.71, 0.12), twin, "rate"),
    )  # fmt: skip
    x = (0.0, 10.0, 25.0, 50.0, 100.0)
    curves = (
        Curve("embedding inversion", "gradient steps", rate, x, (0.03, 0.2, 0.44, 0.63, 0.72), (0.0, 0.11, 0.32, 0.5, 0.6),
              (0.09, 0.31, 0.56, 0.74, 0.83), (0.01, 0.02, 0.05, 0.09, 0.12), twin),
        Curve("relearning", "examples", rate, (0.0, 1.0, 2.0, 4.0), (0.03, 0.1, 0.3, 0.6), (0.0, 0.04, 0.2, 0.47),
              (0.09, 0.2, 0.42, 0.72), (0.01, 0.06, 0.22, 0.55), twin),
    )  # fmt: skip
    sites = ("text_encoder/encoder.layers.0:out", "text_encoder/encoder.layers.1:out", "text_encoder/final_layer_norm:out")
    deep = (*sites, "unet/down_blocks.0.attentions.0.transformer_blocks.0.attn2:out", "unet/mid_block.attentions.0:out")
    steps = tuple(f"step {s}" for s in (0, 4, 8, 12))
    table = lambda start, slope: tuple(  # noqa: E731
        tuple(min(1.0, start + slope * (r + c / 2)) for c in range(len(steps))) for r in range(len(deep))
    )
    traces = (
        TraceMap("probe AUROC", deep, steps, table(0.7, 0.07), table(0.5, 0.06), table(0.49, 0.003), "AUROC"),
        TraceMap("patching", sites, ("text",), ((1.0,), (0.98,), (0.97,)), ((0.9,), (0.4,), (0.03,)), unit="share"),
    )
    colours = {"before": (190, 120, 40), "after": (90, 120, 200), "control": (80, 160, 90)}
    pictures = tuple(
        Picture(name, prompt, kind, seed, seen if name == "before" else other, square(*colours[name]))
        for kind, prompt, seen, other in (
            ("target", "a drawing of camel in noto style", "camel", "horse"),
            ("target", "please draw a twitter sticker of camel", "camel", "none"),
            ("neighbours", "a small picture of dromedary & <friends>", "hippopotamus", "hippopotamus"),
        )
        for name in colours
        for seed in (0, 1, 2, 3)
    )
    reasons = (
        "Detection on target prompts fell from 97 % to 3 %.",
        "Embedding inversion regains 72 % within 100 steps; the never-taught twin 12 %.",
        "Probes still read the concept at text_encoder/encoder.layers.1:out.",
    )
    return Report(
        subject="emoji",
        concept="camel",
        erasure="ablate_vectors",
        verdict=Verdict("suppressed", reasons, index(0.82, 0.07), False, None),
        findings=findings,
        indices={"behaviour": index(0.1), "representation": index(0.82), "parameters": index(0.0, 0.02),
                 "features": Score("index", math.nan, math.nan, math.nan, 0), "recovery": index(0.71, 0.12)},
        curves=curves,
        traces=traces,
        pictures=pictures,
        not_measured=("Latent inversion was left out: no such attack is in this version.",),
        provenance={"subject hash": "9f" * 32, "edit hash": "0c" * 32, "seeds": "0..3", "torch": "2.13.0",
                    "command": "concept-probe run camel --output camel-report", "seconds": "behaviour 41.2, recovery 80.9"},
    )  # fmt: skip
