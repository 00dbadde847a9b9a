"""Reading the documentation: pages, fenced blocks, links and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENTRY_PAGES = ("README.md", "AGENTS.md", "CONTRIBUTING.md", "CHANGELOG.md")
_FENCE = re.compile(r"^```(.*?)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: what follows the back-quotes, its text, the line it begins at."""

    info: str
    text: str
    line: int
    follows_directly: bool


def pages() -> list[Path]:
    """Return every page of the documentation and those at the root of the repository."""
    roots = [ROOT / name for name in ENTRY_PAGES if (ROOT / name).is_file()]
    return [*roots, *sorted((ROOT / "docs").rglob("*.md"))]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks; ``follows_directly`` says that only blank lines stand before."""
    text, end = page.read_text(encoding="utf-8"), 0
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        directly = end > 0 and not text[end : match.start()].strip()
        yield Block(match[1].strip(), match[2], line, directly)
        end = match.end()


def prose(page: Path) -> str:
    """Return a page without code."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.sub(r"`[^`\n]*`", "`code`", text)


def links(page: Path) -> list[str]:
    """Return the targets of relative links and images."""
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)", prose(page))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site's builder make them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }
