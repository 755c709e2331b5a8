"""Guards, written from reading their authors' code: what becomes of states, patches and predictions, one after another."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.erasers import Itd, NegativePrompt, Saeuron, Safree, Sld, Steer
from concept_probe.erasers.guards.saeuron import Timetable
from concept_probe.erasers.guards.sld import safety_term
from concept_probe.families import UNetSubject
from concept_probe.types import Moment, Prompt, Query, Sampling, Site
from tests.parity.drawn import (
    Case,
    Pair,
    drawn,
    encoder,
    end_of,
    ids_of,
    names,
    pipeline,
    said,
    space,
    states_of,
    text_sae,
)

GUIDED = Sampling(steps=2, guidance=3.0, batch=8)


def read_at(subject: UNetSubject, site: Site, text: str) -> Tensor:
    """(2, t, d) what a text site says without and with the prompt, as guidance asks, float64."""
    seen: dict[str, Tensor] = {}

    def look(x: Tensor, moment: Moment) -> None:
        if not moment.nested:  # what asks the encoder again is met before the reading that it asks for
            seen.update({branch: x[i].double() for i, branch in enumerate(moment.branches)})

    with tap(subject, {site: look}):
        subject.run_to([subject.sites("denoiser_in")[0]], [Query(Prompt(text), 1)], GUIDED, [0])
    return torch.stack([seen["uncond"], seen["cond"]])


@torch.no_grad()
def end_state(ids: Tensor) -> Tensor:
    """(d,) the state of the end token, which is the pooled one of CLIP before any projection."""
    states = encoder()(ids[None]).last_hidden_state[0].double()
    return states[int((ids == encoder().config.eos_token_id).nonzero()[0])]


def projection(columns: Tensor) -> Tensor:
    """E (EᵀE)⁺ Eᵀ of columns (d, n)."""
    return columns @ torch.linalg.pinv(columns.mT @ columns) @ columns.mT


def safree_of(text: str) -> Pair:
    concept = projection(torch.stack([end_state(ids_of("cat"))], 1))
    ids, n = ids_of(text), end_of(text) - 1
    without = []
    for i in range(n):
        masked = ids.clone()
        masked[i + 1] = 0
        without.append(end_state(masked))
    eye = torch.eye(len(concept), dtype=torch.float64)
    away = [float(((eye - concept) @ p).norm()) for p in without]
    inside, states = projection(torch.stack(without, 1)), states_of(text)
    theirs = states.clone()
    for i in range(n):
        others = [a for j, a in enumerate(away) if j != i]
        spared = bool(others) and away[i] < 1.01 * sum(others) / len(others)
        if not spared:
            theirs[i + 1] = (eye - concept) @ inside @ states[i + 1]
    subject = pipeline()
    with Safree.published()(subject, names()).on(subject):
        ours = read_at(subject, subject.sites("text_out")[0], text)[1]
    assert not torch.equal(theirs, states)
    return theirs - states, ours - states


def safree() -> Pair:
    """(I - P_C) P_I p at each word that stands out, or stands alone; a word is left out by reading it as token 0."""
    several, lone = safree_of("the red cat in the sun"), safree_of("cat")
    return torch.cat([several[0], lone[0]]), torch.cat([several[1], lone[1]])


def steer() -> Pair:
    """Every latent above 0, at every place; guidance's empty prompt the other way."""
    subject, sae = pipeline(), text_sae(k=4)

    def stream(text: str) -> Tensor:
        with torch.no_grad():
            return encoder()(ids_of(text)[None], output_hidden_states=True).hidden_states[1][0].double()

    enc, dec, b_enc, b_dec = (x.double() for x in (sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec))
    steering = torch.stack([((x - b_dec) @ enc + b_enc).clamp(min=0) @ dec for x in stream("cat")]) * -0.5
    theirs = torch.stack([stream("") - steering, stream("the sun") + steering])
    with Steer.published()(subject, names(), (space(sae),)).on(subject):
        ours = read_at(subject, sae.site, "the sun")
    plain = torch.stack([stream(""), stream("the sun")])
    return theirs - plain, ours - plain


