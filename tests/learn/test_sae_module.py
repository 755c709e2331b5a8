"""The autoencoder itself: codes, reconstruction, units, bad input."""

from __future__ import annotations

import pytest
import torch

from concept_probe.learn import JumpRelu, Relu, Sae, TopK
from concept_probe.learn.sae import weighted_rows
from concept_probe.types import Codes, Site, SparseCoder, unit

SITE = Site("text_encoder", "encoder.layers.0")


def random_sae(activation=None, d=12, f=40, scale=4.0, dtype=torch.float64, seed=0) -> Sae:
    g = torch.Generator().manual_seed(seed)
    W_dec = unit(torch.randn(f, d, generator=g, dtype=dtype), dim=1)
    W_enc = torch.randn(d, f, generator=g, dtype=dtype)
    b_enc, b_dec = torch.randn(f, generator=g, dtype=dtype), torch.randn(d, generator=g, dtype=dtype)
    return Sae(SITE, activation or TopK(5), W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, scale=scale)


def rows(n=32, d=12, dtype=torch.float64, seed=1):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_topk_codes_are_the_formula():
    sae, x = random_sae(), rows()
    pre = (4.0 * x - sae.b_dec) @ sae.W_enc + sae.b_enc
    kept = pre >= pre.sort(dim=1, descending=True).values[:, 4:5]
    expected = torch.where(kept, pre, 0).relu()
    torch.testing.assert_close(sae.encode(x).dense(sae.width), expected)
    torch.testing.assert_close(sae.decode(sae.encode(x)), (expected @ sae.W_dec + sae.b_dec) / 4.0)


def test_negative_pre_activations_do_not_fire_though_they_are_among_the_largest():
    sae = random_sae()
    sae.b_enc.fill_(-1000.0)
    codes = sae.encode(rows())
    assert (codes.values == 0).all()
    torch.testing.assert_close(sae.decode(codes), sae.bias.expand(32, -1))


@pytest.mark.parametrize("activation", [Relu(), JumpRelu(torch.linspace(-1, 3, 40, dtype=torch.float64))])
def test_relu_and_jumprelu_codes_are_the_formula(activation):
    sae, x = random_sae(activation), rows()
    pre = sae.pre_activations(x)
    threshold = activation.threshold if isinstance(activation, JumpRelu) else torch.zeros(40)
    expected = pre.relu() * (pre > threshold)
    torch.testing.assert_close(sae.encode(x).dense(sae.width), expected, rtol=0, atol=0)


def test_decoder_and_bias_are_in_the_units_of_the_activations():
    sae, x = random_sae(), rows()
    codes = sae.encode(x)
    torch.testing.assert_close(sae.decode(codes), codes.dense(sae.width) @ sae.decoder + sae.bias)


def test_scale_of_the_input_does_not_change_what_is_found():
    one, eight = random_sae(scale=1.0), random_sae(scale=8.0)
    x = rows()
    torch.testing.assert_close(eight.encode(x / 8).values, one.encode(x).values, rtol=0, atol=0)
    torch.testing.assert_close(eight(x / 8) * 8, one(x), rtol=0, atol=0)


def test_leading_axes_are_kept():
    sae, x = random_sae(), rows(24).reshape(2, 3, 4, 12)
    assert sae.encode(x).indices.shape == (2, 3, 4, 5)
    torch.testing.assert_close(sae(x).reshape(24, 12), sae(x.reshape(24, 12)))


def test_no_rows_are_no_error():
    for activation in (TopK(5), Relu()):
        assert random_sae(activation)(torch.zeros(0, 12)).shape == (0, 12)


def test_half_precision_input_comes_back_as_half_precision():
    x = rows(dtype=torch.bfloat16)
    sae = random_sae(dtype=torch.float32)
    assert sae(x).dtype == torch.bfloat16
    assert sae.encode(x).values.dtype == torch.float32


def test_gradient_flows_to_the_input_and_not_into_the_weights():
    sae = random_sae()
    x = rows(6).requires_grad_(True)
    sae(x).square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(p.grad is None for p in sae.parameters())
    assert torch.autograd.gradcheck(lambda y: sae(y), (x,))


def test_weighted_rows_is_a_dense_product_with_padding_and_repeats():
    values = torch.tensor([[1.0, 2.0, 0.0], [0.5, 0.5, 3.0]])
    indices = torch.tensor([[3, 1, 3], [2, 2, 0]])
    table = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    expected = Codes(values, indices).dense(4) @ table
    torch.testing.assert_close(weighted_rows(values, indices, table), expected)


def test_it_is_a_codec():
    sae = random_sae()
    assert isinstance(sae, SparseCoder)
    assert sae.decoder.shape == (sae.width, 12) and sae.k == 5 and random_sae(Relu()).k is None


def test_wrong_width_names_both():
    with pytest.raises(ValueError, match=r"width 12; rows of width 9"):
        random_sae().encode(torch.zeros(3, 9))


def test_weights_that_do_not_fit_are_refused():
    good = random_sae()
    with pytest.raises(ValueError, match=r"b_dec is \(5,\), W_enc \(12, 40\) asks for \(12,\)"):
        Sae(SITE, TopK(2), W_enc=good.W_enc, b_enc=good.b_enc, W_dec=good.W_dec, b_dec=torch.zeros(5))
    with pytest.raises(ValueError, match="k is 41, more than its 40 features"):
        random_sae(TopK(41))
    with pytest.raises(ValueError, match="k is 0"):
        TopK(0)
    with pytest.raises(ValueError, match="scale is 0"):
        random_sae(scale=0.0)
