"""Which features of a sparse autoencoder belong to a concept."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from concept_probe.figures.theme import AFTER, BEFORE, as_written, layout, tint


def feature_contrast(
    on_concept: Sequence[float],
    on_others: Sequence[float],
    chosen: Sequence[int] = (),
    *,
    names: Sequence[str] = (),
    unit: str = "mean activation",
) -> go.Figure:
    """One point per feature: how it fires on the concept (up) and on everything else (across).

    `chosen` are the indices to mark; `names`, if given, has one text per chosen feature. Features on
    the diagonal don't care about the concept.
    """
    if len(on_concept) != len(on_others):
        raise ValueError(f"{len(on_concept)} features on the concept, {len(on_others)} on the others: not the same")
    if names and len(names) != len(chosen):
        raise ValueError(f"{len(names)} names for {len(chosen)} chosen features")
    wanted = set(chosen)
    rest = [i for i in range(len(on_concept)) if i not in wanted]
    top = max([*on_concept, *on_others, 1e-12])
    figure = go.Figure()
    figure.add_shape(type="line", x0=0, y0=0, x1=top, y1=top, line={"color": BEFORE, "width": 1, "dash": "dot"})
    figure.add_scatter(
        x=[on_others[i] for i in rest], y=[on_concept[i] for i in rest], mode="markers", name="other features",
        marker={"size": 5, "color": tint(BEFORE, 0.55)}, text=[f"feature {i}" for i in rest],
        hovertemplate="%{text}<br>others %{x:.3g}<br>concept %{y:.3g}<extra></extra>",
    )  # fmt: skip
    labels = list(map(as_written, names)) or [str(i) for i in chosen]
    figure.add_scatter(
        x=[on_others[i] for i in chosen], y=[on_concept[i] for i in chosen], mode="markers+text", name="chosen",
        marker={"size": 9, "color": AFTER}, text=labels, textposition="middle right", cliponaxis=False,
        hovertemplate="feature %{text}<br>others %{x:.3g}<br>concept %{y:.3g}<extra></extra>",
    )  # fmt: skip
    layout(figure, height=420)
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title=f"{as_written(unit)} on everything else", range=[-0.03 * top, 1.1 * top])
    figure.update_yaxes(title=f"{as_written(unit)} on the concept", range=[-0.03 * top, 1.1 * top])
    return figure
