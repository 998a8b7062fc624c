"""What users read is in the field's terms: docs/glossary.md lists the words that are not used."""

from __future__ import annotations

import re

from tests.architecture.source import ROOT, package_modules, texts, words

GLOSSARY = ROOT / "docs" / "glossary.md"
# Machine-readable names, and quotations of what other programs say.
QUOTED = ("core/diagnosis/rules/", "core/diagnosis/", "parsing/replies/")
MOST_CHARACTERS = 600  # longer texts are programs or documents that travel


def banned() -> list[str]:
    """The left column of the table of words that messages do not use."""
    table = GLOSSARY.read_text().partition("## Words that messages do not use")[2]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    return [word.strip() for row in rows[1:] for word in row.split(",") if word.strip("- ")]


def test_the_list_is_read() -> None:
    """A changed heading must not turn the next test into one that cannot fail."""
    assert {"goes on", "told", "whoever", "rung"} <= set(banned())


def test_messages_use_the_terms_of_the_glossary() -> None:
    """Strings with a space are sentences or parts of them; keys and commands have none."""
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, banned()))})\b")
    wrong = [
        f"{module.where}:{text.lineno}: {words(text)!r}"
        for module in package_modules()
        if not any(part in module.where for part in QUOTED)
        for text in texts(module)
        if " " in words(text).strip() and len(words(text)) < MOST_CHARACTERS
        if pattern.search(words(text))
    ]

    assert wrong == []


def test_the_glossary_is_sorted_and_large_enough() -> None:
    """Forty terms or more, in an order in which people find them."""
    table = GLOSSARY.read_text().partition("## Words")[0]
    terms = re.findall(r"^\| `?([^|`]+?)`? \|", table, re.MULTILINE)[1:]

    assert len(terms) >= 40
    assert terms == sorted(terms, key=str.casefold)
