from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.apps import rag
from weft.apps.chunks import MAX_CHARS, split_lines
from weft.apps.rag import Index
from weft.core.errors import ConfigError, DataError, InputFileError, ResourceError
from weft.spec.sampling import SamplingParams

CORPUS = {
    "blocks.md": "# Blocks\nThe pool hands out blocks of sixteen positions.\n"
    "A block is freed when its reference count falls to zero.\n",
    "prefix.md": "# Prefix cache\nEqual beginnings of prompts are computed once.\n"
    "Blocks are chained by a hash over parent and tokens.\n",
    "sampling.md": "# Sampling\nThe temperature divides the logits before the softmax.\n"
    "Nucleus sampling keeps the smallest set of tokens that reaches top_p.\n",
    "optimizer.md": "# Optimizers\nMuon orthogonalises the momentum of matrices.\n"
    "AdamW decays weights apart from the gradient.\n",
    "tokenizer.md": "# Tokenizers\nByte pair encoding merges the most frequent pair.\n"
    "Every text can be encoded because single bytes are tokens.\n",
    "server.md": "# Server\nIt binds to loopback unless told otherwise.\n"
    "A client that disconnects aborts its request.\n",
    "files.py": "def write_atomic(path, data):\n"
    "    '''Write under a temporary name, then rename.'''\n",
    "schedule.md": "# Learning rate\nWarm-up rises linearly; decay begins after the plateau.\n",
}
QUESTIONS = {
    "when is a block given back": "blocks.md",
    "how are prompts with equal beginnings shared": "prefix.md",
    "what does temperature do to logits": "sampling.md",
    "top_p": "sampling.md",
    "which optimizer uses orthogonal momentum": "optimizer.md",
    "merging frequent pairs of bytes": "tokenizer.md",
    "what happens when clients disconnect": "server.md",
    "write atomic rename": "files.py",
    "linear warm-up of the learning rate": "schedule.md",
    "decaying weights": "optimizer.md",
}


@pytest.fixture
def index(tmp_path: Path):
    with Index.build(CORPUS.items(), tmp_path / "index.sqlite") as index:
        yield index


def recall(index: Index, k: int) -> float:
    hits = sum(
        document in [passage.document for passage in index.search(question, k)]
        for question, document in QUESTIONS.items()
    )
    return hits / len(QUESTIONS)


def test_recall_on_the_fixture_corpus(index: Index):
    assert recall(index, 1) >= 0.8
    assert recall(index, 3) == 1.0


def test_passages_are_cited_by_line_and_ranked(index: Index):
    passages = index.search("blocks", k=5)
    assert {passage.document for passage in passages} == {"blocks.md", "prefix.md"}
    assert passages[0].score >= passages[1].score > 0
    assert passages[0].citation.endswith(":1")


def test_identifiers_are_found_by_their_words_and_plurals_by_singulars(index: Index):
    assert index.search("atomic write")[0].document == "files.py"
    assert index.search("client disconnect")[0].document == "server.md"


def test_without_a_model_the_answer_quotes_the_line(index: Index):
    answer = index.answer("when is a block freed?")
    first = answer.text.split("\n")[0]
    assert first == "A block is freed when its reference count falls to zero. [blocks.md:3]"
    assert "blocks.md:1" in answer.citations


def test_with_a_model_the_sources_are_numbered(index: Index):
    seen: list[str] = []

    class Scripted:
        def chat(self, messages, sampling: SamplingParams = SamplingParams()) -> str:  # noqa: B008
            seen.append(messages[-1]["content"])
            return "At zero references [1]."

        def stream(self, messages, sampling: SamplingParams = SamplingParams()):  # noqa: B008
            yield self.chat(messages, sampling)

    answer = index.answer("when is a block freed?", Scripted(), k=2)
    assert answer.text == "At zero references [1]."
    assert seen[0].startswith(f"[1] {answer.citations[0]}\n")
    assert seen[0].endswith("Question: when is a block freed?")
    assert len(answer.passages) == 2


