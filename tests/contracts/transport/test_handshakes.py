"""Which failures are worth another try, how often, and after which pause."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.adapters.transport.ssh import handshakes
from orchestrator.adapters.transport.ssh.failures import HandshakeCut, Refused
from orchestrator.adapters.transport.ssh.handshakes import (
    BACKOFF_INITIAL_S,
    BACKOFF_MAX_S,
    JITTER_S,
    Handshakes,
)
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import PreflightError

LIMITS = ConnectLimits(attempts=4)
CUT, REFUSED = HandshakeCut("cut", id="OR-SSH-007"), Refused("refused", id="OR-SSH-002")


class Server:
    """Answers with errors, one a try, and then lets everybody in."""

    def __init__(self, errors: Sequence[PreflightError]) -> None:
        self.tries = 0
        self._errors = errors

    async def connect(self) -> str:
        self.tries += 1
        if self.tries <= len(self._errors):
            raise self._errors[self.tries - 1]
        return "in"


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "_pause_after", lambda _: 0.0)


@pytest.mark.usefixtures("no_pause")
async def test_a_handshake_that_was_cut_is_tried_again() -> None:
    server = Server([CUT, CUT])
    assert await Handshakes(LIMITS).perform("a", server.connect) == "in"
    assert server.tries == 3


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("errors, tries", [([CUT] * 9, 4), ([REFUSED], 1), ([CUT, REFUSED], 2)])
async def test_the_last_error_is_the_answer(errors: list[PreflightError], tries: int) -> None:
    """Of a server that cuts each time, and of one that refuses: that is never tried again."""
    server = Server(errors)
    with pytest.raises(PreflightError) as caught:
        await Handshakes(LIMITS).perform("a", server.connect)
    assert (caught.value, server.tries) == (errors[tries - 1], tries)


async def test_a_pause_beyond_the_limit_is_not_begun() -> None:
    server = Server([CUT] * 9)
    hurried = replace(LIMITS, connect_timeout_s=BACKOFF_INITIAL_S / 4)
    with pytest.raises(HandshakeCut):
        await Handshakes(hurried).perform("a", server.connect)
    assert server.tries == 1


def test_pauses_grow_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (0.0, 1.0):
        monkeypatch.setattr("random.uniform", lambda low, high, at=part: low + at * (high - low))
        pauses = [handshakes._pause_after(attempt) for attempt in range(1, 9)]
        base = [pause - part * JITTER_S for pause in pauses]
        assert base[:3] == pytest.approx([BACKOFF_INITIAL_S * 2**n for n in range(3)])
        assert all(low <= high for low, high in itertools.pairwise(base))
        assert base[-1] == pytest.approx(BACKOFF_MAX_S)
