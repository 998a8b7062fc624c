"""Launchers are tried on the agent's own supervisors, with the fixtures of the agent's tests."""

from __future__ import annotations

from tests.contracts.agent.conftest import (
    channel,
    make_attempt,
    open_channel,
    shared_workdir,
    spec,
    workdir,
)

__all__ = ["channel", "make_attempt", "open_channel", "shared_workdir", "spec", "workdir"]
