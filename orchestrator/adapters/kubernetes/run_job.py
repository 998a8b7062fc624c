"""A run whose nodes are pods: made when its first node is reached, removed when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from orchestrator.adapters.agent_client.connect_agent import Channel, connect_agent
from orchestrator.adapters.kubernetes.pod_job import JobTerms, PodJob, named_pods
from orchestrator.adapters.transport.ssh.failures import Refused
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.base.problem import Problem
from orchestrator.core.kubernetes.pod_health import exit_code_of
from orchestrator.core.kubernetes.pod_template import SWEEP_S
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.pod_place import job_selector
from orchestrator.core.model.request import RunRequest
from orchestrator.core.verdict.result import FailureResult, Result, Status
from orchestrator.parsing.inputs.pods.pod_cluster import pods_of
from orchestrator.parsing.replies.supervisor_records import BadRecord

# Kueue and the scheduler are asked every few seconds, and kubectl takes its time.
MARGIN_S = 60.0
DIRTY = "dirty"
LEFT = "OR-KUBE-013"


class MadeNodes:
    """``may_make``: False for a run whose ranks live in pods that are there, or nowhere.
    ``begun``: an earlier coordinator may have made some.
    """

    def __init__(
        self, request: RunRequest, note: Callable[[str], None], *, may_make: bool, begun: bool
    ) -> None:
        self._budgets = request.budgets
        self._note = note
        self._job = PodJob(request, pods_of(request), note)
        self._may_make = may_make
        self._begun = begun
        self._first = next(spec.pod for spec in request.cluster.workers if spec.pod is not None)
        self._ready: asyncio.Task[None] | None = None
        self._problem: Problem | None = None

    def patient(self, request: RunRequest) -> RunRequest:
        """With the time that pods may take before their node is connected."""
        terms = JobTerms.of(request)
        connect_s = self._budgets.connect_s + terms.queue_s + terms.start_s + MARGIN_S
        return replace(request, budgets=replace(request.budgets, connect_s=connect_s))

    async def dial(self, spec: NodeSpec, *, limits: ConnectLimits, timeout_s: float) -> Channel:
        """As ``connect_agent``, once all pods run."""
        if self._ready is None:
            self._ready = asyncio.create_task(self._prepare())
        await asyncio.shield(self._ready)
        within_s = min(timeout_s, self._budgets.connect_s)
        return await connect_agent(spec, limits=limits, timeout_s=within_s)

    async def remove(self) -> tuple[str, ...]:
        """What is left of the job in the cluster. Bounded, never raises."""
        if self._ready is not None:
            self._ready.cancel()
            await asyncio.gather(self._ready, return_exceptions=True)
        if not (self._begun or self._job.asked):
            return ()
        left = await self._job.remove(self._budgets.grace_s + self._budgets.clean_s + SWEEP_S)
        if not left:
            self._note(f"removed JobSet {self._first.job}; nothing of it is left")
        return left

    def judge(self, result: Result, left: tuple[str, ...]) -> Result:
        """``result`` with what the nodes' maker knows: why there were none, and what is left."""
        if self._problem is not None and result.status is Status.FAILED:
            problem = self._problem
            failure = FailureResult(id=problem.id, cause=problem.message, remedy=problem.remedy)
            result = replace(result, failure=failure, exit_code=exit_code_of(problem))
        if not left:
            return result
        shown = self._first.command("get", "jobset,pods", "-l", job_selector(self._first.job))
        warning = f"not removed: {named_pods(left)} [{LEFT}]; {shown}"
        nodes = tuple(replace(node, state=DIRTY, reason=warning) for node in result.nodes)
        return replace(result, nodes=nodes, warnings=(*result.warnings, warning))

    async def _prepare(self) -> None:
        """Raises ``PreflightError``, which is then that of every node."""
        try:
            if self._may_make:
                await self._job.make()
                await self._job.await_pods()
            elif not await self._job.exists():
                raise Refused(
                    f"the JobSet {self._first.job} is gone, and its pods with it",
                    id="OR-KUBE-011",
                    where=self._first.job,
                    remedy=self._first.command("get", "events", "--sort-by", ".lastTimestamp"),
                )
        except BadRecord as error:
            invalid = PreflightError(
                "invalid reply of the API server",
                id="OR-KUBE-006",
                why=str(error)[:300],
                remedy=f"{self._first.command('version')} should name 1.25 or newer on both sides",
            )
            raise self._keep(invalid) from error
        except PreflightError as error:
            raise self._keep(error) from error

    def _keep(self, error: PreflightError) -> PreflightError:
        message = f"{error.what}: {error.why}" if error.why else error.what
        self._problem = Problem(id=error.id, message=message, remedy=error.remedy)
        return error


async def remove_nodes(request: RunRequest) -> tuple[str, ...]:
    """What is left of a run's pods once they were removed. Bounded; raises ``OrchestrateError``."""
    return await MadeNodes(request, lambda _: None, may_make=False, begun=True).remove()