def test_nothing_found_says_so(index: Index):
    answer = index.answer("zebra")
    assert answer.passages == ()
    assert "Nothing" in answer.text


@pytest.mark.parametrize(
    "query", ['"', "a AND OR NOT (", "text:x*", "'; DROP TABLE chunk; --", "é", ""]
)
def test_no_question_is_query_syntax(index: Index, query: str):
    assert all(passage.text for passage in index.search(query))
    assert len(index) == len(CORPUS)


def test_any_text_can_be_a_question(index: Index):
    @given(st.text())
    def search(query: str) -> None:
        assert len(index.search(query, k=2)) <= 2

    search()


def test_an_index_opens_again_and_cannot_be_written(index: Index):
    with Index(index.path) as again:
        assert again.search("temperature") == index.search("temperature")
        with pytest.raises(sqlite3.OperationalError):
            again._connection.execute("DELETE FROM chunk")


def test_a_failed_build_leaves_the_older_index_and_no_litter(index: Index):
    def documents():
        yield "new.md", "new text"
        raise RuntimeError("reader failed")

    with pytest.raises(RuntimeError):
        Index.build(documents(), index.path)
    assert index.search("temperature")[0].document == "sampling.md"
    assert [path.name for path in index.path.parent.iterdir()] == ["index.sqlite"]


def test_no_text_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no text"):
        Index.build([("a", ""), ("b", " \n")], tmp_path / "index.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_wrong_files_are_refused(tmp_path: Path):
    with pytest.raises(InputFileError, match=r"Index\.build"):
        Index(tmp_path / "missing.sqlite")
    garbage = tmp_path / "garbage.sqlite"
    garbage.write_bytes(b"not a database" * 100)
    with pytest.raises(DataError, match="build the index again"):
        Index(garbage)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    connection.close()
    with pytest.raises(DataError, match="format None"):
        Index(other)


def test_a_full_disk_is_said_and_leaves_the_older_index(
    index: Index, monkeypatch: pytest.MonkeyPatch
):
    def fill(connection: sqlite3.Connection, documents: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")
        connection.execute("CREATE TABLE a (b)")

    monkeypatch.setattr(rag, "_fill", fill)
    with pytest.raises(ResourceError, match="full") as caught:
        Index.build([("a", "b")], index.path)
    assert "free some space" in str(caught.value)
    assert index.search("temperature")
    assert [path.name for path in index.path.parent.iterdir()] == ["index.sqlite"]


def test_k_must_be_positive(index: Index):
    with pytest.raises(ConfigError):
        index.search("a", k=0)


@given(st.text(alphabet=st.sampled_from("ab \n#é"), max_size=6000))
def test_chunks_cover_every_line_with_text_once_and_in_order(text: str):
    chunks = list(split_lines(text))
    lines = text.splitlines()
    covered = [
        number
        for chunk in chunks
        for number in range(chunk.first_line, chunk.last_line + 1)
        if lines[number - 1].strip()
    ]
    wanted = [number for number, line in enumerate(lines, 1) if line.strip()]
    assert sorted(set(covered)) == wanted
    assert covered == sorted(covered)
    assert all(len(chunk.text) <= MAX_CHARS for chunk in chunks)


def test_chunks_end_before_headings_and_keep_their_text():
    text = "\n".join(f"# Part {part}\n" + "word " * 250 for part in range(3))
    chunks = list(split_lines(text))
    assert [chunk.text.split("\n")[0] for chunk in chunks] == ["# Part 0", "# Part 1", "# Part 2"]
    assert [chunk.first_line for chunk in chunks] == [1, 3, 5]


def test_an_overlong_line_is_cut():
    assert [len(chunk.text) for chunk in split_lines("x" * (2 * MAX_CHARS + 5))] == [
        MAX_CHARS,
        MAX_CHARS,
        5,
    ]
