"""Autoencoders of sae-lens, and rows to read with them."""

from __future__ import annotations

import torch

D, F = 16, 48


def rows(n=64, d=D, seed=5):
    return 0.3 + torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def lens_module(name: str, **options):
    """A sae-lens autoencoder with random weights of uneven norm."""
    from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    kind, config = {
        "topk": (TopKSAE, TopKSAEConfig),
        "standard": (StandardSAE, StandardSAEConfig),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig),
        "gated": (GatedSAE, GatedSAEConfig),
    }[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = kind(config(d_in=D, d_sae=F, **options))
        for parameter in module.parameters():
            parameter.data.copy_(torch.randn_like(parameter))
        module.W_dec.data *= torch.linspace(0.5, 2.0, F)[:, None]
    return module
