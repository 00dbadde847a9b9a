"""``weft data build``: documents in, corpus out."""

from __future__ import annotations

from pathlib import Path

from weft.cli.configs import Overrides, assemble, recipe
from weft.core.console import LiveLine, console, format_bytes, table
from weft.core.runs import RunDirectory
from weft.data.build import CorpusConfig, build_corpus


def build(*tokens: Overrides, out: Path, config: str | None = None) -> None:
    """Read, clean and deduplicate documents into a corpus.

    Parameters
    ----------
    tokens
        Sources (stdlib, folders, .txt, .jsonl, .parquet), then --section.key value pairs.
    out
        Folder of the corpus.
    config
        A TOML file with the configuration.
    """
    first_flag = next((i for i, token in enumerate(tokens) if token.startswith("--")), len(tokens))
    job = assemble(
        recipe("corpus"), config, tokens[first_flag:], sources=tokens[:first_flag] or None
    )
    run_build(job, out)


def run_build(config: CorpusConfig, out: Path) -> None:
    """Build a corpus in a run directory and print what was kept and dropped."""
    with RunDirectory(out).open(config) as events:
        with LiveLine("corpus", total=None) as line:
            manifest = build_corpus(
                config, out, events=events, progress=lambda n: line.update(n, f"{n} documents")
            )
    print_manifest(manifest)


def print_manifest(manifest: dict) -> None:
    """Print sizes, filters and duplicates of a corpus."""
    rows = [
        (entry["name"], f"{entry['num_documents']:,}", format_bytes(entry["num_bytes"]))
        for entry in manifest["sources"]
    ]
    rows += [
        (f"kept: {name}", f"{manifest[name]['num_documents']:,}",
         format_bytes(manifest[name]["num_bytes"]))
        for name in ("train", "heldout")
    ]  # fmt: skip
    console.print(table("corpus", ("source", "documents", "size"), rows))
    console.print(f"sha256 {manifest['sha256'][:16]}", markup=False)
