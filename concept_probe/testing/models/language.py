"""Tiny random language models: real classes of six layouts, random weights, one byte-level tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from concept_probe.families import CausalLMSubject, LanguageModel, adopt

LM_WIDTH, LM_HIDDEN, LM_LAYERS, LM_LENGTH = 16, 40, 2, 64
LM_WORDS = ("cat", "dog", "the", "sun", "red")
TEMPLATE = (
    "{% for m in messages %}<start>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>model\n{% endif %}"
)


def lm_tokenizer(*, begins: str | None = None, pads: str | None = None, chat: str | None = None) -> Any:
    """Spells every byte; words of LM_WORDS with the space before them are one token. `begins` opens each text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = []
    for word in LM_WORDS:
        pieces = ["Ġ", *word]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    merges = list(dict.fromkeys(merges))
    special = ["<s>", "</s>", "<pad>", "<start>", "<end>"]
    vocabulary = {p: i for i, p in enumerate([*alphabet, *(a + b for a, b in merges), *special])}
    made: Any = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special)
    if begins is not None:
        made.post_processor = processors.TemplateProcessing(
            single=f"{begins} $A", pair=None, special_tokens=[(begins, vocabulary[begins])]
        )
    out = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token=pads)
    out.chat_template = chat
    return out


def _build(kind: Any, config: Any, seed: int, **words: Any) -> CausalLMSubject:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
        for parameter in model.parameters():  # the libraries' small initial weights leave every logit alike
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    return adopt(LanguageModel(model, lm_tokenizer(**words)), f"tiny-{config.model_type}-{seed}")


def _sizes(**more: Any) -> dict[str, Any]:
    words = lm_tokenizer()
    return {
        "vocab_size": len(words), "hidden_size": LM_WIDTH, "intermediate_size": LM_HIDDEN,
        "num_hidden_layers": LM_LAYERS, "num_attention_heads": 2, "max_position_embeddings": LM_LENGTH,
        "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": None, **more,
    }  # fmt: skip


def tiny_llama(seed: int = 0) -> CausalLMSubject:
    """Gated feed-forward, RMS norm, grouped queries, untied; a begin mark, a pad token and a chat template."""
    config = LlamaConfig(**_sizes(num_key_value_heads=1, tie_word_embeddings=False))
    return _build(LlamaForCausalLM, config, seed, begins="<s>", pads="<pad>", chat=TEMPLATE)


def tiny_gpt2(seed: int = 0) -> CausalLMSubject:
    """Transposed matrices with biases, layer norm, learned positions, tied; no begin mark, no pad token."""
    sizes = _sizes()
    config = GPT2Config(
        vocab_size=sizes["vocab_size"], n_embd=LM_WIDTH, n_inner=LM_HIDDEN, n_layer=LM_LAYERS, n_head=2,
        n_positions=LM_LENGTH, bos_token_id=sizes["bos_token_id"], eos_token_id=sizes["eos_token_id"],
    )  # fmt: skip
    return _build(GPT2LMHeadModel, config, seed)


def tiny_neox(seed: int = 0) -> CausalLMSubject:
    """Attention and feed-forward side by side, fused queries, rotary share, untied."""
    return _build(GPTNeoXForCausalLM, GPTNeoXConfig(**_sizes(tie_word_embeddings=False)), seed)


def tiny_gemma(seed: int = 0) -> CausalLMSubject:
    """Heads wider than the model over their number, norm with 1 + weight, scaled embeddings, tied."""
    config = GemmaConfig(**_sizes(num_key_value_heads=1, head_dim=12, tie_word_embeddings=True))
    return _build(GemmaForCausalLM, config, seed, begins="<s>", pads="<pad>", chat=TEMPLATE)


def tiny_qwen2(seed: int = 0) -> CausalLMSubject:
    """As Llama, with biases on queries, keys and values, tied; no begin mark."""
    config = Qwen2Config(**_sizes(num_key_value_heads=2, tie_word_embeddings=True))
    return _build(Qwen2ForCausalLM, config, seed, pads="<pad>", chat=TEMPLATE)


def tiny_olmo(seed: int = 0) -> CausalLMSubject:
    """Layer norm without weights, untied."""
    config = OlmoConfig(**_sizes(num_key_value_heads=2, tie_word_embeddings=False))
    return _build(OlmoForCausalLM, config, seed)


LANGUAGE: dict[str, Callable[..., CausalLMSubject]] = {
    "llama": tiny_llama,
    "gpt2": tiny_gpt2,
    "neox": tiny_neox,
    "gemma": tiny_gemma,
    "qwen2": tiny_qwen2,
    "olmo": tiny_olmo,
}
