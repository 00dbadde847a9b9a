from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weft.core.errors import ConfigError, DataError, InputFileError
from weft.core.events import Events
from weft.data.build import CorpusConfig, build_corpus, choose_heldout
from weft.data.clean import CleanConfig
from weft.data.corpus import Corpus, tokenize_corpus
from weft.data.dedup import DedupConfig
from weft.data.permutation import hash_fraction
from weft.text.train import train_bpe

SENTENCE = "Document {n} speaks of {w} things that no other document ever mentions, {w} times over."


def write_folder(folder: Path, count: int = 40) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    words = [f"{a}{b}" for a in "bcdfghjklm" for b in ("ola", "une", "ist", "ark")]
    for number in range(count):
        word = words[number % len(words)]
        lines = [f"{SENTENCE.format(n=number, w=word)} ({line}, {word}{line})" for line in range(6)]
        (folder / f"{number:03d}.txt").write_text("\n".join(lines))
    return folder


def config_for(folder: Path, **changes: Any) -> CorpusConfig:
    return CorpusConfig(**{"sources": (str(folder),), "heldout_share": 0.2, **changes})


def ids(corpus: Corpus, split: str) -> list[str]:
    return [document.id for document in corpus.documents(split)]


def test_manifest_counts_add_up(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src")
    (source / "short.txt").write_text("no")
    (source / "copy.txt").write_text((source / "000.txt").read_text().upper())
    near = (source / "001.txt").read_text().replace("(5, ", "(five, ")
    (source / "near.txt").write_text(near)
    sink: list[dict[str, Any]] = []

    class ListSink:
        def write(self, event: Any) -> None:
            sink.append(dict(event))

        def close(self) -> None: ...

    seen: list[int] = []
    manifest = build_corpus(
        config_for(source, license="MIT"),
        tmp_path / "out",
        events=Events(ListSink()),
        progress=seen.append,
    )
    assert manifest["sources"][0]["num_documents"] == 43
    assert manifest["sources"][0]["license"] == "MIT"
    filters = {entry["name"]: entry for entry in manifest["filters"]}
    assert filters["min_length"]["dropped"] == 1
    assert filters["min_length"]["examples"] == [{"id": "short.txt", "excerpt": "no"}]
    assert manifest["dedup"]["exact"]["dropped"] == 1
    assert manifest["dedup"]["near"]["dropped"] == 1
    assert manifest["dedup"]["near"]["examples"][0]["reason"] == "resembles 001.txt"
    assert manifest["train"]["num_documents"] + manifest["heldout"]["num_documents"] == 40
    assert sink[0]["kind"] == "corpus"
    assert sink[0]["sha256"] == manifest["sha256"]
    assert seen == list(range(1, 42))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "heldout.jsonl",
        "manifest.json",
        "train.jsonl",
    ]


def test_split_is_by_hash_and_stays_when_documents_come(tmp_path: Path) -> None:
    build_corpus(config_for(write_folder(tmp_path / "a", 20)), tmp_path / "one")
    build_corpus(config_for(write_folder(tmp_path / "b", 40)), tmp_path / "two")
    one, two = Corpus(tmp_path / "one"), Corpus(tmp_path / "two")
    assert set(ids(one, "heldout")) <= set(ids(two, "heldout"))
    assert set(ids(one, "train")) <= set(ids(two, "train"))
    assert set(ids(two, "heldout")).isdisjoint(ids(two, "train"))
    assert all(hash_fraction(name) < 0.2 for name in ids(two, "heldout"))


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src")
    sums = {build_corpus(config_for(source), tmp_path / name)["sha256"] for name in "ab"}
    assert len(sums) == 1


def test_complete_corpus_is_reused_and_changed_sources_are_rebuilt(tmp_path: Path) -> None:
    source, out = write_folder(tmp_path / "src"), tmp_path / "out"
    first = build_corpus(config_for(source), out)
    stamp = (out / "train.jsonl").stat().st_mtime_ns
    assert build_corpus(config_for(source), out) == first
    assert (out / "train.jsonl").stat().st_mtime_ns == stamp
    (source / "new.txt").write_text(
        "A new text, certainly long enough to be kept by each and every filter there is."
    )
    assert build_corpus(config_for(source), out)["sources"][0]["num_documents"] == 41


