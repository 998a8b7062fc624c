"""One node in one attempt of a run: each phase gets the part of it that it needs, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.run.state import RunState
from orchestrator.engine.node.follower import NodeFollower
from orchestrator.engine.node.node_launch import NodeLauncher
from orchestrator.engine.node.node_session import NodeSession
from orchestrator.engine.node.node_setup import NodeSetup
from orchestrator.engine.node.trial_node import TrialNode
from orchestrator.engine.support.context import Post, RunContext


@dataclass(frozen=True, slots=True)
class NodeHandle:
    """The phases share the session and nothing else."""

    session: NodeSession
    setup: NodeSetup
    trials: TrialNode
    launcher: NodeLauncher
    follower: NodeFollower

    @classmethod
    def begin(
        cls,
        spec: NodeSpec,
        context: RunContext,
        state: RunState,
        post: Post,
        exchanged: Callable[[], None] = lambda: None,
    ) -> NodeHandle:
        """In the attempt that ``state`` is in; nothing is contacted. ``exchanged`` is called when
        more of what ranks exchange with us is on disk.
        """
        session = NodeSession.begin(spec, context, state, post)
        return cls(
            session=session,
            setup=NodeSetup(session),
            trials=TrialNode(session),
            launcher=NodeLauncher(session),
            follower=NodeFollower(session, exchanged),
        )

    @property
    def broken(self) -> bool:
        """Whether the link was there and is gone."""
        return self.session.link.broken

    async def close(self) -> None:
        """End watch, lease and link. Bounded, never raises."""
        await self.follower.close()
        await self.session.link.close()
