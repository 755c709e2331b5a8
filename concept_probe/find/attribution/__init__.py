"""Attribution by removal: players x removal x behaviour x summary (Covert et al., arXiv 2011.14878).

`players` are parts of a model that are taken out together; `find.removals` says what then stands in their place;
`behaviours` are what is measured; `summaries` share it among the players. `game` puts them together: v(S), the
behaviour with only S there, for each query. `attribute` is the door.
"""

from __future__ import annotations

from concept_probe.find.attribution.attribute import AttributionPlan, attribute
from concept_probe.find.attribution.behaviours import BEHAVIOURS
from concept_probe.find.attribution.named import PLAYERS
from concept_probe.find.attribution.players import Player, Spot
from concept_probe.find.attribution.summaries import SUMMARIES

__all__ = ["BEHAVIOURS", "PLAYERS", "SUMMARIES", "AttributionPlan", "Player", "Spot", "attribute"]
