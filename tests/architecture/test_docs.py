"""Links in the Markdown files lead somewhere, and the tests that they name exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from orchestrator.cli.outermost import SIGPIPE_EXIT
from orchestrator.core.base.errors import ExitCode, OrchestrateError
from tests.architecture.source import ROOT, files

LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s+<?(\S+?)>?\s*$", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
TEST = re.compile(r"`((?:tests|scripts)/[\w./-]+)(?:::(\w+))?`")
ROW_OF_CODES = re.compile(r"^\| (\d[\d, ]*) \|", re.MULTILINE)
FOREIGN = ("http://", "https://", "mailto:")


def test_links_between_documents_resolve() -> None:
    """Every relative link names a file of the checkout, and its fragment a heading there."""
    wrong = [
        f"{document.relative_to(ROOT)}: {link}"
        for document in files()
        if document.suffix == ".md"
        for link in links(document)
        if not resolves(document, link)
    ]

    assert wrong == []


def test_tests_that_documents_name_exist() -> None:
    """A promise without its test would be worth nothing: every `tests/...` and `scripts/...`."""
    named = [
        (document, *match)
        for document in files()
        if document.suffix == ".md"
        for match in TEST.findall(document.read_text(encoding="utf-8"))
    ]

    wrong = [
        f"{document.relative_to(ROOT)}: {path} {name}"
        for document, path, name in named
        if not exists(ROOT / path, name)
    ]

    assert wrong == []
    assert any(document.name == "guarantees.md" for document, *_ in named)


def test_exit_codes_are_documented_and_used() -> None:
    """Scripts rely on the table: it has every code, and a code that nothing gives has no row."""
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    table = text.partition("\n## Exit codes\n")[2].partition("\n\n## ")[0]
    rows = [int(code) for cells in ROW_OF_CODES.findall(table) for code in cells.split(", ")]
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "orchestrator").rglob("*.py")
        if path.name != "errors.py"
    )
    errors = {kind.exit_code for kind in OrchestrateError.__subclasses__() if kind.__name__ in code}
    given = {each for each in ExitCode if f"ExitCode.{each.name}" in code} | errors

    assert sorted(rows) == sorted({*ExitCode, SIGPIPE_EXIT})
    assert given == set(ExitCode)


def exists(path: Path, name: str) -> bool:
    """Whether there is such a file or folder and, if ``name`` is not empty, that test in it."""
    if not path.exists():
        return False
    return not name or re.search(rf"def {name}\b", path.read_text(encoding="utf-8")) is not None


def links(document: Path) -> Iterator[str]:
    """The targets of a document's links, without those inside code."""
    prose = CODE.sub("``", FENCE.sub("", document.read_text(encoding="utf-8")))
    for match in (*LINK.finditer(prose), *REFERENCE.finditer(prose)):
        if not match[1].startswith(FOREIGN):
            yield match[1]


def resolves(document: Path, link: str) -> bool:
    """Whether the link's file and heading exist."""
    name, _, fragment = unquote(link).partition("#")
    target = (document.parent / name).resolve() if name else document
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not fragment or target.suffix != ".md" or fragment in anchors(target)


def anchors(document: Path) -> set[str]:
    """The fragments that a Markdown host makes of the headings."""
    found: dict[str, int] = {}
    slugs: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        slugs.add(f"{slug}-{count}" if count else slug)
    return slugs
