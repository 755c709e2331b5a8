"""Sites of a causal language model: roles, and how what a matrix gives gets into the residual stream."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from concept_probe.families.language.layout import LmLayout
from concept_probe.families.language.reading import COMPONENT
from concept_probe.families.language.stream import BlockWrites, Write
from concept_probe.registry import UnknownName
from concept_probe.types import Site


@dataclass(frozen=True)
class WrittenSites:
    """The sites of a model whose blocks were seen to write `writes`."""

    layout: LmLayout
    writes: tuple[BlockWrites, ...]

    @cached_property
    def roles(self) -> dict[str, tuple[Site, ...]]:
        """Roles to sites, in the order in which a pass meets them."""
        at, blocks = COMPONENT, self.layout.blocks
        return {
            "token_embedding": (Site(at, self.layout.embedding),),
            "resid": tuple(Site(at, b.block, "out", w.item) for b, w in zip(blocks, self.writes, strict=True)),
            "attn_out": tuple(Site(at, w.attention.path, "out", w.attention.item) for w in self.writes),
            "mlp_hidden": tuple(Site(at, b.down, "in") for b in blocks),
            "mlp_out": tuple(Site(at, w.mlp.path, "out", w.mlp.item) for w in self.writes),
            "text_out": (Site(at, self.layout.norm),),
            "mlp_value": tuple(Site(at, b.down, "weight") for b in blocks),
            "unembed": (Site(at, self.layout.unembed, "weight"),),
        }

    @cached_property
    def _scales(self) -> dict[Site, float]:
        writes = [w for block in self.writes for w in (block.attention, block.mlp)]
        return {Site(COMPONENT, w.path, "out", w.item): w.scale for w in writes if w.scale != 1}

    def scale(self, site: Site) -> float:
        """What the tensor at a site is multiplied by before it is added to the stream; 1 where it is not one of those."""
        return self._scales.get(site, 1.0)

    def write_of(self, site: Site) -> Write:
        """How what the down projection at `site` gives is written. Raises UnknownName for what is none."""
        paths = [block.down for block in self.layout.blocks]
        if site.path not in paths:
            raise UnknownName("down projection", str(site), [str(s) for s in self.roles["mlp_value"]])
        return self.writes[paths.index(site.path)].mlp
