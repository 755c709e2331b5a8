"""Language models that can't be read as others are: refused at the door, with what was found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from concept_probe.families import LanguageModel, adopt
from concept_probe.testing.models.language import _sizes, lm_tokenizer

WORDS = lm_tokenizer(begins="<s>", pads="<pad>")
SIZES = _sizes(num_key_value_heads=2, tie_word_embeddings=False)
EXPERTS = SIZES | {"num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 24}
SHARED = EXPERTS | {
    "n_routed_experts": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": None,
    "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip
GLM = {k: v for k, v in SHARED.items() if "lora" not in k and "qk_" not in k and k != "v_head_dim"} | {"head_dim": 8}
SMALL = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2}
BERT = SMALL | {"num_attention_heads": 2, "intermediate_size": 40, "is_decoder": True}
OPT = SMALL | {"num_attention_heads": 2, "ffn_dim": 40, "word_embed_proj_dim": 16}
RECURRENT = SIZES | {"lru_width": 16, "attention_window_size": 4, "num_hidden_layers": 3, "head_dim": 8}
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "mixtral": (hf.MixtralConfig, EXPERTS, r"block 'model.layers.0' .* is a mixture of experts \(at 'mlp'\)"),
    "qwen2 moe": (
        hf.Qwen2MoeConfig, EXPERTS | {"num_experts": 2, "shared_expert_intermediate_size": 24},
        r"is a mixture of experts \(at 'mlp'\)",
    ),
    "deepseek v3": (hf.DeepseekV3Config, SHARED, r"block 'model.layers.1' .* is a mixture of experts \(at 'mlp'\)"),
    "glm4 moe": (hf.Glm4MoeConfig, GLM, r"block 'model.layers.1' .* is a mixture of experts \(at 'mlp'\)"),
    "opt": (hf.OPTConfig, OPT, r"'model.decoder.layers.0.fc2' gives .* where the stream has three axes"),
    "bloom": (
        hf.BloomConfig, {"vocab_size": len(WORDS), "hidden_size": 16, "n_layer": 2, "n_head": 2},
        r"block 'transformer.h.0' .* gives its feed-forward 'mlp' more than one tensor \(hidden_states, residual\)",
    ),
    "mpt": (
        hf.MptConfig, {"vocab_size": len(WORDS), "d_model": 16, "n_layers": 2, "n_heads": 2},
        r"gives its feed-forward 'ffn' more than one tensor \(hidden_states, residual\)",
    ),
    "mamba": (hf.MambaConfig, SMALL | {"state_size": 4}, r"has no feed-forward.*Found in it: norm .*, mixer \(Mamba"),
    "rwkv": (hf.RwkvConfig, SMALL | {"intermediate_size": 40}, r"gives its feed-forward 'feed_forward' more than one tensor"),
    "bert": (hf.BertConfig, BERT, r"has no feed-forward.*intermediate \(BertIntermediate of 1 matrices\)"),
    "recurrent gemma": (hf.RecurrentGemmaConfig, RECURRENT, r"filling a batch up on the left changes its logits by \d+%"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_was_found_in_the_block_is_said(name):
    kind, sizes, why = REFUSED[name]
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(kind(**sizes))
    for p in model.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.3)
    with pytest.raises(ValueError, match=why) as refusal:
        adopt(LanguageModel(model, WORDS), name)
    experts = "mixture" in why
    assert ("mixture of experts" in str(refusal.value)) == experts and type(model).__name__ in str(refusal.value)


class Odd(nn.Module):
    """A block's part put through something that its sites don't show."""

    def __init__(self, inner: nn.Module, change: Any) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(self.inner(x))


def llama() -> Any:
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES))
    for p in model.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.3)
    return model


def test_a_feed_forward_that_gives_more_than_its_last_matrix_is_refused():
    model = llama()
    model.model.layers[1].mlp = Odd(model.model.layers[1].mlp, torch.tanh)
    with pytest.raises(ValueError, match=r"'model.layers.1.mlp' \(Odd\) gives is not what its last matrix"):
        adopt(LanguageModel(model, WORDS), "odd")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda x: x + 0.1 * x.roll(1, -1), r"'model.layers.0' .* is not its stream and what .* add to it: \d"),
        (lambda x: 0.5 * x, r"multiplies its whole stream by 0\.5"),
    ],
)
def test_a_stream_that_gets_more_than_attention_and_feed_forward_write_is_refused(change, why):
    model = llama()
    plain = type(model.model.layers[0])

    class Other(plain):
        def forward(self, *given: Any, **more: Any) -> Any:
            return change(super().forward(*given, **more))

    model.model.layers[0].__class__ = Other
    with pytest.raises(ValueError, match=why):
        adopt(LanguageModel(model, WORDS), "odd")


def test_what_is_done_to_the_stream_between_blocks_or_behind_them_is_refused():
    model = llama()
    block = model.model.layers[1]
    block.register_forward_pre_hook(lambda m, args: (args[0] + 0.1 * args[0].roll(1, -1), *args[1:]), prepend=True)
    with pytest.raises(ValueError, match=r"what 'model.layers.0' gives is not what 'model.layers.1' reads"):
        adopt(LanguageModel(model, WORDS), "odd")
    model = llama()
    model.lm_head.register_forward_pre_hook(lambda m, args: (args[0].roll(1, -1),))
    with pytest.raises(ValueError, match=r"between the final norm 'model\.norm' and the unembedding 'lm_head'"):
        adopt(LanguageModel(model, WORDS), "odd")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_of_smaller_dtypes_is_no_fault(dtype):
    for kind in (hf.Gemma2Config, hf.LlamaConfig):
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(kind(**SIZES))
        for p in model.parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=0.3)
        subject = adopt(LanguageModel(model.to(dtype), WORDS), "half")
        assert all(w.mlp.scale == w.attention.scale == 1 for w in subject.written.writes)
