"""What a language model's blocks write, on every layout: the stream adds up, columns are read as they are written."""

from __future__ import annotations

import warnings
from typing import Any, cast

import pytest
import torch
import transformers as hf
from torch import Tensor

import concept_probe as cp
from concept_probe.activations import tap
from concept_probe.erasers import Intervention, Memit, Pisces, Rocr
from concept_probe.erasers.closed_form.subject_keys import refuse_gap
from concept_probe.erasers.projection.leace import Leace
from concept_probe.families import CausalLMSubject, LanguageModel, adopt
from concept_probe.find.language.unembedding import Unembedding, read_columns
from concept_probe.find.language.writing import Writing
from concept_probe.learn.sae import Relu, Sae
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.found import CERTAIN
from concept_probe.testing.models.language import _sizes, lm_tokenizer
from concept_probe.types import Prompt, Query, Sampling, Subspace

WORDS = lm_tokenizer(begins="<s>", pads="<pad>")
SIZES = _sizes(num_key_value_heads=1, tie_word_embeddings=False, pad_token_id=256)
GPT = {"vocab_size": len(WORDS), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
NEO = {
    "vocab_size": len(WORDS), "hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 40,
    "attention_types": [[["global", "local"], 1]], "window_size": 4, "max_position_embeddings": 64,
}  # fmt: skip
XGLM = {
    "vocab_size": len(WORDS), "d_model": 16, "num_layers": 2, "attention_heads": 2, "ffn_dim": 40,
    "max_position_embeddings": 64,
}  # fmt: skip
FALCON = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}

