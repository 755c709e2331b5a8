"""Chat templates: their options, a system turn, and what they refuse."""

from __future__ import annotations

import pytest

from concept_probe.families import ChatFrame, LanguageModel, adopt
from concept_probe.testing.models.language import tiny_llama
from concept_probe.types import Prompt

TURNS = "{% for m in messages %}<start>{{ m['role'] }}: {{ m['content'] }}<end>{% endfor %}"
THINKS = TURNS + "{% if enable_thinking is defined and not enable_thinking %}(no thought){% endif %}"
THINKS_UNLESS_TOLD = (
    "{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}{% generation %}"
    + TURNS + "{% endgeneration %}{%- if not enable_thinking -%}(no thought){%- endif -%}"
)  # fmt: skip
NEEDS_SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('say who you are') }}{% endif %}" + TURNS
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + TURNS
DROPS_SYSTEM = "<start>user: {{ messages[-1]['content'] }}<end>"
PLAIN = ChatFrame()
PROMPT = Prompt("the cat", "cat", form="chat")


@pytest.fixture(scope="module")
def subject():
    return tiny_llama()


def read(subject, template: str | dict[str, str], chat: ChatFrame = PLAIN) -> str:
    subject.tokenizer.chat_template, subject.chat = template, chat
    return subject.tokenizer.decode(subject.tokenise([PROMPT]).ids[0][0])


@pytest.mark.parametrize("template", [THINKS, THINKS_UNLESS_TOLD])
def test_a_model_that_can_think_first_is_told_not_to_unless_asked(subject, template):
    assert read(subject, template).endswith("(no thought)")
    assert "thought" not in read(subject, template, ChatFrame({"enable_thinking": True}))
    assert read(subject, TURNS) == "<start>user: the cat<end>"


def test_of_several_templates_the_default_one_is_told(subject):
    assert read(subject, {"default": THINKS, "rag": TURNS}).endswith("(no thought)")


def test_a_system_turn_stands_before_the_users(subject):
    told = ChatFrame(system="Be brief.")
    assert read(subject, NEEDS_SYSTEM, told) == "<start>system: Be brief.<end><start>user: the cat<end>"
    kinds = subject.tokenise([PROMPT]).kinds[0]
    assert (kinds == 2).sum() == 1  # the subject's token, and none of the frame's
    assert subject.conventions() == {"chat": {"options": {}, "system": "Be brief."}}
    before = subject.stamp()
    subject.chat = ChatFrame(system="Be long.")
    assert subject.stamp() != before
    again = adopt(LanguageModel(subject.model, subject.tokenizer, told), "again")
    read_again, read_otherwise = (one.tokenise([PROMPT]).ids[0].tolist() for one in (again, subject))
    assert read_again != read_otherwise
    subject.chat = told
    assert read_again == subject.tokenise([PROMPT]).ids[0].tolist()


@pytest.mark.parametrize(
    ("template", "chat", "why"),
    [
        (NEEDS_SYSTEM, ChatFrame(), r"refuses a user's turn: say who you are; give a system turn"),
        (NO_SYSTEM, ChatFrame(system="x"), r"refuses a system turn and a user's: no system turns; leave it out"),
        (DROPS_SYSTEM, ChatFrame(system="Be brief."), "leaves the system turn out"),
        (
            THINKS,
            ChatFrame({"enable_thinkin": False}),
            r"knows no option 'enable_thinkin'; it asks for enable_thinking",
        ),
        ("hello", ChatFrame(), "does not repeat what the user says"),
        (TURNS + TURNS, ChatFrame(), "says the user's text 2 times, and a prompt is put into one place"),
        ("{{ 1 / 0 }}" + TURNS, ChatFrame(), "refuses a user's turn: division by zero"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", ChatFrame(), "refuses a user's turn"),
        ("{% if %}", ChatFrame(), "refuses a user's turn: .*or ask in form 'plain'"),
    ],
)
def test_what_a_template_can_not_do_is_said(subject, template, chat, why):
    with pytest.raises(ValueError, match=why):
        read(subject, template, chat)
