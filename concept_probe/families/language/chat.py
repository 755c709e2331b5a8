"""What a chat template puts around a user's words: its options, a system turn, and what it refuses, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

PLACEHOLDER = "{the user's text}"
THINKING = "enable_thinking"
"""The option by which templates of models that think before they answer are told not to."""
TEMPLATE_ERRORS = (
    jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip
"""What a template may raise: it is a program of its own."""


@dataclass(frozen=True)
class ChatFrame:
    """How a prompt of form `chat` is put.

    >>> subject.chat = ChatFrame(system="Answer in one word.")
    >>> subject.chat = ChatFrame({"enable_thinking": True})
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the template. Where it knows `enable_thinking`, that is False unless it is given here: a model that
    thinks first gives no answer within few tokens."""
    system: str | None = None
    """A system turn before the user's."""

    def around(self, tokenizer: Any, text: str) -> tuple[str, str]:
        """What stands before and after a user's words `text`.

        Raises ValueError for a tokenizer without a template, a template that does not repeat what it is given, repeats it
        twice or refuses it, and an option that it does not know.
        """
        template = getattr(tokenizer, "chat_template", None)
        if not template:
            raise ValueError(
                f"the tokenizer has no chat template, so {text!r} can't be put as a user's turn; ask it in form 'plain'"
            )
        known = _names_in(template)
        if known is not None and (unknown := sorted(set(self.options) - known)):
            raise ValueError(
                f"the chat template knows no option {', '.join(map(repr, unknown))}; it asks for {', '.join(sorted(known))}"
            )
        usual = {THINKING: False} if known is not None and THINKING in known else {}
        turns = [{"role": "system", "content": self.system}] if self.system is not None else []
        turns.append({"role": "user", "content": PLACEHOLDER})
        try:
            whole = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, **{**usual, **self.options}
            )
        except TEMPLATE_ERRORS as problem:
            said = "a user's turn" if self.system is None else "a system turn and a user's"
            mend = (
                "give a system turn (`subject.chat = ChatFrame(system=...)`)" if self.system is None else "leave it out"
            )
            raise ValueError(
                f"the tokenizer's chat template refuses {said}: {problem}; {mend}, or ask in form 'plain'"
            ) from problem
        before, found, after = whole.partition(PLACEHOLDER)
        if not found:
            raise ValueError(
                "the tokenizer's chat template does not repeat what the user says, so no prompt fits into it"
            )
        if PLACEHOLDER in after:
            raise ValueError(
                f"the tokenizer's chat template says the user's text {whole.count(PLACEHOLDER)} times, and a prompt is put "
                "into one place; ask it in form 'plain'"
            )
        if self.system is not None and self.system.strip() not in before:
            raise ValueError("the tokenizer's chat template leaves the system turn out; give none")
        return before, after


AS_USUAL = ChatFrame()


def _names_in(template: Any) -> set[str] | None:
    """Names that a template asks for, of several the default one; None for one that is read in another way."""
    template = template.get("default") if isinstance(template, Mapping) else template
    if not isinstance(template, str):
        return None
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols", "jinja2.ext.do"])
    plain = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)  # marks of transformers' own, which print nothing
    try:
        return set(meta.find_undeclared_variables(environment.parse(plain)))
    except jinja2.TemplateError:
        return None
