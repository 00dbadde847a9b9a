"""Files and renderings against Hugging Face transformers."""

from __future__ import annotations

import pytest

from tests.text import templates
from weft.core.errors import RequestError
from weft.text.chat import CHATML, ChatTemplate
from weft.text.tokenizer import Tokenizer
from weft.text.vocabulary import add_tokens

pytestmark = pytest.mark.parity

TALK = [
    {"role": "system", "content": "  Be brief. "},
    {"role": "user", "content": "\n2 < 3 & é?\n"},
    {
        "role": "assistant",
        "content": "\n\nYes.",
        "reasoning": "two, three",
        "tool_calls": [
            {"function": {"name": "add", "arguments": {"b": 1, "a": "ü<"}}},
            {"id": "empty"},
        ],
    },
    {"role": "tool", "content": "3", "name": None},
    {"role": "assistant", "content": "It is so."},
]
SOURCES = {"chatml": CHATML, "llama3": templates.LLAMA3, "qwen3": templates.QWEN3}


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(path)
    return path


@pytest.fixture(scope="module")
def reference(folder):
    transformers = pytest.importorskip("transformers")
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def test_saved_folder_loads_in_transformers_unchanged(folder, reference, tokenizer, corpus):
    transformers = pytest.importorskip("transformers")
    for loaded in (reference, transformers.AutoTokenizer.from_pretrained(folder)):
        for text in [*corpus, "<|im_start|>user\nhi<|im_end|>", " a  b "]:
            ids = loaded(text, add_special_tokens=False)["input_ids"]
            assert ids == tokenizer.encode(text, special=True)
            assert loaded.decode(ids) == tokenizer.decode(ids, skip_special=False)
        assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (0, 0, 3)
        assert len(loaded) == tokenizer.vocab_size
        assert loaded.chat_template == CHATML


def test_folder_saved_by_transformers_loads_here(reference, tokenizer, tmp_path):
    reference.save_pretrained(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.bos_id, loaded.pad_id, loaded.eos_ids) == (0, 3, (0, 2))
    assert loaded.chat_template.source == CHATML
    assert loaded.encode("def f(x): return 12") == tokenizer.encode("def f(x): return 12")


def test_added_tokens_load_in_transformers(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    larger = add_tokens(tokenizer, ["<tool>"])
    larger.save(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert loaded("a<tool>b")["input_ids"] == larger.encode("a<tool>b")


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("tools", [None, [], templates.TOOLS])
@pytest.mark.parametrize("add_generation_prompt", [False, True])
@pytest.mark.parametrize("variables", [{}, {"enable_thinking": False}])
def test_rendering_equals_transformers(reference, name, tools, add_generation_prompt, variables):
    for num_messages in range(1, len(TALK) + 1):
        expected = reference.apply_chat_template(
            TALK[:num_messages],
            tools=tools,
            chat_template=SOURCES[name],
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            **variables,
        )
        special = {"bos_token": reference.bos_token, "eos_token": reference.eos_token}
        rendered = ChatTemplate(SOURCES[name], special_tokens=special).render(
            TALK[:num_messages],
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            variables=variables,
        )
        assert rendered == expected


LOOP = "{% for m in messages %}"
ENVIRONMENT = {
    "trimmed": LOOP + "\n  {% if loop.first %}\n a\n  {% endif %}\n{{ m.role }} \n{% endfor %}",
    "indented json": "{{ messages | map(attribute='role') | list | tojson(indent=2) }}",
    "ascii json": "{{ {'b': '<é>', 'a': 1} | tojson(sort_keys=true, ensure_ascii=true) }}",
    "dense json": "{{ {'a': [1, 2]} | tojson(separators=(',', ':')) }}",
    "break": LOOP + "{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "generation": LOOP + "{% generation %}\n{{ m.content }}\n{% endgeneration %}\n{% endfor %}",
    "namespace": "{% set ns = namespace(n=0) %}"
    + LOOP
    + "{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "globals": "{{ dict(a=1).a }} {{ strftime_now('%Y') }} {{ bos_token }} {{ documents }}",
    "reasoning": "{{ messages[2].reasoning_content }}{{ messages[2].thinking }}",
    "empty keys": "{{ messages[3].name is defined }}",
    "macro": "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f('a') }}{{ range(3) | join }}",
}


@pytest.mark.parametrize("source", ENVIRONMENT.values(), ids=ENVIRONMENT.keys())
def test_environment_equals_transformers(reference, source):
    special = {key: str(value) for key, value in reference.special_tokens_map.items()}
    expected = reference.apply_chat_template(TALK, chat_template=source, tokenize=False)
    assert ChatTemplate(source, special_tokens=special).render(TALK) == expected


def test_both_refuse_what_the_template_refuses(reference):
    messages = [{"role": "critic", "content": "no"}]
    with pytest.raises(Exception, match="unknown role: critic"):
        reference.apply_chat_template(messages, chat_template=templates.LLAMA3)
    with pytest.raises(RequestError, match="unknown role: critic"):
        ChatTemplate(templates.LLAMA3, special_tokens={"bos_token": ""}).render(messages)
