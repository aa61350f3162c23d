"""The documents as tests read them: their blocks, tables, links and headings.

Each ```bash block is preceded by `<!-- run -->` or by `<!-- not run: why -->`. A ```text block that is preceded by
`<!-- prints -->` is what the block before it prints: each of its lines, in this order; `…` stands for anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"(?:^<!-- ([^\n]*?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block of a document."""

    document: str  # its path from the root
    line: int
    mark: str | None
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks_of(document: Path) -> list[Block]:
    """Give the fenced blocks of a document, in order."""
    text = document.read_text(encoding="utf-8")
    return [
        Block(name_of(document), text.count("\n", 0, match.start(2)) + 1, match[1], match[2], match[3])
        for match in _BLOCK.finditer(text)
    ]


def name_of(document: Path) -> str:
    """Give a document's path from the root."""
    return str(document.relative_to(ROOT))


def prose_of(document: Path) -> str:
    """Give a document without its fenced blocks."""
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))


def section_of(document: Path, heading: str) -> str:
    """Give what stands below a heading, up to the next one of the same rank or a higher one, without its blocks."""
    rank = heading.index(" ")
    text = prose_of(document).split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^#{{1,{rank}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]


def rows_of(section: str) -> list[list[str]]:
    """Give the rows of the tables in a section, without their heads."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    heads = {index - 1 for index, row in enumerate(rows) if set("".join(row)) <= set("-: ")}
    return [row for index, row in enumerate(rows) if index not in heads and index - 1 not in heads]


def words_in(cell: str) -> list[str]:
    """Give what stands in backticks."""
    return re.findall(r"`([^`\n]+)`", cell)


def anchors_of(document: Path) -> set[str]:
    """Give the anchors of a document's headings, as they are commonly made."""
    headings = re.findall(r"^#+ (.*)$", prose_of(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
