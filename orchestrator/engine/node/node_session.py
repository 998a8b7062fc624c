"""One node in one attempt of a run: the link that every phase shares, and who asks."""

from __future__ import annotations

import getpass
import platform
from dataclasses import dataclass

from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.request import RunRequest
from orchestrator.core.run.state import RunState
from orchestrator.engine.node.link import NodeLink
from orchestrator.engine.support.context import Post, RunContext

# How an agent refuses requests of a coordinator that another one has followed.
FENCED = "OR-AGENT-FENCED"
# What it does not know: an attempt that was never launched, a port of another agent.
ABSENT = "OR-AGENT-ABSENT"
# A sweep fences off launches of the same epoch that come too late.
SWEEP_STEP = 1
QUICK_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSession:
    """What is there from the beginning of an attempt to its end. ``post`` takes its events."""

    spec: NodeSpec
    link: NodeLink
    request: RunRequest
    attempt: int
    epoch: int
    context: RunContext
    post: Post

    @classmethod
    def begin(cls, spec: NodeSpec, context: RunContext, state: RunState, post: Post) -> NodeSession:
        """That of the attempt that ``state`` is in; nothing is contacted."""
        link = NodeLink(
            spec,
            silence_s=state.request.budgets.silence_s,
            limits=context.limits,
            clock=context.clock,
            dial=context.dial,
        )
        return cls(
            spec=spec,
            link=link,
            request=state.request,
            attempt=state.attempt,
            epoch=state.epoch,
            context=context,
            post=post,
        )

    @property
    def name(self) -> str:
        return self.spec.name

    def named_fields(self) -> dict[str, object]:
        """Which attempt a request is about."""
        return {"run": self.request.run_id, "node": self.name, "attempt": self.attempt}

    def fenced_fields(self, later: int = 0) -> dict[str, object]:
        """And who asks. ``later`` than this epoch is what nothing else we asked for passes."""
        epoch = self.epoch + later
        return {**self.named_fields(), "epoch": epoch, "token": self.request.token}

    def lease_fields(self) -> dict[str, object]:
        """And for how long the ranks may go on without hearing of us."""
        return {**self.fenced_fields(), "lease_s": self.request.budgets.lease_s}


def coordinator_name() -> str:
    """Who coordinates, for those who find our locks taken."""
    return f"{getpass.getuser()}@{platform.node()}"
