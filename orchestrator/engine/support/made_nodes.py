"""Runs whose nodes are made for them: made, handed to the engine, and removed after the verdict."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.launchers.kubernetes import KUBERNETES
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.request import RunRequest
from orchestrator.core.verdict.result import Result
from orchestrator.engine.support.context import RunContext


class NodeMaker(Protocol):
    """Who makes the nodes of one run."""

    def patient(self, request: RunRequest) -> RunRequest:
        """The request with the time that its nodes may take to be made."""

    async def dial(self, spec: NodeSpec, *, limits: ConnectLimits, timeout_s: float) -> Any:
        """As ``connect_agent``; the first call makes the nodes."""

    async def remove(self) -> tuple[str, ...]:
        """Remove all of them; what is left. Bounded, never raises."""

    def judge(self, result: Result, left: tuple[str, ...]) -> Result:
        """The verdict, with why there were no nodes, and what is left of them."""


# By launcher: the module with a ``MadeNodes`` that is such a maker, and ``remove_nodes``. It is
# imported for the runs that need it.
MAKERS: Mapping[str, str] = {KUBERNETES.name: "orchestrator.adapters.kubernetes.run_job"}


def _maker_module(request: RunRequest) -> Any:
    name = MAKERS.get(request.launcher)
    return None if name is None else importlib.import_module(name)


async def with_nodes(
    context: RunContext,
    drive: Callable[[RunContext], Awaitable[Result]],
    *,
    may_make: Callable[[], bool] | None = None,
) -> Result:
    """``drive`` the run to its verdict, on nodes that are there meanwhile.

    ``may_make`` is asked of a run that was begun before. Nothing is removed when there is no
    verdict: whoever resumes or stops the run finds its nodes.
    """
    module = _maker_module(context.request)
    if module is None:
        return await drive(context)
    begun = may_make is not None
    terms = {"begun": begun, "may_make": may_make() if may_make else True}
    maker: NodeMaker = module.MadeNodes(context.request, context.note, **terms)
    patient = replace(context, request=maker.patient(context.request), dial=maker.dial)
    result = await drive(patient)
    return maker.judge(result, await maker.remove())


async def remove_made_nodes(request: RunRequest) -> tuple[str, ...] | None:
    """Remove the nodes that were made for a run; what is left of them. None: its nodes were there
    before it. Raises ``OrchestrateError``.
    """
    module = _maker_module(request)
    return None if module is None else await module.remove_nodes(request)
