"""Every ``weft`` command that is written down is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
from cyclopts import App

from tests.docs.markdown import blocks, name, pages
from weft.cli.app import app
from weft.cli.configs import recipe
from weft.core.config import override, parse_flags

RECIPE_OF_VERB = {
    "train": "pretrain",
    "sft": "sft",
    "grpo": "grpo",
    "eval": "eval",
    "quickstart": "quickstart",
    "translate train": "translation",
    "speculator train": "speculator",
    "speculator eval": "speculator-eval",
    "data build": "corpus",
}


def documented() -> Iterator[tuple[str, str]]:
    for page in pages():
        for block in blocks(page):
            if block.info == "bash":
                yield from ((name(page), line) for line in commands(block.text))


def help_examples(verb: App) -> Iterator[tuple[str, str]]:
    epilogue = verb.help_epilogue or ""
    yield from ((f"help of {' '.join(verb.name)}", line) for line in commands(epilogue))
    for child in verb.subapps:
        yield from help_examples(child)


def commands(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    lines = (line.split("  #")[0].strip() for line in joined.splitlines())
    return [line for line in lines if re.match(r"weft [a-z-]", line)]


ALL = sorted({*documented(), *help_examples(app)})


@pytest.mark.parametrize(("where", "command"), ALL, ids=[f"{w}: {c}" for w, c in ALL])
def test_command_has_only_options_that_exist(where: str, command: str) -> None:
    arguments = shlex.split(command)[1:]
    if "--help" in arguments or "--version" in arguments:
        return
    _, bound, unused = app.parse_args(arguments, exit_on_error=False, print_error=False)[:3]
    assert not unused
    verb = next((v for v in RECIPE_OF_VERB if arguments[: len(v.split())] == v.split()), None)
    flags = [
        token for value in bound.args for token in (value if isinstance(value, tuple) else [value])
    ]
    tokens = from_first_flag([token for token in flags if isinstance(token, str)])
    if verb is not None:
        override(recipe(RECIPE_OF_VERB[verb]), parse_flags(tokens))
    elif arguments[0] == "serve":
        from weft.engine.config import EngineConfig

        override(EngineConfig(), parse_flags(tokens))
    else:
        assert not tokens, f"{arguments[0]} takes no configuration keys"


def from_first_flag(tokens: list[str]) -> list[str]:
    start = next((i for i, token in enumerate(tokens) if token.startswith("--")), len(tokens))
    return tokens[start:]


def test_every_verb_is_shown_somewhere_in_the_documentation() -> None:
    shown = {command.split()[1] for _, command in documented()}
    verbs = {verb for verb in app if not verb.startswith("-")}
    assert verbs - shown <= {"report", "doctor"}
