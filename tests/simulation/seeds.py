"""Seeds that once found a fault: permanent cases. What each found stands beside it."""

from __future__ import annotations

FOUND: dict[int, str] = {
    44: "another attempt met the supervisor that the last one had left on a lost node",
    208: "the same, after a lease that had not yet run out",
}
