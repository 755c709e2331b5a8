"""What a behaviour owes to parts of a model, by taking them out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from concept_probe.cli.arrows import read_found
from concept_probe.cli.common import (
    ConceptFile,
    ConceptName,
    Model,
    Output,
    PicturesPerPrompt,
    RecogniserName,
    Saes,
    Seed,
    Threads,
    concept_of,
    plain_errors,
    recogniser_of,
    writable,
)
from concept_probe.cli.console import err, out
from concept_probe.cli.shared.drawing import ClipSkip, GuidanceRescale, PictureSize, sampling_of, subject_of


def attribute(
    concept: ConceptName,
    output: Output,
    model: Model = "emoji",
    players: Annotated[
        str, typer.Option(help="mlp, blocks, columns, features or cross; left out where --found names a folder.")
    ] = "mlp",
    found: Annotated[
        Path | None, typer.Option(help="Folder that `find` wrote: each feature or vector in it is a player.")
    ] = None,
    removal: Annotated[
        str, typer.Option(help="What stands in place of what is taken out, see `info removals`.")
    ] = "mean",
    behaviour: Annotated[
        str | None,
        typer.Option(help="What is measured, see `info behaviours`. Default: detection, of language models answers."),
    ] = None,
    summary: Annotated[str, typer.Option(help="How it is shared, see `info summaries`.")] = "shapley",
    samples: Annotated[int | None, typer.Option(min=1, help="Draws of a summary that draws coalitions.")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Most prompts that players are scored and judged on.")] = 16,
    seeds: PicturesPerPrompt = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps of a picture. Default: 15.")] = None,
    most: Annotated[int, typer.Option("--max-answers", min=1, help="Refuse what would need more answers.")] = 8192,
    controls: Annotated[bool, typer.Option(help="Play matched random players, too; without, it costs half.")] = True,
    sae: Saes = None,
    concept_file: ConceptFile = None,
    recogniser: RecogniserName = None,
    clip_skip: ClipSkip = 0,
    picture_size: PictureSize = None,
    guidance_rescale: GuidanceRescale = 0.0,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Take parts of a model out, and share what it then loses among them; goes on where it was interrupted.

    Examples:

    `concept-probe attribute camel --players mlp --removal zero --output camel-attribution`

    `concept-probe attribute camel --found camel-vectors --summary shapley --samples 8 --output camel-columns`

    `concept-probe attribute mathematics --model smollm2 --behaviour answers --output mathematics-layers`
    """
    with plain_errors():
        from dataclasses import replace

        from concept_probe.find.attribution import BEHAVIOURS, SUMMARIES, AttributionPlan
        from concept_probe.find.attribution import attribute as play
        from concept_probe.registry import look_up
        from concept_probe.report import attribution_to_html, attribution_to_json
        from concept_probe.storage import write_text

        writable(output, "an attribution", ("attribution.json", "attribution.html"))
        subject, about = subject_of(model, clip_skip, picture_size), concept_of(concept, concept_file, model)
        behaviour = behaviour or ("answers" if subject.answers == "texts" else "detection")
        what = look_up(BEHAVIOURS, behaviour, "behaviour", "concept-probe info behaviours")()
        way = _way(look_up(SUMMARIES, summary, "summary", "concept-probe info summaries"), samples, seed)
        sampling = sampling_of(subject, guidance_rescale)
        plan = AttributionPlan(
            prompts=prompts,
            seeds=seeds,
            controls=controls,
            most_answers=most,
            sampling=replace(sampling, steps=steps or sampling.steps),
            judge=recogniser_of(recogniser, about, subject) if what.judges() else None,
            seed=seed,
        )
        chosen: Any = players if found is None else _each(read_found(found, sae, subject))
        result = play(subject, about, chosen, removal, what, way, plan, folder=output)
        write_text(output / "attribution.json", attribution_to_json(result))
        write_text(output / "attribution.html", attribution_to_html(result))
        table = Table(
            "player", "score", "95 % interval", "matched random", title=f"{summary} of {behaviour}, {concept}"
        )
        for i in result.order()[:20]:
            s = result.scores[i]
            like = "" if s.control is None else f"{s.control:.3f}"
            table.add_row(s.name, f"{s.value:.3f}", f"{s.low:.3f} – {s.high:.3f}", like)
        out.print(table)
        out.print(f"{result.whole}; {result.none}", highlight=False, soft_wrap=True)
        if result.deletion_area is not None:
            out.print(str(result.deletion_area), highlight=False, soft_wrap=True)
        err.print(f"{result.answers:,} answers; {output / 'attribution.html'}")


def _way(kind: Any, samples: int | None, seed: int) -> Any:
    """A summary with those of the options that it has. ValueError for samples of one that draws none."""
    fields = kind.__dataclass_fields__
    if samples is not None and "samples" not in fields:
        raise ValueError(f"--samples is of summaries that draw coalitions, and {kind.name!r} draws none; leave it out")
    given = {"samples": samples, "seed": seed}
    return kind(**{name: value for name, value in given.items() if name in fields and value is not None})


def _each(found: Any) -> list[Any]:
    """Every feature of what was found as a player; vectors are one each as they are."""
    from concept_probe.find.attribution.named import each_feature

    return [one for space in found for one in (each_feature(space) if space.codec is not None else (space,))]
