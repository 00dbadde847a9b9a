from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import DataError, InputFileError, MissingExtraError, UnsupportedError
from weft.data.document import Document, clean_text
from weft.data.sources.catalog import open_source
from weft.data.sources.docstrings import iter_docstrings
from weft.data.sources.files import Folder, split_sections
from weft.data.sources.stdlib import StandardLibrary, find_modules


def test_standard_library_has_code_and_reference_without_tests() -> None:
    source = StandardLibrary()
    documents = list(source.documents())
    ids = [document.id for document in documents]
    assert len(ids) == len(set(ids)) > 500
    assert {"stdlib/argparse.py", "stdlib/json/decoder.py"} <= set(ids)
    assert not [name for name in ids if "/test/" in name or "site-packages" in name]
    assert sum(document.num_bytes for document in documents) > 8_000_000
    assert {document.meta["license"] for document in documents} == {"PSF-2.0"}


def test_standard_library_order_is_the_same_every_time() -> None:
    first, second = StandardLibrary("topics"), StandardLibrary("topics")
    assert [d.id for d in first.documents()] == [d.id for d in second.documents()]
    assert first.fingerprint() == second.fingerprint()


def test_generated_and_vendored_modules_are_skipped(tmp_path: Path) -> None:
    for name in (
        "a.py",
        "p/__init__.py",
        "p/tests/t.py",
        "_sysconfigdata_x.py",
        "config-3.13/c.py",
        "site-packages/s.py",
        "pydoc_data/topics.py",
        "p/b.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    assert sorted(p.as_posix() for p in find_modules(tmp_path)) == ["a.py", "p/__init__.py"]


def test_docstrings_are_read_in_order_with_names_and_signatures() -> None:
    source = '''"""Module."""
import x
if x:
    def f(a, *, b=1):
        """  Do f.

        More.
        """
class C:
    """A class."""
    async def m(self): "Await."
    def silent(self): pass
'''
    assert [tuple(entry) for entry in iter_docstrings(source, "pkg.mod")] == [
        ("pkg.mod", "module", "", "Module."),
        ("pkg.mod.f", "function", "(a, *, b=1)", "Do f.\n\nMore."),
        ("pkg.mod.C", "class", "", "A class."),
        ("pkg.mod.C.m", "function", "(self)", "Await."),
    ]


@pytest.mark.parametrize("source", ["def broken(:", "x = '\0'", '"\\d"'])
def test_source_that_does_not_parse_has_no_docstrings(source: str) -> None:
    assert [entry.name for entry in iter_docstrings(source, "m")] in ([], ["m"])


def test_folder_reads_text_files_in_order_and_skips_the_rest(tmp_path: Path) -> None:
    files = {
        "b.md": b"two",
        "a/z.py": b"one",
        "a/img.png": b"x",
        ".hidden.txt": b"x",
        ".git/c.txt": b"x",
        "node_modules/d.js": b"x",
        "bin.txt": b"\0\1",
        "e.TXT": b"\xff!",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    documents = list(Folder(tmp_path, license="MIT").documents())
    assert [(d.id, d.text) for d in documents] == [
        ("a/z.py", "one"),
        ("b.md", "two"),
        ("e.TXT", "\ufffd!"),
    ]
    assert documents[0].meta["license"] == "MIT"


def test_folder_fingerprint_changes_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    before = Folder(tmp_path).fingerprint()
    (tmp_path / "a.txt").write_text("three")
    assert Folder(tmp_path).fingerprint() != before


def test_text_file_becomes_sections(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(b"\r\n\r\n".join([b"word " * 500] * 20))
    documents = list(open_source(str(path)).documents())
    assert [d.id for d in documents] == [f"book.txt#{i}" for i in range(len(documents))]
    assert len(documents) == 5
    assert "".join(d.text for d in documents) == path.read_text().replace("\r\n", "\n")


@given(text=st.text(alphabet="ab\n ", max_size=200), size=st.integers(1, 50))
def test_sections_join_to_the_text_and_are_long_enough(text: str, size: int) -> None:
    sections = list(split_sections(text, size))
    assert "".join(sections) == text
    assert all(len(section) >= size for section in sections[:-1])


def test_binary_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\0\0")
    with pytest.raises(DataError, match="binary"):
        list(open_source(str(tmp_path / "a.txt")).documents())


def test_jsonl_keeps_ids_and_takes_any_text_key(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"body": "one", "id": 7}\n\n{"body": "zwei ü"}\n', encoding="utf-8")
    documents = list(open_source(str(path), text_key="body").documents())
    assert [(d.id, d.text) for d in documents] == [("7", "one"), ("d.jsonl#1", "zwei ü")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{oops", r"d\.jsonl:2 is not JSON"),
        (b'{"txt": "a"}', r"d\.jsonl:2 has no text under 'text' \(it has: txt\)"),
        (b"[1]", r"d\.jsonl:2 has no text under 'text' \(it has: list\)"),
        (b'{"text": "\xff"}', r"d\.jsonl:2 is not UTF-8"),
    ],
)
def test_broken_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    with pytest.raises(DataError, match=message) as error:
        list(open_source(str(path)).documents())
    assert error.value.fix


def test_parquet_rows_are_documents(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "d.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", "two"], "n": [1, 2]}), path)
    documents = list(open_source(str(path)).documents())
    assert [(d.id, d.text) for d in documents] == [("d.parquet#0", "one"), ("d.parquet#1", "two")]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(open_source(str(path)).documents())


def test_parquet_without_the_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError, match="weft\\[data\\]"):
        open_source(str(tmp_path / "d.parquet"))


def test_unknown_sources_are_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="did you mean 'stdlib-code'"):
        open_source("stdlib-cod")
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(UnsupportedError, match=r"suffix '\.docx'"):
        open_source(str(tmp_path / "a.docx"))


def test_document_records_round_trip_and_odd_characters_are_cleaned() -> None:
    document = Document("é\n", "x", {"source": "s"})
    record = json.loads(json.dumps(document.to_record()))
    assert Document.from_record(record, where="here") == document
    assert document.num_bytes == 3
    assert clean_text("a\r\nb\rc\ud800") == "a\nb\nc?"
    with pytest.raises(DataError, match="f:3 has no text"):
        Document.from_record({"id": "x"}, where="f:3")
    with pytest.raises(DataError, match="f:3 has no id"):
        Document.from_record({"text": "x"}, where="f:3")
