"""What a node tells of connections that it tried to open. Untrusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_LOCAL = 64
MAX_ERROR = 200
REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpResult:
    """What came of one connection: ``local`` is the address that it came from."""

    ok: bool
    local: str = ""
    error: str = ""

    @property
    def refused(self) -> bool:
        """Whether somebody at the other end said no: the way there works."""
        return REFUSED in self.error


def parse_dialled(fields: Mapping[str, Any], count: int) -> list[TcpResult]:
    """One result per target; what is missing is no connection."""
    told = fields.get("results")
    results = told[:count] if isinstance(told, list) else []
    found = [_parse_result(result) for result in results]
    return found + [TcpResult(ok=False, error="no answer")] * (count - len(found))


def _parse_result(told: object) -> TcpResult:
    result = told if isinstance(told, dict) else {}
    if result.get("ok") is True:
        return TcpResult(ok=True, local=str(result.get("local", ""))[:MAX_LOCAL])
    return TcpResult(ok=False, error=str(result.get("error") or "no connection")[:MAX_ERROR])
