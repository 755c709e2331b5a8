"""How far apart models that hold a concept and models that never did are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from concept_probe.figures.theme import BAD, BEFORE, CONTROL, GOOD, WARN, as_written, layout

COLOURS = {"present": BAD, "suppressed": WARN, "absent": GOOD}


def truth(values: Mapping[str, Sequence[float]], *, threshold: float | None = None, title: str = "") -> go.Figure:
    """One point per audited model, a row per truth; `threshold` is drawn as a line.

    `values` are one number per model, by what is known of it. Raises ValueError where there are none.
    """
    if not any(values.values()):
        raise ValueError("no audit of known truth, so there is nothing to compare")
    figure = go.Figure()
    for name, of in values.items():
        # Points of one row stand apart by their order, so that equal values are all seen.
        lift = [0.12 * ((i % 5) - 2) for i in range(len(of))]
        figure.add_scatter(
            x=list(of), y=[list(values).index(name) + dy for dy in lift], mode="markers", name=as_written(name),
            marker={"size": 9, "color": COLOURS.get(name, BEFORE), "opacity": 0.75}, showlegend=False,
            hovertemplate=f"{as_written(name)}<br>%{{x:.2f}}<extra></extra>",
        )  # fmt: skip
    layout(figure, title=title, height=140 + 60 * len(values))
    if threshold is not None:
        figure.add_vline(x=threshold, line={"color": CONTROL, "dash": "dot", "width": 1.5}, annotation_text="threshold")
    figure.update_xaxes(title="residual index (0 never taught, 1 untouched)")
    ticks = [f"{as_written(name)} (n {len(of)})" for name, of in values.items()]
    figure.update_yaxes(tickvals=list(range(len(values))), ticktext=ticks, autorange="reversed", showgrid=False)
    return figure
