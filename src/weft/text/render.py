"""Conversations as tokens, and which of them a model is trained on.

Where a turn begins and ends is found by rendering the conversation up to it: the text of the first
``i`` messages with the assistant's header is the prompt of turn ``i``, and what the next rendering
adds is the turn. So any template works whose text only grows; no template has to be written for
training, and what is trained is exactly what the model has to say at inference: its content and the
token that ends the turn, never the header and never the line break after the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from weft.core.errors import ConfigError, DataError, TokenizerError, did_you_mean
from weft.text.chat import ChatTemplate, Message
from weft.text.guard import Encoded, Guard
from weft.text.tokenizer import Tokenizer

TrainOn = Literal["assistant", "last", "all"]


@dataclass(frozen=True)
class Rendered:
    """A conversation as tokens.

    Attributes:
        tokens: ids.
        mask: whether each token is a training target.
    """

    tokens: tuple[int, ...]
    mask: tuple[bool, ...]


class Renderer:
    """Render conversations with a tokenizer's chat template.

    Raises:
        TokenizerError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.chat_template is None:
            raise TokenizerError(
                f"{tokenizer.name} has no chat template",
                fix="add a chat_template.jinja to its folder, or use plain completion",
            )
        self._tokenizer = tokenizer
        self._template: ChatTemplate = tokenizer.chat_template
        self._guard = Guard(tokenizer)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[dict[str, Any]] | None = None,
        train_on: TrainOn = "assistant",
        variables: Mapping[str, Any] | None = None,
    ) -> Rendered:
        """Render a conversation to tokens and a loss mask.

        Special tokens inside messages are text (see ``weft.text.guard``).

        Args:
            messages: dicts with ``role`` and ``content``.
            add_generation_prompt: end with the assistant's header, to be continued by a model. The
                result is a prompt, so nothing in it is a target.
            tools: JSON schemas of callable functions.
            train_on: every assistant turn, the last one only, or all tokens.
            variables: further names that the template reads, such as ``enable_thinking``.

        Raises:
            DataError: no token is a target.
            TokenizerError: the template rewrites earlier turns, so a turn has no place of its own.
            RequestError: the template refuses the messages.
        """
        if train_on not in get_args(TrainOn):
            raise ConfigError(
                f"train_on is {train_on!r}", fix=did_you_mean(train_on, get_args(TrainOn))
            )
        conversation = _Conversation(self._guard, self._template, messages, tools, variables)
        text = conversation.text(len(messages), add_generation_prompt)
        encoded = conversation.cover.encode(text)
        if add_generation_prompt:
            return Rendered(encoded.ids, (False,) * len(encoded.ids))
        if train_on == "all":
            mask = [True] * len(encoded.ids)
        else:
            mask = [False] * len(encoded.ids)
            for index in _trained_turns(messages, train_on):
                self._mark(mask, encoded, conversation.turn_span(index, text))
        if not any(mask):
            roles = ", ".join(str(message.get("role")) for message in messages) or "none"
            raise DataError(
                f"the conversation has nothing to train on: train_on={train_on!r}, roles: {roles}",
                fix="give it an assistant message with content, or leave it out",
            )
        return Rendered(encoded.ids, tuple(mask))

    def _mark(self, mask: list[bool], encoded: Encoded, span: tuple[int, int]) -> None:
        """Mark the tokens inside a turn, up to its last end token if it has one."""
        start, end = span
        inside = [i for i, (a, b) in enumerate(encoded.spans) if start <= a and b <= end and a < b]
        eos_ids = self._tokenizer.eos_ids
        last = max((i for i in inside if encoded.ids[i] in eos_ids), default=None)
        for index in inside:
            if last is None or index <= last:
                mask[index] = True


class _Conversation:
    """One conversation, rendered up to any of its messages."""

    def __init__(
        self,
        guard: Guard,
        template: ChatTemplate,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None,
        variables: Mapping[str, Any] | None,
    ) -> None:
        self._template = template
        self.cover = guard.cover([list(messages), list(tools or ()), dict(variables or {})])
        self._messages = self.cover.hide(list(messages))
        self._tools = None if tools is None else self.cover.hide(list(tools))
        self._variables = self.cover.hide(dict(variables or {}))

    def text(self, num_messages: int, add_generation_prompt: bool) -> str:
        return self._template.render(
            self._messages[:num_messages],
            tools=self._tools,
            add_generation_prompt=add_generation_prompt,
            variables=self._variables,
        )

    def turn_span(self, index: int, text: str) -> tuple[int, int]:
        """Return the characters, in the restored text, that message ``index`` adds."""
        prompt = self.text(index, add_generation_prompt=True)
        until = self.text(index + 1, add_generation_prompt=False)
        if not (until.startswith(prompt) and text.startswith(until)):
            raise TokenizerError(
                f"{self._template.name} rewrites earlier text when messages follow, so the tokens "
                f"of message {index} are not those that a model is asked for",
                fix="train_on='last' with one example per assistant turn, or another template",
            )
        return len(self.cover.restore(prompt)), len(self.cover.restore(until))


def _trained_turns(messages: Sequence[Message], train_on: TrainOn) -> list[int]:
    turns = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
    return turns[-1:] if train_on == "last" else turns