def saeuron() -> Pair:
    """Where a latent exceeds its mean over concepts it is multiplied by γ times its mean on this one."""
    sae, x = text_sae(k=24), drawn(1, 9, 16, seed=7).float()
    features, floor, typical = (
        torch.tensor([[3, 10, 40]]),
        torch.tensor([[0.0, 0.3, 0.1]]),
        torch.tensor([[0.5, 1.5, 2.0]]),
    )
    enc, dec, b_enc, b_dec = (t.double() for t in (sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec))
    rows = []
    for row in x[0].double():
        read = (row - b_dec) @ enc + b_enc
        kept = read.topk(24)
        latents = torch.zeros_like(read).index_add(0, kept.indices, kept.values.clamp(min=0))
        edited = latents.clone()
        for i, j in enumerate(features[0].tolist()):
            if latents[j] > floor[0, i]:
                edited[j] = latents[j] * float(typical[0, i]) * -1.0
        rows.append((edited - latents) @ dec)
    options = Saeuron.published()
    scores = drawn(20480, seed=9)
    assert options.counted(20480) == int((scores > scores.quantile(0.99999)).sum())
    assert replace(options, percentile=99.5).counted(64) == int((scores[:64] > scores[:64].quantile(0.995)).sum())
    table = Timetable(torch.tensor([500.0]), features, floor, typical)
    moved = options._action(sae, table)(x, Moment((0,), ("cond",), timestep=500.0))
    assert moved is not None
    return torch.stack(rows), moved[0]


def itd() -> Pair:
    """A prompt whose edited reconstruction misses more than τ of it, all tokens together, is read as that reconstruction."""
    sae, chosen, least = text_sae(k=6), [3, 10, 40, 41, 42], 0.9
    x = drawn(2, 6, 16, seed=8).float()
    enc, dec, b_enc, b_dec = (t.double() for t in (sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec))
    kinds = torch.ones(2, 6, dtype=torch.long)
    kinds[:, 0] = 0
    theirs = torch.zeros(2, 6, 16, dtype=torch.float64)
    shares = []
    for n, prompt in enumerate(x.double()):
        lost = whole = 0.0
        for t in range(1, 6):
            kept = ((prompt[t] - b_dec) @ enc + b_enc).topk(6)
            code = torch.zeros(64, dtype=torch.float64).index_add(0, kept.indices, kept.values.clamp(min=0))
            code[chosen] = 0.0
            theirs[n, t] = code @ dec + b_dec - prompt[t]
            lost, whole = lost + float(theirs[n, t].square().sum()), whole + float(prompt[t].square().sum())
        shares.append(lost / whole)
    least = sum(shares) / 2
    theirs[shares.index(min(shares))] = 0
    options = Itd.published()
    moved = options._action(sae, chosen, least)(x, Moment((0, 1), ("cond", "cond"), token_kinds=kinds))
    assert moved is not None
    return theirs, moved


def sld() -> Pair:
    """μ (ε_s - ε_∅): where ε_p - ε_s is small, |s (ε_p - ε_s)| but 1 at most; element by element (arXiv 2211.05105)."""
    p, s, e = (0.05 * drawn(1, 2, 3, 3, seed=i).float() for i in (1, 2, 3))
    options = Sld.published()
    theirs = torch.zeros(18, dtype=torch.float64)
    for i, (a, b, c) in enumerate(zip(p.flatten(), s.flatten(), e.flatten(), strict=True)):
        gap = float(a) - float(b)
        weight = min(abs(gap * 2000.0), 1.0) if gap < 0.025 else 0.0
        theirs[i] = weight * (float(b) - float(c))
    return theirs, safety_term(p, s, e, scale=options.scale, threshold=options.threshold)


def negative_prompt() -> Pair:
    """ε_n + g (ε_p - ε_n) in place of ε_∅ + g (ε_p - ε_∅)."""
    subject = pipeline()
    seen: dict[str, tuple[Tensor, float]] = {}

    def look(name: str):
        return lambda x, m: None if m.nested else seen.update({name: (x.clone(), m.timestep)})

    places = {subject.sites("denoiser_in")[0]: look("in"), subject.sites("denoiser_out")[0]: look("out")}
    with NegativePrompt.published()(subject, names()).on(subject), tap(subject, places):
        subject.run_to([subject.sites("denoiser_out")[0]], [Query(Prompt("the sun"), 1)], GUIDED, [0])
    (x, time), (out, _) = seen["in"], seen["out"]
    with torch.no_grad():
        none, prompt, empty = said(x[:1].repeat(3, 1, 1, 1), torch.full((3,), time), ["cat", "the sun", ""]).double()
    plain = empty + 3.0 * (prompt - empty)
    ours = out[0].double() + 3.0 * (out[1] - out[0]).double()
    return none + 3.0 * (prompt - none) - plain, ours - plain


CASES: dict[str, Case] = {
    "safree": safree,
    "steer": steer,
    "saeuron": saeuron,
    "itd": itd,
    "sld": sld,
    "negative_prompt": negative_prompt,
}
