"""Chat templates: conversations as text, rendered by Jinja2 in a sandbox.

A template comes with a model, so it is untrusted code. It sees plain JSON values only, runs in an
immutable sandbox, and has exactly the helpers that Hugging Face transformers gives to templates, so
that the same template gives the same text in both.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from weft.core.errors import RequestError, TokenizerError

Message = dict[str, Any]

CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""The template that tokenizers trained here get."""

# Names under which clients send a model's reasoning; templates read the first one.
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: the Jinja2 text.
        special_tokens: variables such as ``bos_token`` that templates may use.
        name: where the template is from, for messages.

    Raises:
        TokenizerError: the source is not valid Jinja2.
    """

    def __init__(
        self,
        source: str,
        *,
        special_tokens: Mapping[str, str] | None = None,
        name: str = "the chat template",
    ) -> None:
        self.source = source
        self.name = name
        self.special_tokens = dict(special_tokens or {})
        try:
            self._template = _environment().from_string(source)
        except TemplateSyntaxError as error:
            raise TokenizerError(
                f"{name} is not valid Jinja2: {error.message} (line {error.lineno})",
                fix="correct chat_template.jinja, or remove it to use no template",
            ) from error

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Render a conversation.

        Args:
            messages: dicts with ``role`` and mostly ``content``; keys whose value is None are
                dropped.
            tools: JSON schemas of callable functions.
            add_generation_prompt: end with the header of an assistant message.
            variables: further names that the template may read, such as ``enable_thinking``.

        Raises:
            RequestError: the template refuses the conversation, or cannot work with it.
            TokenizerError: the template tries to leave the sandbox.
        """
        values = {
            **self.special_tokens,
            **_plain(dict(variables or {}), "variables"),
            "messages": [_prepared(_plain(m, f"messages[{i}]")) for i, m in enumerate(messages)],
            "tools": None if tools is None else _plain(list(tools), "tools"),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._template.render(values)
        except SecurityError as error:
            raise TokenizerError(
                f"{self.name} does something that templates must not do: {error}",
                fix="use a chat template that you trust",
            ) from error
        except TemplateError as error:
            raise RequestError(
                f"{self.name} refuses the messages: {error}",
                fix="change the roles or contents of the messages",
                param="messages",
            ) from error
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
            raise RequestError(
                f"{self.name} cannot render the messages: {type(error).__name__}: {error}",
                fix="each message needs a role and a text content",
                param="messages",
            ) from error


def _prepared(message: Any) -> Message:
    """Drop empty keys and offer the reasoning under the name that templates read."""
    if not isinstance(message, dict):
        raise RequestError(
            f"a message is a {type(message).__name__}; it must be an object with role and content",
            fix='write {"role": "user", "content": "..."}',
            param="messages",
        )
    message = {key: value for key, value in message.items() if value is not None}
    reasoning = next((message[key] for key in _REASONING_KEYS if key in message), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _plain(value: Any, where: str) -> Any:
    """Copy a JSON value; refuse objects, whose methods a template could call."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):  # an enum's member, say
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise RequestError(
        f"{where} is a {type(value).__name__}; chat templates take JSON values only",
        fix="pass text, numbers, lists and objects",
        param=where.partition(".")[0].partition("[")[0],
    )


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    names: dict[str, Any] = {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "namespace": _SafeNamespace,
        "dict": _Dict(),
    }
    environment.globals.update(names)
    return environment


class _GenerationBlock(Extension):
    """``{% generation %}…{% endgeneration %}`` renders its body; loss masks do not rely on it."""

    tags = {"generation"}  # noqa: RUF012 - Jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Dict:
    """``dict(...)`` without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


class _SafeNamespace(Namespace):
    """A ``namespace`` that refuses names which lead into Python's internals."""

    # Without a named first parameter, a template may have a variable called ``self``.
    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"the namespace attribute {name!r} starts with an underscore")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON without HTML escapes, unlike Jinja2's own filter."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
