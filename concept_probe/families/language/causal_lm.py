"""Causal language models: Llama, GPT-2, GPT-NeoX, Gemma, Qwen, OLMo and whatever is built as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from concept_probe.families.language.chat import AS_USUAL, ChatFrame
from concept_probe.families.language.generate import TokenChoice, read_once, write
from concept_probe.families.language.layout import LmLayout, lm_layout
from concept_probe.families.language.likelihood import Continuations, LogProbs, ReadAnswer, TokenLogProbs, read_answers
from concept_probe.families.language.proof import prove, written_by
from concept_probe.families.language.reading import COMPONENT, LanguageModel, read_language_model
from concept_probe.families.language.sites import Write, WrittenSites
from concept_probe.families.language.tokens import Batch, Padding, Spelled, pad, spell
from concept_probe.families.progress import progress
from concept_probe.families.reading import Mismatch, ModelSource
from concept_probe.families.subject import SAMPLING, Subject
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.tokens import Tokens, TooLong, prompts_of, queries_of, refuse_unembedded
from concept_probe.registry import look_up
from concept_probe.types import Moment, Prompt, Query, Sampling, Site

TEXTS_WITHOUT_PROGRESS = 64


class CausalLMSubject(Subject[tuple[str, ...]]):
    """A causal language model. Answers are texts; every site is reached by reading prompts alone.

    >>> subject = load("smollm2")
    >>> subject.generate([Query(Prompt("What is the capital of France?", form="chat"))])
    ('The capital of France is Paris.',)
    """

    family = "causal_lm"
    answers = "texts"
    reads_forward = True

    def __init__(self, name: str, pipeline: LanguageModel, *, padding: Padding = "left") -> None:
        """Raises ValueError for a model that is built in another way, or a tokenizer without character offsets."""
        super().__init__(name, {COMPONENT: pipeline.model}, pipeline)
        look_up({"left": 0, "right": 0}, padding, "side of padding")
        if not getattr(pipeline.tokenizer, "is_fast", False):
            raise ValueError(
                f"{name}: {type(pipeline.tokenizer).__name__} does not say which characters a token spells; load the "
                "fast tokenizer (transformers.AutoTokenizer, with a tokenizer.json)"
            )
        self.padding: Padding = padding
        """Side on which shorter prompts are filled up; changes no result beyond rounding."""
        self.chat: ChatFrame = pipeline.chat
        self.layout: LmLayout = lm_layout(self.model)

    @classmethod
    def read(cls, source: ModelSource) -> tuple[LanguageModel, list[Mismatch]]:
        return read_language_model(source)

    @classmethod
    def adopt(cls, name: str, pipeline: LanguageModel) -> Self:
        return cls(name, pipeline)

    @property
    def model(self) -> Any:
        return self.components[COMPONENT]

    @property
    def tokenizer(self) -> Any:
        return self.pipeline.tokenizer

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    @cached_property
    def written(self) -> WrittenSites:
        """Its sites, and what each block writes into the residual stream, seen in one short pass when first asked for.

        Raises ValueError for a block that does anything else with its stream.
        """
        with self.pristine():
            return WrittenSites(self.layout, written_by(self.model, self.layout, self.tokenizer, self._fill))

    def stamp(self) -> tuple[object, ...]:
        return (*super().stamp(), repr(self.chat), self.padding)

    def conventions(self) -> dict[str, Any]:
        return {} if self.chat == AS_USUAL else {"chat": asdict(self.chat)}

    def check_by_running(self) -> None:
        self.written = WrittenSites(self.layout, prove(self.name, self.model, self.layout, self.tokenizer, self._fill))

    def scale(self, site: Site) -> float:
        return self.written.scale(site)

    def write_of(self, site: Site) -> Write:
        """How what the down projection at `site`, of role `mlp_value`, gives is written into the stream."""
        return self.written.write_of(site)

    def roles(self) -> tuple[str, ...]:
        return tuple(self.written.roles)

    def sites(self, role: str) -> tuple[Site, ...]:
        return look_up(self.written.roles, role, "role", f"{self.name} is of family {self.family!r}")

    def axis(self, site: Site) -> Literal["token", "patch"]:
        return "token"

    def is_text(self, site: Site) -> bool:
        return True

    @property
    def tied(self) -> bool:
        """Whether the unembedding is the token embedding: one tensor in two places, so that an edit moves both."""
        head, embedding = (get().weight for get in (self.model.get_output_embeddings, self.model.get_input_embeddings))
        return head.untyped_storage().data_ptr() == embedding.untyped_storage().data_ptr()

    @property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the unembedding."""
        return self.model.get_submodule(self.layout.norm)

    @property
    def length(self) -> int | None:
        """How many tokens it can read at most; None where its configuration does not say."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @property
    def ends(self) -> frozenset[int]:
        """Token ids that end a text."""
        stated = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        stated = stated if isinstance(stated, list | tuple) else [stated]
        return frozenset(e for e in (*stated, self.tokenizer.eos_token_id) if e is not None)

    def tokenise(self, prompts: Sequence[Prompt]) -> Tokens:
        """Token ids and kinds (n, t), filled up to the longest on the side `padding`.

        Raises ValueError for a subject that is not in its text or a prompt without a token, TooLong for one too long to
        read.
        """
        return self._batch([self._spell(p) for p in prompts_of(prompts)]).tokens()

    def encode(self, prompts: Sequence[Prompt], *, batch: int = 64) -> Conditioning:
        """What the unembedding reads: states (n, t, d) after the final norm, zero where only padding is.

        Differentiable: gradients reach whatever a tap puts in.
        """
        spelled = [self._spell(p) for p in prompts_of(prompts)]
        if not spelled:
            raise ValueError("there is no prompt to encode")
        whole = self._batch(spelled)
        states: list[Tensor] = []
        seen: list[Any] = []
        (site,) = self.sites("text_out")
        # Entered after every tap, so it sees what they leave.
        handle = self.module(site).register_forward_hook(lambda _m, _i, out: seen.append(out))  # pyright: ignore[reportArgumentType]
        try:
            for rows, part in whole.parts(batch):
                with self.during(self._moment(rows, part)), self.stop_after([site]):
                    read_once(self.model, part)
                states.append(seen.pop() * part.mask[..., None].to(self.dtype))
        finally:
            handle.remove()
        return Conditioning(torch.cat(states), None, whole.kinds)

    def next_logits(self, prompts: Sequence[Prompt], *, batch: int = 16, every: bool = False) -> Tensor:
        """Logits (n, v) of the token that follows each prompt, or `every` token of each, (m, v). Differentiable."""
        whole, out = self._batch([self._spell(p) for p in prompts_of(prompts)]), []
        for rows, part in whole.parts(batch):
            with self.during(self._moment(rows, part)):
                out.append(
                    read_once(self.model, part)[part.mask == 1] if every else read_once(self.model, part, part.last)
                )
        if not out:
            raise ValueError("there is no prompt to read")
        return torch.cat(out)

    def log_probs(self, pairs: Sequence[tuple[Prompt, str]], *, batch: int = 16) -> LogProbs:
        """How likely each text is as the continuation of its prompt, all its tokens together. Differentiable.

        A continuation is spelled together with its prompt: one of a plain prompt usually begins with a space. In a
        moment, `prompts` are places in `pairs`; a prompt that several of them share is read once, under the first.
        Raises ValueError for a continuation without a token.
        """
        total, counts = {}, {}
        for i, read in self._read_answers(pairs, batch):
            total[i], counts[i] = read.total, len(read.ids)
        sums = torch.stack([total[i] for i in range(len(total))]) if total else torch.zeros(0, device=self.device)
        tokens = torch.tensor([counts[i] for i in range(len(counts))], dtype=torch.long, device=self.device)
        return LogProbs(sums, tokens)

    def token_log_probs(self, pairs: Sequence[tuple[Prompt, str]], *, batch: int = 16) -> TokenLogProbs:
        """What is likely in the place of each token of each text, as the continuation of its prompt. Differentiable.

        As `log_probs`, which adds up those of the texts' own tokens.
        """
        return TokenLogProbs.of(dict(self._read_answers(pairs, batch)))

    def spelled_after(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """Tokens that `text` adds to the prompt when both are spelled together. ValueError where it adds none."""
        return _added(self._spell(prompt, text), prompt, text)

    def _read_answers(self, pairs: Sequence[tuple[Prompt, str]], batch: int) -> Iterator[tuple[int, ReadAnswer]]:
        """What was read of each pair, with its place in `pairs`, in any order."""
        prompts = prompts_of([prompt for prompt, _ in pairs])
        spelled = [self._spell(prompt, text) for prompt, (_, text) in zip(prompts, pairs, strict=True)]
        for each, pair in zip(spelled, pairs, strict=True):
            _added(each, *pair)
        # A prompt is read once for all its continuations; alike lengths stand side by side, with less padding to read.
        sharing: dict[Spelled, list[int]] = {}
        for i, spelt in enumerate(spelled):
            sharing.setdefault(spelt.part(0, spelt.prompt), []).append(i)
        prefixes = sorted(sharing, key=lambda s: len(s.ids))
        for start in range(0, len(prefixes), batch):
            chosen = prefixes[start : start + batch]
            rows = [(r, i) for r, prefix in enumerate(chosen) for i in sharing[prefix]]
            ends = [spelled[i].part(spelled[i].prompt) for _, i in rows]
            asked = Continuations([r for r, _ in rows], [i for _, i in rows], ends, self._fill)
            read = read_answers(self.model, self._batch(chosen), asked, lambda r, b: self.during(self._moment(r, b)))
            yield from zip(asked.queries, read, strict=True)

    def generate(self, queries: Sequence[Query], sampling: Sampling = SAMPLING) -> tuple[str, ...]:
        """What it writes after each prompt, at most `sampling.tokens` tokens, without marks; no gradients.

        At temperature 0 the likeliest token each time; else a query's draws come from its seed alone. In a moment,
        `step` is how many tokens were written before; it is None while the prompt is read.
        """
        queries = queries_of(queries)
        spelled = [self._spell(q.prompt, more=sampling.tokens) for q in queries]
        texts: list[str] = []
        with torch.no_grad(), progress("texts", len(queries) if len(queries) > TEXTS_WITHOUT_PROGRESS else 0) as done:
            for start in range(0, len(queries), sampling.batch):
                rows = range(start, min(start + sampling.batch, len(queries)))
                choose = TokenChoice([queries[i].seed for i in rows], sampling.temperature)
                batch = self._batch([spelled[i] for i in rows])
                written = write(
                    self.model, batch, choose, tokens=sampling.tokens, ends=self.ends,
                    step=lambda k, kinds, places, rows=rows: self.during(
                        Moment(tuple(rows), ("cond",) * len(rows), k or None, token_kinds=kinds, places=places)
                    ),
                )  # fmt: skip
                texts += [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
                done(len(rows))
        return tuple(texts)

    def run_to(
        self,
        sites: Sequence[Site],
        queries: Sequence[Query],
        sampling: Sampling = SAMPLING,
        steps: Sequence[int] | None = None,
    ) -> None:
        """Read the prompts of one batch until `sites` have been met. Nothing is written, so there are no steps."""
        prompts = [q.prompt for q in queries_of(queries)]
        batch = self._batch([self._spell(p) for p in prompts])
        with torch.no_grad(), self.during(self._moment(range(len(prompts)), batch)), self.stop_after(sites):
            read_once(self.model, batch)

    def _moment(self, rows: Sequence[int], batch: Batch) -> Moment:
        return Moment(tuple(rows), ("cond",) * len(rows), token_kinds=batch.kinds, places=batch.places)

    def _spell(self, prompt: Prompt, continuation: str = "", more: int = 0) -> Spelled:
        out = spell(self.tokenizer, prompt, continuation, self.chat)
        refuse_unembedded(out.ids, self.tokenizer, self.model)
        if self.length is not None and len(out.ids) + more > self.length:
            follows = f" and {more} to be written" if more else ""
            raise TooLong(
                f"prompt {prompt.text[:60]!r} has {len(out.ids)} tokens{follows}, and {self.name} reads at most "
                f"{self.length}; shorten it"
            )
        return out

    def _batch(self, rows: Sequence[Spelled]) -> Batch:
        return pad(rows, self._fill, self.padding, self.device)

    @property
    def _fill(self) -> int:
        """The token that fills a batch up."""
        fill = self.tokenizer.pad_token_id
        return fill if fill is not None else min(self.ends, default=0)


def _added(spelled: Spelled, prompt: Prompt, text: str) -> tuple[int, ...]:
    if len(spelled.ids) == spelled.prompt:
        raise ValueError(f"the continuation {text!r} of {prompt.text!r} has no token of its own")
    return spelled.ids[spelled.prompt :]
