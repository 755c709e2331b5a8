"""What trained erasers descend, written from the papers and from reading their authors' code: goals, losses and gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from concept_probe.erasers import (
    AdversarialPreservation,
    AdvUnlearn,
    Ant,
    ConceptAblation,
    DoCo,
    Esd,
    Receler,
    SalUn,
    Slider,
    Spm,
    Training,
    Unguide,
)
from concept_probe.erasers.finetune.adversarial_preservation import Adversary
from concept_probe.erasers.finetune.ant import reversed_guidance_target
from concept_probe.erasers.finetune.distillation import (
    DistillationTerm,
    distillation_loss,
    past_anchor_term,
    retain_terms,
)
from concept_probe.erasers.finetune.doco import critic_loss, deception_loss, without_conflict
from concept_probe.erasers.finetune.negative_guidance import negative_guidance_target, taken_out_term
from concept_probe.erasers.finetune.parts import adapted_sites, denoiser_parameters
from concept_probe.erasers.finetune.receler import Bottlenecks
from concept_probe.erasers.finetune.salun import largest_of_all
from concept_probe.erasers.finetune.unguide import Mixture
from concept_probe.erasers.training.replay import LatentBuffer, extrapolated_predictions, predictions
from concept_probe.erasers.training.trainable import FullWeights
from concept_probe.types import Prompt, Sampling
from tests.parity.drawn import Case, Pair, drawn, names, pipeline, said

TIMES = (700.0, 300.0, 20.0)


def met(text: str) -> LatentBuffer:
    """Three latents as if met on the way to a picture of `text`."""
    return LatentBuffer(drawn(3, 4, 8, 8, seed=11).float(), torch.tensor(TIMES), (Prompt(text),) * 3)


@torch.no_grad()
def alone(text: str, i: int) -> Tensor:
    """(c, h, w) what the U-Net says of latent i under a text, float64."""
    x = met(text)
    return said(x.inputs[i : i + 1], x.timesteps[i : i + 1], [text])[0].double()


def esd() -> Pair:
    """ε(c) - N [ε(c) - ε(∅)] with N = 2, as in the current code."""
    theirs = torch.stack([alone("cat", i) - 2.0 * (alone("cat", i) - alone("", i)) for i in range(3)])
    return theirs, negative_guidance_target(pipeline(), met("cat"), Esd.published().eta)


def erase_from() -> Pair:
    """ε(f) - N [ε(c) - ε(∅)] at latents of f."""
    theirs = torch.stack([alone("the sun", i) - 2.0 * (alone("cat", i) - alone("", i)) for i in range(3)])
    term = taken_out_term(pipeline(), [Prompt("cat")], "the sun", 2.0)
    return theirs, term.target(met("the sun"))


def esd_modules() -> Pair:
    """Which entries esd-u trains: linear and convolutional modules outside cross-attention."""
    unet = pipeline().components["unet"]
    theirs = []
    for path, module in unet.named_modules():
        if type(module).__name__ in ("Linear", "Conv2d") and "attn2" not in path:
            theirs += [f"unet/{path}:{name}" for name, _ in module.named_parameters()]
    ours = denoiser_parameters(pipeline(), "u", Esd.published().leave_norms)
    every = sorted({*theirs, *ours})
    return torch.tensor([p in set(theirs) for p in every]), torch.tensor([p in set(ours) for p in every])


def adv_unlearn() -> Pair:
    """ε(∅) - N [ε(c) - ε(∅)] with N = 1."""
    theirs = torch.stack([alone("", i) - 1.0 * (alone("cat", i) - alone("", i)) for i in range(3)])
    return theirs, negative_guidance_target(pipeline(), met("cat"), AdvUnlearn.published().eta)


def concept_ablation() -> Pair:
    """The gradient of |ε_θ(c) - sg ε_θ(a)|² where the student has moved, at latents of the anchor's trajectories."""
    subject, options = pipeline(), ConceptAblation.published()
    student = FullWeights(subject, denoiser_parameters(subject, options.part))
    for i, x in enumerate(student.trained.values()):
        x += 0.05 * drawn(*x.shape, seed=i).float()
    term = DistillationTerm(
        (Prompt("dog"),), lambda p, g: Prompt("cat"), lambda x: predictions(subject, x, x.prompts), by_student=options.own_target
    )  # fmt: skip
    training = Training(steps=1, batch=3, pictures=2, sampling=Sampling(2, 2.0), retain=0.0)
    loss = distillation_loss(subject, student, [term], training)
    shown: list[LatentBuffer] = []
    kept = replace(term, by_student=True, target=lambda x: (shown.append(x), predictions(subject, x, x.prompts))[1])
    with student.on(), torch.enable_grad():
        loss(0, torch.Generator().manual_seed(5)).backward()
        ours = torch.cat([p.grad.flatten() for p in student.parameters.values() if p.grad is not None])
    watched = distillation_loss(subject, student, [kept], training)
    with student.on(), torch.enable_grad():
        watched(0, torch.Generator().manual_seed(5))
        x = shown[-1]
        with torch.no_grad():
            goal = said(x.inputs, x.timesteps, ["dog"] * 3)
        parameters = list(student.parameters.values())
        total = torch.zeros(())
        for i in range(3):
            total = (
                total + (said(x.inputs[i : i + 1], x.timesteps[i : i + 1], ["cat"]) - goal[i : i + 1]).square().sum()
            )
        grads = torch.autograd.grad(total / goal.numel(), parameters)
    for p in parameters:
        p.grad = None
    return torch.cat([g.flatten() for g in grads]), ours


