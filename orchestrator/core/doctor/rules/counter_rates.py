"""Error counters of ports as rates: how fast each may grow before the link is at fault.

The limits are those of NVSentinel's NIC monitor (NVIDIA, 2026): some counters must not grow at all,
others grow on links that are well, only slowly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.doctor.check_model import OK, CheckAnswer, fail_answer, warn_answer

UNITS = {1.0: "s", 60.0: "min", 3600.0: "h"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """At most ``most`` in ``per_s`` seconds."""

    most: float
    per_s: float = 1.0

    @property
    def text(self) -> str:
        return f"{self.most:g}/{UNITS[self.per_s]}"


NEVER = RateLimit(most=0)
LIMITS: Mapping[str, RateLimit] = {
    "link_downed": NEVER,
    "excessive_buffer_overrun_errors": NEVER,
    "local_link_integrity_errors": NEVER,
    "rnr_nak_retry_err": NEVER,
    "symbol_error": RateLimit(most=120, per_s=3600),
    "link_error_recovery": RateLimit(most=5, per_s=60),
    "port_rcv_errors": RateLimit(most=10),
    "roce_slow_restart": RateLimit(most=10),
    "local_ack_timeout_err": RateLimit(most=1),
    "port_xmit_discards": RateLimit(most=100),
}
# A link that went and came back counts two; a third change is one more fall.
MOST_CARRIER_CHANGES = 2


def judge_growth(counter: str, grown: int, apart_s: float | None) -> CheckAnswer:
    """A counter that grew by ``grown`` within ``apart_s`` seconds, None = nobody knows.

    Growth without a limit, or below its limit, is worth a look; above it the link is at fault.
    """
    if grown <= 0:
        return OK
    limit = LIMITS.get(counter)
    text = f"{counter} +{grown}"
    if counter == "carrier_changes":
        return fail_answer(text) if grown > MOST_CARRIER_CHANGES else warn_answer(text)
    if limit is None:
        return warn_answer(text)
    if limit is NEVER or not apart_s:
        return fail_answer(text)
    rate = grown / apart_s * limit.per_s
    answer = fail_answer if rate > limit.most else warn_answer
    return answer(f"{text}, {rate:.3g}/{UNITS[limit.per_s]} of at most {limit.text}")
