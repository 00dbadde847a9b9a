"""Text, token ids and conversations become prompt tokens, or a refusal that shows the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool

from weft.core.errors import ContextLengthError, RequestError, UnsupportedError
from weft.serve.backend import Tokenizer
from weft.serve.messages import MessageBody
from weft.text.parsers.reasoning import starts_inside

Prompt = tuple[int, ...]
CompletionPrompt = str | list[str] | list[int] | list[list[int]]


class Rendered(Protocol):
    """A conversation as tokens."""

    @property
    def tokens(self) -> Sequence[int]: ...


class Renderer(Protocol):
    """Renders a conversation the way the model was trained on it."""

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        add_generation_prompt: bool,
        tools: Sequence[dict[str, Any]] | None,
        variables: Mapping[str, Any] | None,
    ) -> Rendered: ...


class PromptReader:
    """Tokenizes prompts off the event loop, so that a long text delays nobody's stream."""

    def __init__(
        self, tokenizer: Tokenizer, *, max_context: int, renderer: Renderer | None
    ) -> None:
        self.max_context = max_context
        self._tokenizer = tokenizer
        self._renderer = renderer

    @property
    def can_chat(self) -> bool:
        return self._renderer is not None

    async def completion(self, prompt: CompletionPrompt) -> list[Prompt]:
        """Return one token tuple per prompt of a completion request."""
        prompts = await run_in_threadpool(self._read, prompt)
        for tokens in prompts:
            self.check_tokens(tokens)
        return prompts

    def opens_reasoning(self, prompt: Prompt) -> bool:
        """Return whether a conversation's prompt ends with the tag that opens the thoughts."""
        # A few tokens hold the tag and the line break behind it.
        return starts_inside(self._tokenizer.decode(prompt[-16:], skip_special=False))

    async def text(self, text: str) -> Prompt:
        """Return the tokens of a text, which may be empty."""
        return await run_in_threadpool(self.tokens, text)

    def tokens(self, text: str) -> Prompt:
        """Return the tokens of a text and what the tokenizer puts around it, such as BOS."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=True))

    async def chat(
        self,
        messages: Sequence[MessageBody],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """Return the tokens of a conversation, ending where the assistant begins to speak."""
        if not messages:
            raise RequestError(
                "messages is empty", fix="send at least one message", param="messages"
            )
        plain = [message.plain() for message in messages]
        tokens = tuple(await run_in_threadpool(self._render, plain, tools, variables))
        self.check_tokens(tokens, param="messages")
        return tokens

    def check_tokens(self, tokens: Sequence[int], *, param: str = "prompt") -> None:
        """Refuse an empty prompt and ids outside the vocabulary."""
        if not tokens:
            raise RequestError(f"{param} has no tokens", fix="send at least one", param=param)
        size = self._tokenizer.vocab_size
        for token in tokens:
            if not 0 <= token < size:
                raise RequestError(
                    f"token id {token} is outside the vocabulary",
                    fix=f"ids are 0 to {size - 1}",
                    param=param,
                )

    def check_fit(self, tokens: Prompt, num_asked: int | None, *, param: str) -> None:
        """Refuse a prompt that leaves no room for the tokens asked for; unasked, for one.

        Raises:
            ContextLengthError: with the prompt's length, the wanted length and the limit.
        """
        limit, length = self.max_context, len(tokens)
        wanted = 1 if num_asked is None else num_asked
        if length + wanted <= limit:
            return
        message = (
            f"the context length is {limit} tokens, but the prompt has {length} tokens and "
            f"{wanted} more were asked for ({length + wanted} in total)"
        )
        room = limit - length
        fix = (
            f"shorten the prompt to {limit - wanted} tokens or lower max_tokens to {room}"
            if room > 0
            else f"shorten the prompt by at least {1 - room} tokens"
        )
        raise ContextLengthError(message, fix=fix, param=param)

    def _read(self, prompt: CompletionPrompt) -> list[Prompt]:
        if isinstance(prompt, str):
            return [self.tokens(prompt)]
        texts = [item for item in prompt if isinstance(item, str)]
        if texts:
            return [self.tokens(text) for text in texts]
        lists = [item for item in prompt if isinstance(item, list)]
        if lists:
            return [tuple(item) for item in lists]
        return [tuple(item for item in prompt if isinstance(item, int))]

    def _render(
        self,
        messages: list[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None,
        variables: Mapping[str, Any] | None,
    ) -> Sequence[int]:
        if self._renderer is None:
            raise UnsupportedError(
                "this model's tokenizer has no chat template", fix="use /v1/completions"
            )
        return self._renderer.render(
            messages, add_generation_prompt=True, tools=tools, variables=variables
        ).tokens