POST_NORM: dict[str, tuple[Any, dict[str, Any]]] = {
    "gemma2": (hf.Gemma2Config, SIZES | {"head_dim": 8, "query_pre_attn_scalar": 8}),
    "gemma3": (hf.Gemma3TextConfig, SIZES | {"head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8}),
    "olmo2": (hf.Olmo2Config, SIZES),
    "glm4": (hf.Glm4Config, SIZES | {"head_dim": 8, "partial_rotary_factor": 0.5}),
}
FACTOR = {"granite": (hf.GraniteConfig, SIZES | {"residual_multiplier": 0.25, "embedding_multiplier": 3.0})}
OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt_neo": (hf.GPTNeoConfig, NEO),
    "xglm": (hf.XGLMConfig, XGLM),
    "gptj": (hf.GPTJConfig, GPT | {"rotary_dim": 4}),
    "codegen": (hf.CodeGenConfig, GPT | {"rotary_dim": 4}),
    "gpt_bigcode": (hf.GPTBigCodeConfig, GPT),
    "cohere": (hf.CohereConfig, SIZES),
    "phi": (hf.PhiConfig, SIZES),
    "phi3": (hf.Phi3Config, SIZES),
    "falcon, parallel": (hf.FalconConfig, FALCON | {"parallel_attn": True}),
    "falcon, in turn": (hf.FalconConfig, FALCON | {"parallel_attn": False, "alibi": False}),
    "stablelm": (hf.StableLmConfig, SIZES),
    "smollm3": (hf.SmolLM3Config, SIZES),
    "starcoder2": (hf.Starcoder2Config, SIZES),
    "nemotron": (hf.NemotronConfig, SIZES),
    "qwen3": (hf.Qwen3Config, SIZES | {"head_dim": 8}),
    "bitnet": (hf.BitNetConfig, SIZES),
    "mistral": (hf.MistralConfig, SIZES | {"sliding_window": 4}),
}
READ = POST_NORM | FACTOR | OTHERS


def random_model(config: Any) -> Any:
    """With gains and biases of its own, so that none that is left out goes unseen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(config)
        for name, p in model.named_parameters():
            p.data = torch.randn_like(p) * 0.3 if p.ndim > 1 else p.data + 0.8 * torch.randn_like(p) * ("norm" in name)
    return model


@pytest.fixture(scope="module")
def model_of():
    made: dict[str, CausalLMSubject] = {}

    def one(name: str) -> CausalLMSubject:
        if name not in made:
            kind, sizes = READ[name]
            made[name] = adopt(LanguageModel(random_model(cast(Any, kind)(**sizes)), WORDS), name)
        return made[name]

    return one


def met(subject: CausalLMSubject, sites: list[Any], prompts: list[Prompt]) -> list[Tensor]:
    seen: dict[Any, Tensor] = {}
    with torch.no_grad(), tap(subject, {s: lambda x, moment, s=s: seen.update({s: x.clone()}) for s in sites}):
        subject.next_logits(prompts)
    return [seen[s] for s in sites]


@pytest.mark.parametrize("name", READ)
def test_the_stream_is_what_went_in_and_what_attention_and_feed_forward_write(model_of, name):
    subject = model_of(name)
    before, after = subject.sites("resid")
    sites = [before, subject.sites("attn_out")[1], subject.sites("mlp_out")[1], after]
    went_in, attention, mlp, came_out = met(subject, sites, [Prompt("see the cat", "cat")])
    torch.testing.assert_close(went_in + attention + mlp, came_out, atol=1e-4, rtol=1e-4)
    prompts = [Prompt("the cat"), Prompt("the dog in the sun", "dog")]
    rows = cp.capture(subject, prompts, roles=["resid", "attn_out", "mlp_hidden", "mlp_out"])
    assert len(rows.sites) == 8


@pytest.mark.parametrize("name", ["gemma3", "granite", "gpt_neo"])
def test_a_part_is_replaced_in_units_of_the_stream(model_of, name):
    """Twice what is written moves the stream by as much as was written."""
    subject = model_of(name)
    end, part = subject.sites("resid")[0], subject.sites("mlp_out")[0]
    prompts = [Prompt("see the cat", "cat")]
    plain, wrote = met(subject, [end, part], prompts)
    with tap(subject, {part: lambda x, moment: 2 * x}):
        (moved,) = met(subject, [end], prompts)
    torch.testing.assert_close(moved - plain, wrote, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [*POST_NORM, *FACTOR, "gpt_neo", "phi"])
def test_a_column_is_read_as_what_it_does_to_log_probabilities(model_of, name):
    """Against finite differences of the last block's coefficients; without what stands in between it is another one."""
    subject = model_of(name)
    hidden, site = subject.sites("mlp_hidden")[-1], subject.sites("mlp_value")[-1]
    prompts = [
        Prompt("see the cat", "cat"),
        Prompt("a dog and the sun"),
        Prompt("red is the sun in the"),
        Prompt("one"),
    ]
    head, columns = Unembedding.of(subject, "folded"), subject.matrix(site).detach()
    chosen = range(0, columns.shape[1], 4)
    read = head.scores(Writing.of(subject, site)(columns[:, list(chosen)]))
    wrote: list[Tensor] = []
    with torch.no_grad():
        for j in chosen:
            step = torch.zeros(columns.shape[1])
            step[j] = 1e-2
            logits = []
            for sign in (1, -1):
                with tap(subject, {hidden: lambda x, moment, by=sign * step: x + by}):
                    logits.append(subject.next_logits(prompts).double())
            wrote.append((logits[0] - logits[1]).mean(0))
    agree = centred_cosine(torch.stack(wrote).float(), read)
    assert agree.mean() > (0.9 if name in POST_NORM else 0.97)
    if name in POST_NORM:
        bare = centred_cosine(torch.stack(wrote).float(), head.scores(columns[:, list(chosen)]))
        assert agree.mean() > bare.mean() + 0.01
    (reading,) = read_columns(subject, sites=[site], top=5)
    assert torch.equal(reading.promoted[list(chosen)], read.topk(5).indices)


def centred_cosine(a: Tensor, b: Tensor) -> Tensor:
    a, b = (x - x.mean(-1, keepdim=True) for x in (a, b))
    return torch.nn.functional.cosine_similarity(a, b, dim=-1)


@pytest.mark.parametrize("name", ["gemma2", "olmo2", "granite", "phi"])
def test_a_feature_is_taken_out_of_columns_as_they_are_written(model_of, name):
    """One direction of the stream, coded with either sign: nothing of it is left in what any column writes."""
    subject = model_of(name)
    site, values = subject.sites("mlp_out")[0], subject.sites("mlp_value")[0]
    direction = torch.nn.functional.normalize(torch.randn(1, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    sae = Sae(site, Relu(), W_enc=direction.mT, b_enc=torch.zeros(1), W_dec=direction, b_dec=torch.zeros(16))
    space = Subspace(site, direction.mT, "activation", CERTAIN, features=(0,), codec=sae)
    edit = Pisces(tau=0.0)(subject, tiny_facts(), [space])
    writing, before = Writing.of(subject, values), subject.matrix(values).detach().clone()
    with edit.on(subject):
        after = writing(subject.matrix(values).detach())
    assert (direction @ writing(before)).abs().max() > 0.1
    assert (direction @ after).abs().max() < 1e-4
    torch.testing.assert_close(
        after, writing(before) - direction.mT @ (direction @ writing(before)), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", [*POST_NORM, *FACTOR, "gpt_neo"])
def test_a_closed_form_edit_reaches_what_it_asks_of_the_blocks(model_of, name):
    subject, concept = model_of(name), tiny_facts()
    edit = Memit(lam=0.01, steps=8)(subject, concept)
    assert edit.made_by["gap_left"][0] < 0.05


def test_an_edit_that_does_not_reach_its_goal_is_an_error(model_of):
    with pytest.raises(ValueError, match=r"leaves \d+% of the way .* lower `lam`"):
        Memit(lam=1e9, steps=2)(model_of("gemma2"), tiny_facts())
    with pytest.raises(ValueError, match=r"leaves \d+% of the way .* raise `null`"):
        Rocr(lam=1e6)(model_of("gemma2"), tiny_facts())


def test_an_edit_that_goes_half_of_its_way_is_an_error_and_one_that_lacks_a_third_is_said():
    with pytest.raises(ValueError, match=r"blocks 0 leaves 70% of the way .* more than 60%; lower it"):
        refuse_gap("memit", 0.7, [0], "lower it")
    with pytest.raises(ValueError, match="leaves nan%"):
        refuse_gap("memit", float("nan"), [0], "lower it")
    with pytest.warns(UserWarning, match=r"leaves 33% of the way .* more than 25%, .*; lower it"):
        refuse_gap("memit", 0.33, [0], "lower it")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refuse_gap("memit", 0.2, [0], "lower it")


@pytest.mark.parametrize("name", ["gemma3", "mistral", "gpt_neo", "xglm", "granite"])
def test_texts_longer_than_a_window_are_written_as_they_are_read(model_of, name):
    subject = model_of(name)
    prompt = Prompt("the cat and the dog in the sun")
    (text,) = subject.generate([Query(prompt)], Sampling(tokens=6))
    again = subject.generate([Query(prompt), Query(Prompt("red"))], Sampling(tokens=6))
    assert again[0] == text
    pair = (prompt, " sun red")
    whole, short = Prompt(prompt.text + " sun"), Prompt(prompt.text)
    sun, red = (subject.spelled_after(prompt, " sun")[0], subject.spelled_after(whole, " red")[0])
    by_hand = (
        subject.next_logits([short]).log_softmax(-1)[0, sun] + subject.next_logits([whole]).log_softmax(-1)[0, red]
    )
    torch.testing.assert_close(subject.log_probs([pair, pair]).total, by_hand.repeat(2), atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["leace", "difference", "rlace", "repit"])
def test_directions_are_taken_out_by_default_while_the_model_runs(model_of, method):
    subject, concept = model_of("gpt_neo"), tiny_facts()
    erasure = cp.erase(method, subject, concept)
    assert isinstance(erasure, Intervention) and set(erasure.actions) == set(subject.sites("resid"))
    options = erasure.made_by["options"]
    assert (options["how"], options["role"], options["kinds"]) == ("intervention", "resid", ["subject", "content"])
    prompts = concept.target.fit
    before = subject.next_logits(prompts)
    with erasure.on(subject):
        assert not torch.allclose(subject.next_logits(prompts), before, atol=1e-4)
    assert torch.equal(subject.next_logits(prompts), before)


def test_baking_into_a_language_model_and_methods_for_pictures_are_refused_in_words(model_of):
    with pytest.raises(ValueError, match=r"can't be baked into phi: a language model has no matrix"):
        Leace(how="bake", role="resid")(model_of("phi"), tiny_facts())
    with pytest.raises(TypeError, match=r"uce erases .* it needs a text-to-image pipeline"):
        cp.erase("uce", model_of("phi"), tiny_facts())


def test_roles_that_can_be_captured_are_told(model_of):
    subject = model_of("phi")
    with pytest.raises(ValueError, match=r"is a weight, so nothing passes there .*: token_embedding, resid, attn_out"):
        cp.capture(subject, [Prompt("the cat")], roles=["mlp_value"])