def spm() -> Pair:
    """Erasing: ε(n) - γ [ε(c) - ε(n)]; anchoring, at latents of the concept: 1,000 |ε_θ(p) - ε(p)|²."""
    options, subject = Spm.published(), pipeline()
    erased = past_anchor_term(subject, [Prompt("cat")], {Prompt("cat"): Prompt("dog")}, options.eta).target(met("cat"))
    theirs = torch.stack([alone("dog", i) - 1.0 * (alone("cat", i) - alone("dog", i)) for i in range(3)])
    (kept,) = retain_terms(subject, names(), ("neighbours",), options.training.retain, names().target.fit)
    assert kept.met_for == names().target.fit and options.met_at_concept
    goal = kept.target(replace(met("cat"), prompts=(Prompt("sun"),) * 3))
    told = torch.stack([alone("sun", i) for i in range(3)])
    return torch.cat([theirs, 1000.0 * told]), torch.cat([erased, kept.weight * goal])


def modules_of(kinds: tuple[str, ...], crossing: bool) -> list[str]:
    """Paths of linear and convolutional modules inside modules of some classes; without `crossing` not in cross-attention."""
    unet, out = pipeline().components["unet"], []
    for name, module in unet.named_modules():
        if type(module).__name__ not in kinds or (not crossing and "attn2" in name):
            continue
        for child, inside in module.named_modules():
            path = f"{name}.{child}" if child else name
            if isinstance(inside, (nn.Linear, nn.Conv2d)) and path not in out:
                out.append(path)
    return out


def modules(theirs: list[str], options: Spm | Slider) -> Pair:
    ours = [site.path for site in adapted_sites(pipeline(), options.roles, options.modules)]
    every = sorted({*theirs, *ours})
    return torch.tensor([p in theirs for p in every]), torch.tensor([p in ours for p in every])


def spm_modules() -> Pair:
    """Which modules have a membrane: linear and convolutional ones of the transformers."""
    return modules(modules_of(("Transformer2DModel",), True), Spm.published())


def slider_modules() -> Pair:
    """Which modules have a term: linear and convolutional ones outside cross-attention."""
    inside = ("Attention", "ResnetBlock2D", "Downsample2D", "Upsample2D", "DownBlock2D", "UpBlock2D")
    return modules(modules_of(inside, False), Slider.published())


def slider() -> Pair:
    """ε(n) + η [ε(c) - ε(n)]: the pair of prompts is the concept's and its anchor's."""
    theirs = torch.stack([alone("dog", i) + 4.0 * (alone("cat", i) - alone("dog", i)) for i in range(3)])
    own, others = [Prompt("dog")] * 3, [Prompt("cat")] * 3
    return theirs, extrapolated_predictions(pipeline(), met("dog"), own, others, Slider.published().eta)


def ant() -> Pair:
    """ε(∅) + η [ε(c) - ε(∅)] before step 7 of 50, ε(∅) - η [ε(c) - ε(∅)] from it on."""
    options = replace(Ant.published())
    x = replace(met("cat"), timesteps=torch.tensor([900.0, 300.0, 20.0]))
    rows = []
    with torch.no_grad():
        for i, t in enumerate((900.0, 300.0, 20.0)):
            c, e = (said(x.inputs[i : i + 1], x.timesteps[i : i + 1], [text])[0].double() for text in ("cat", ""))
            rows.append(e + (1.0 if t > 1000 * (1 - 7 / 50) else -1.0) * (c - e))
    return torch.stack(rows), reversed_guidance_target(pipeline(), x, options.eta, options.early)


def receler() -> Pair:
    """up(gelu(down(x))) of two linear layers with their biases."""
    subject, options = pipeline(), Receler.published()
    site = subject.sites("cross_out")[0]
    student = Bottlenecks(subject, [site], {site: 32}, 5, 0, options.biases)
    for i, p in enumerate(student.parameters()):
        p.data.copy_(drawn(*p.shape, seed=20 + i).float())
    down, up, (a, b) = student.down[site], student.up[site], student.shifts[site]
    x = drawn(2, 3, 32, seed=9).float()
    theirs = torch.zeros(2, 3, 32, dtype=torch.float64)
    for n in range(2):
        for t in range(3):
            hidden = x[n, t].double() @ down.double() + a.double()
            hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
            theirs[n, t] = hidden @ up.double() + b.double()
    return theirs, student.written(site, x)


