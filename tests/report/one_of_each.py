"""A report that holds one of everything."""

import io
import math

from PIL import Image

from concept_probe.types import Curve, Finding, Picture, Report, Score, TraceMap, Verdict, VerdictName


def png(colour) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, format="PNG")
    return out.getvalue()


def report(verdict: VerdictName = "suppressed") -> Report:
    index = Score("recovery by relearning", 0.62, 0.41, 0.8, 48, better="lower")
    pictures = tuple(
        Picture(name, f"a camel {i}", "target", i, "camel" if name == "before" else "none", png((40 * i, 90, 120)))
        for name in ("before", "after", "control")
        for i in range(3)
    )
    return Report(
        subject="emoji",
        concept="camel",
        erasure="uce <baked>",
        verdict=Verdict(verdict, ("Asked by name, it is gone.", "Relearning brings it back & more."), index, False, 120),
        findings=(
            Finding("behaviour", "detection", "target", 0.95, 0.02, 0.01, 0.0, 0.08, 48, "lower", Score("i", 0.01, 0.0, 0.1, 48),
                    "never-taught twin", "rate"),
            Finding("behaviour", "detection", "neighbours", 0.97, 0.95, None, 0.9, 1.0, 48, "higher", unit="rate", note="kept"),
            Finding("parameters", "cosine", "text_encoder/x:weight", 1.0, math.nan, 0.1, math.nan, math.nan, 12),
        ),
        indices={"behaviour": Score("i", 0.01, 0.0, 0.1, 48), "recovery": index},
        curves=(Curve("relearning", "gradient steps", "success rate", (0.0, 30.0, 60.0), (0.0, 0.3, 0.6),
              (0.0, 0.1, 0.4), (0.1, 0.5, 0.8),
                      (0.0, 0.05, 0.1), "same attack on the twin"),),
        traces=(TraceMap("probe AUROC", ("a", "b"), ("0", "7"), ((0.9, 0.8), (0.7, 0.6)), ((0.6, 0.5), (0.5, 0.5))),),
        pictures=pictures,
        not_measured=("Quantisation was not tried.",),
        provenance={"seeds": "0, 1", "weights": "sha256 <abc>"},
    )  # fmt: skip