def test_corpus_cut_by_a_crash_is_built_again(tmp_path: Path) -> None:
    source, out = write_folder(tmp_path / "src"), tmp_path / "out"
    first = build_corpus(config_for(source), out)
    (out / "train.jsonl").write_text("{")
    assert build_corpus(config_for(source), out)["sha256"] == first["sha256"]
    Corpus(out).verify()


def test_failed_build_leaves_no_manifest_and_the_next_one_works(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    lines = [json.dumps({"text": SENTENCE.format(n=n, w=f"w{n}") * 2}) for n in range(9)]
    path.write_text("\n".join([*lines, "{"]))
    with pytest.raises(DataError, match=r"d\.jsonl:10 is not JSON"):
        build_corpus(config_for(path), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    path.write_text("\n".join(lines))
    build_corpus(config_for(path, dedup=DedupConfig(near=False)), tmp_path / "out")
    assert len(ids(Corpus(tmp_path / "out"), "train")) >= 1


def test_other_configuration_is_refused(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src")
    build_corpus(config_for(source), tmp_path / "out")
    with pytest.raises(ConfigError, match="another configuration"):
        build_corpus(config_for(source, heldout_share=0.3), tmp_path / "out")


def test_steps_can_be_switched_off_and_bytes_limited(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src", 10)
    for name in ("x", "y"):
        (source / f"{name}.txt").write_text("same")
    off = DedupConfig(exact=False, near=False)
    config = config_for(source, dedup=off, clean=CleanConfig(min_chars=0))
    manifest = build_corpus(config, tmp_path / "all")
    assert manifest["train"]["num_documents"] + manifest["heldout"]["num_documents"] == 12
    limit = 3 * len((source / "000.txt").read_bytes())
    manifest = build_corpus(config_for(source, max_bytes=limit), tmp_path / "few")
    assert manifest["sources"][0]["num_documents"] == 3


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"sources": ()}, "sources"),
        ({"sources": ("stdlib", "stdlib")}, "names one twice"),
        ({"heldout_share": 0.0}, "heldout_share"),
        ({"max_bytes": 0}, "max_bytes"),
    ],
)
def test_configuration_is_checked(changes: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        CorpusConfig(**changes)


def test_empty_and_missing_sources_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty' has no documents"):
        build_corpus(config_for(tmp_path / "empty"), tmp_path / "out")
    with pytest.raises(InputFileError, match="there is no source"):
        build_corpus(config_for(tmp_path / "nowhere"), tmp_path / "out")
    (tmp_path / "empty" / "a.txt").write_text("x")
    with pytest.raises(DataError, match="0 documents are left"):
        build_corpus(config_for(tmp_path / "empty"), tmp_path / "out")


def test_two_documents_with_one_id_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    rows = [{"id": "same", "text": SENTENCE.format(n=n, w=f"w{n}")} for n in range(2)]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"two documents of .*d\.jsonl have the id 'same'"):
        build_corpus(config_for(path), tmp_path / "out")


def test_files_of_the_same_name_in_two_folders_are_both_kept(tmp_path: Path) -> None:
    one, two = write_folder(tmp_path / "one", 3), tmp_path / "two"
    two.mkdir()
    text = "This readme belongs to the second folder and says nothing about the first one at all."
    (two / "000.txt").write_text(text)
    config = CorpusConfig(sources=(str(one), str(two)), heldout_share=0.3)
    manifest = build_corpus(config, tmp_path / "out")
    corpus = Corpus(tmp_path / "out")
    names = [*ids(corpus, "train"), *ids(corpus, "heldout")]
    assert sorted(names) == sorted(["000.txt", "001.txt", "002.txt", f"{two}:000.txt"])
    assert [source["num_documents"] for source in manifest["sources"]] == [3, 1]