def doco() -> Pair:
    """Cross-entropies of a critic's logits, and gradients without what goes against those that keep, per parameter."""
    assert DoCo.published().training.retain == 1.0

    class Given(nn.Module):
        def forward(self, latents: Tensor, directions: Tensor) -> Tensor:
            return directions

    real, fake = drawn(2, 1, 3, 3, seed=1), drawn(2, 1, 3, 3, seed=2)
    ones = nn.functional.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    zeros = nn.functional.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    fooled = nn.functional.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))
    aim, keep = [drawn(4, seed=3), drawn(4, seed=4)], [-drawn(4, seed=3) + 0.1, drawn(4, seed=4)]
    surgery = []
    for a, k in zip(aim, keep, strict=True):
        dot = sum(float(x) * float(y) for x, y in zip(a, k, strict=True))
        surgery.append(a - dot / float(k @ k) * k if dot < 0 else a)
    critic = Given()
    ours = [critic_loss(critic, real, real, fake), deception_loss(critic, real, fake)]  # pyright: ignore[reportArgumentType]
    return torch.cat([torch.stack([ones + zeros, fooled]), *surgery]), torch.cat(
        [torch.stack(ours), *without_conflict(aim, keep)]
    )


def unguide() -> Pair:
    """w ε_full + (1 - w) ε_adapted, w of -1 where the adapters change the prompt's much more than the empty one's, 2 elsewhere."""
    full, adapted, none, none_adapted = (drawn(2, 4, seed=i) for i in (1, 2, 3, 4))
    adapted[1] = full[1] + 0.01 * drawn(4, seed=5)
    mixture = Mixture(Unguide.published(), pipeline(), cast(Any, None), 0.3)
    theirs, ours = [], []
    for i in range(2):
        own, empty = (adapted[i] - full[i]).norm(), (none_adapted[i] - none[i]).norm()
        w = -1.0 if float(own / empty) > 0.3 else 2.0
        theirs.append(w * full[i] + (1 - w) * adapted[i])
        mixture.measured[i] = [(float(own), float(empty))]
        ours.append(full[i] + (1 - mixture.weight(i)) * (adapted[i] - full[i]))
    return torch.stack(theirs), torch.stack(ours)


def adversarial_preservation() -> Pair:
    """How far the student has gone from what a kept prompt said, |ε_θ(x, p) - ε(x, p)|² of each; the farthest is kept."""
    subject = pipeline()
    prompts = tuple(Prompt(text) for text in ("the sun", "a dog", "red"))
    options = AdversarialPreservation.published()
    training = replace(options.training, sampling=Sampling(2, 2.0), seed=3)
    adversary = Adversary(replace(options, training=training), subject, prompts)
    student = FullWeights(subject, denoiser_parameters(subject, options.part))
    for i, x in enumerate(student.trained.values()):
        x += 0.05 * drawn(*x.shape, seed=i).float()
    buffer, rows = adversary.buffer, []
    with torch.no_grad():
        before = said(buffer.inputs, buffer.timesteps, [p.text for p in buffer.prompts])
    with student.on(), torch.no_grad():
        ours = adversary.harm(torch.tensor([0, 1]))
        after = said(buffer.inputs, buffer.timesteps, [p.text for p in buffer.prompts])
    for prompt in prompts:
        own = [i for i, p in enumerate(buffer.prompts) if p == prompt]
        rows.append(sum(float((after[i] - before[i]).double().square().mean()) for i in own) / len(own))
    assert options.worst == 1 and int(ours.argmax()) == rows.index(max(rows))
    return torch.tensor(rows, dtype=torch.float64), ours


def salun() -> Pair:
    """Ranks of all gradients' sizes together, from the smallest; those below half of their number are trained."""
    options = SalUn.published()
    gradients = {"a": drawn(5, 3), "b": drawn(7, seed=1), "c": drawn(2, 2, 3, 3, seed=2)}
    sizes = [(abs(float(x)), name, i) for name, g in gradients.items() for i, x in enumerate(g.flatten())]
    first = {(name, i) for _, name, i in sorted(sizes)[: int(len(sizes) * 0.5)]}
    theirs = [float((name, i) in first) for name, g in gradients.items() for i in range(g.numel())]
    masks = largest_of_all(gradients, options.share, least=options.least)
    ours = [
        masks[name].flatten().double() if name in masks else torch.zeros(g.numel()) for name, g in gradients.items()
    ]
    return torch.tensor(theirs, dtype=torch.float64), torch.cat(ours)


CASES: dict[str, Case] = {
    "esd": esd,
    "esd (erase_from)": erase_from,
    "esd (modules)": esd_modules,
    "adv_unlearn": adv_unlearn,
    "concept_ablation": concept_ablation,
    "spm": spm,
    "spm (modules)": spm_modules,
    "slider": slider,
    "slider (modules)": slider_modules,
    "ant": ant,
    "adversarial_preservation": adversarial_preservation,
    "receler": receler,
    "doco": doco,
    "unguide": unguide,
    "salun": salun,
}
