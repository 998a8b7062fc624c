"""Errors that the agent answers with: a stable id and a sentence."""

from __future__ import annotations


class AgentFault(Exception):
    """An operation cannot be done. ``id`` is one of the constants below, or a scheduler's own."""

    def __init__(self, id: str, message: str) -> None:
        super().__init__(message)
        self.id = id
        self.message = message


BAD_REQUEST = "OR-AGENT-REQUEST"
UNSAFE = "OR-AGENT-UNSAFE"
FENCED = "OR-AGENT-FENCED"
FOREIGN = "OR-AGENT-FOREIGN"
BUSY = "OR-AGENT-BUSY"
ABSENT = "OR-AGENT-ABSENT"
DAMAGED = "OR-AGENT-DAMAGED"
ENVIRONMENT = "OR-AGENT-ENVIRONMENT"
LAUNCH = "OR-AGENT-LAUNCH"
SYSTEM = "OR-AGENT-SYSTEM"


def no_answer_reason(error: Exception) -> str:
    """Why a program did not start, or gave no answer in time. Not with its whole command line, as
    ``TimeoutExpired`` says it: a message that is cut short would end before the reason.
    """
    limit_s = getattr(error, "timeout", None)
    return str(error) if limit_s is None else f"no answer within {limit_s:g} s"


def shorten_value(value: object) -> str:
    """A foreign value as it may appear in a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
