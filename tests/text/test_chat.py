from __future__ import annotations

import pytest

from tests.text import templates
from weft.core.errors import RequestError, TokenizerError
from weft.text.chat import CHATML, ChatTemplate

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi\n"},
    {"role": "assistant", "content": "Hello.", "tool_calls": None},
]


def test_chatml_text():
    assert ChatTemplate(CHATML).render(TALK) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi\n<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
    )


def test_generation_prompt_opens_an_assistant_turn():
    text = ChatTemplate(CHATML).render(TALK[:1], add_generation_prompt=True)
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_special_tokens_and_variables_reach_the_template():
    template = ChatTemplate("{{ bos_token }}{{ mood }}", special_tokens={"bos_token": "<s>"})
    assert template.render([], variables={"mood": "calm"}) == "<s>calm"


def test_refusal_by_the_template_carries_its_message():
    template = ChatTemplate(templates.LLAMA3, special_tokens={"bos_token": ""})
    with pytest.raises(RequestError, match="unknown role: critic") as caught:
        template.render([{"role": "critic", "content": "no"}])
    assert caught.value.param == "messages"


@pytest.mark.parametrize("messages", [[{"role": "user"}], [{"role": "user", "content": 3}]])
def test_message_that_the_template_cannot_use_is_refused(messages):
    with pytest.raises(RequestError, match="the chat template"):
        ChatTemplate(CHATML).render(messages)


def test_message_that_is_no_object_is_refused():
    with pytest.raises(RequestError, match="a message is a str"):
        ChatTemplate(CHATML).render(["hi"])  # type: ignore[list-item]


def test_broken_template_names_the_line():
    with pytest.raises(TokenizerError, match=r"not valid Jinja2.*line 2"):
        ChatTemplate("\n{% if %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% set _ = messages.append(1) %}",
        "{% set n = namespace() %}{% set n.__class__ = 1 %}",
        "{{ namespace(_x=1) }}",
        "{{ dict.__class__.__bases__[0].__subclasses__() }}",
    ],
)
def test_template_cannot_leave_the_sandbox(source):
    with pytest.raises((TokenizerError, RequestError)):
        ChatTemplate(source).render(TALK)


def test_objects_with_methods_never_reach_the_template():
    with pytest.raises(RequestError, match=r"messages\[0\]\.content is a bytes"):
        ChatTemplate(CHATML).render([{"role": "user", "content": b"x"}])


def test_rendering_leaves_the_messages_alone():
    messages = [{"role": "user", "content": "x", "name": None}]
    ChatTemplate(CHATML).render(messages)
    assert messages == [{"role": "user", "content": "x", "name": None}]


def test_reasoning_is_found_under_any_of_its_names():
    template = ChatTemplate("{{ messages[0].reasoning_content }}")
    for key in ("reasoning_content", "reasoning", "thinking"):
        assert template.render([{"role": "assistant", "content": "", key: "hm"}]) == "hm"


def test_generation_blocks_render_their_body():
    source = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert ChatTemplate(source).render(TALK) == "Be brief.Hi\nHello."


def test_two_templates_do_not_share_state():
    first, second = ChatTemplate("{% set x = 1 %}{{ x }}"), ChatTemplate("{{ x is defined }}")
    assert (first.render([]), second.render([])) == ("1", "False")
