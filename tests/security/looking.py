"""What must not be on a screen, and how secrets look when somebody has wrapped them."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

# Written apart from the code that is tested.
_REORDERS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def steers(screen: str, *, colours: bool = False) -> list[str]:
    """The characters of ``screen`` that do more than show themselves; line ends are fine."""
    text = _COLOUR.sub("", screen) if colours else screen
    found = [c for c in text if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} and c != "\n"]
    return found + _REORDERS.findall(text)


def forms(secret: str) -> set[bytes]:
    """``secret`` as itself, in base64 at each alignment, URL-encoded, and as hexadecimal."""
    raw = secret.encode()
    wrapped = {raw, raw.hex().encode(), repr(secret)[1:-1].encode(), json.dumps(secret).encode()}
    wrapped |= {urllib.parse.quote(secret, safe="").encode(), urllib.parse.quote_plus(raw).encode()}
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # Bytes around it change the first and last characters: what is in between stays.
            inner = encode(b"\0" * shift + raw).rstrip(b"=")
            wrapped.add(inner[4 if shift else 0 : -2])
    return wrapped


def leaks(secrets: Iterable[str], content: bytes) -> list[str]:
    """The secrets that stand in ``content`` in any form."""
    return [secret for secret in secrets if any(form in content for form in forms(secret))]


def files_below(*roots: Path) -> Iterator[Path]:
    for root in roots:
        yield from (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def leaking_files(secrets: Iterable[str], *roots: Path) -> dict[str, list[str]]:
    """Every file below ``roots`` that holds one of ``secrets``, or is named after one."""
    known, found = list(secrets), {}
    for path in files_below(*roots):
        with contextlib.suppress(FileNotFoundError):
            if here := leaks(known, str(path).encode() + path.read_bytes()):
                found[str(path)] = here
    return found