def test_real_tokenizer_gives_shards_that_decode_to_the_texts(tmp_path: Path) -> None:
    build_corpus(config_for(write_folder(tmp_path / "src")), tmp_path / "corpus")
    corpus = Corpus(tmp_path / "corpus")
    tokenizer = train_bpe(corpus.train_texts(), 400)
    shards = tokenize_corpus(corpus, tokenizer, tmp_path / "tokens")["heldout"]
    decoded = [
        tokenizer.decode(shards.document(number).tolist()) for number in range(shards.num_documents)
    ]
    assert decoded == [document.text for document in corpus.heldout_documents()]
    ends = {int(shards.document(number)[-1]) for number in range(shards.num_documents)}
    assert ends == {tokenizer.token_id("<|endoftext|>")}


def test_small_corpora_still_have_both_sides() -> None:
    names = [f"d{n}" for n in range(3)]
    assert len(choose_heldout(names, 1e-9)) == 1
    assert len(choose_heldout(names, 1 - 1e-9)) == 2
    with pytest.raises(DataError, match="1 documents are left"):
        choose_heldout(["d"], 0.5)


class ByteTokenizer:
    """One token for each byte, then a begin and an end token."""

    vocab_size, fingerprint, bos_id, eos_ids = 258, "byte", 256, (257, 0)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]


def test_tokenized_documents_begin_and_end_and_count_their_bytes(tmp_path: Path) -> None:
    build_corpus(config_for(write_folder(tmp_path / "src")), tmp_path / "corpus")
    corpus = Corpus(tmp_path / "corpus")
    seen: list[int] = []
    shards = tokenize_corpus(corpus, ByteTokenizer(), tmp_path / "tokens", progress=seen.append)
    for split in ("train", "heldout"):
        documents = list(corpus.documents(split))
        assert shards[split].num_documents == len(documents)
        assert shards[split].num_bytes == corpus.manifest[split]["num_bytes"]
        for number, document in enumerate(documents):
            wanted = [256, *document.text.encode(), 257]
            assert shards[split].document(number).tolist() == wanted
    assert seen[-1] == sum(shards[split].num_bytes for split in shards)


def test_shards_are_reused_made_anew_or_refused(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src")
    build_corpus(config_for(source), tmp_path / "corpus")
    calls: list[int] = []
    tokens = tmp_path / "tokens"
    tokenize_corpus(Corpus(tmp_path / "corpus"), ByteTokenizer(), tokens, progress=calls.append)
    count = len(calls)
    tokenize_corpus(Corpus(tmp_path / "corpus"), ByteTokenizer(), tokens, progress=calls.append)
    assert len(calls) == count
    (source / "new.txt").write_text(
        "A new text, certainly long enough to be kept by each and every filter there is."
    )
    build_corpus(config_for(source), tmp_path / "corpus")
    tokenize_corpus(Corpus(tmp_path / "corpus"), ByteTokenizer(), tokens, progress=calls.append)
    assert len(calls) > count

    class Other(ByteTokenizer):
        fingerprint = "other"

    with pytest.raises(DataError, match="tokenizer in use is other"):
        tokenize_corpus(Corpus(tmp_path / "corpus"), Other(), tokens)


def test_damaged_corpora_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        Corpus(out)
    build_corpus(config_for(write_folder(tmp_path / "src")), out)
    content = (out / "train.jsonl").read_bytes()
    (out / "train.jsonl").write_bytes(content.replace(b"things", b"thingz"))
    with pytest.raises(DataError, match=r"train\.jsonl was changed"):
        Corpus(out).verify()
    (out / "train.jsonl").write_bytes(content[:-5])
    with pytest.raises(DataError, match=rf"has {len(content) - 5} bytes, expected {len(content)}"):
        Corpus(out)
    (out / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match="not the manifest of a corpus"):
        Corpus(out)
    with pytest.raises(DataError, match="not the manifest of a corpus"):
        build_corpus(config_for(tmp_path / "src"), out)


@pytest.mark.slow
def test_standard_library_corpus_is_about_ten_megabytes(tmp_path: Path) -> None:
    manifest = build_corpus(CorpusConfig(), tmp_path)
    assert 8e6 < manifest["train"]["num_bytes"] < 16e6
    assert manifest["heldout"]["num_documents"] >= 5
