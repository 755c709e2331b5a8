"""What passes the sites of a subject: looked at, replaced, kept on disk, or held in memory.

`tap` is the one way to a tensor, and leaves with its block. `capture` writes rows to a store that is whole, checked and
resumed; `read_rows` gives the same rows in memory, `read_states` and `read_texts` whole texts; `Live` draws from a
running subject what `Activations` draws from a store, and `prefetch` makes either in the background. `attending` sees what
attentions of a denoiser compute with. Every row says what
it is: prompt, token, kind, step, branch, patch, sigma. Rows depend neither on the batch nor on how a store is cut.
"""

from concept_probe.activations.attention import AttentionCall, attending
from concept_probe.activations.capture import capture
from concept_probe.activations.estimate import CaptureEstimate, estimate_capture
from concept_probe.activations.live import Live
from concept_probe.activations.prefetch import Prefetched, prefetch
from concept_probe.activations.rows import CaptureOptions
from concept_probe.activations.shard import DamagedShard
from concept_probe.activations.states import read_rows, read_site, read_states, read_texts
from concept_probe.activations.store import Activations, Block
from concept_probe.activations.tap import tap

__all__ = [
    "Activations",
    "AttentionCall",
    "Block",
    "CaptureEstimate",
    "CaptureOptions",
    "DamagedShard",
    "Live",
    "Prefetched",
    "attending",
    "capture",
    "estimate_capture",
    "prefetch",
    "read_rows",
    "read_site",
    "read_states",
    "read_texts",
    "tap",
]
