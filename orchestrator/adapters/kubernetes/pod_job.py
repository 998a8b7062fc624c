"""The JobSet of one run: made, waited for, and removed, with the user's own kubectl."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.adapters.kubernetes.kubectl import AlreadyThere, NotFound, ask_kubectl
from orchestrator.adapters.kubernetes.pod_programs import pod_program
from orchestrator.adapters.transport.ssh.failures import Refused
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.base.problem import Problem
from orchestrator.core.kubernetes.pod_health import (
    JobState,
    PodState,
    QueueState,
    Waiting,
    Warned,
    judge_pods,
    judge_queue,
)
from orchestrator.core.kubernetes.run_pods import (
    JOBSET,
    RunPods,
    access_reviews,
    job_set,
    owner_mark,
)
from orchestrator.core.model.pod_place import PodPlace, job_selector
from orchestrator.core.model.request import RunRequest
from orchestrator.parsing.replies.kubernetes_objects import (
    parse_context,
    parse_denied,
    parse_job,
    parse_pods,
    parse_queue,
    parse_warnings,
)

# Without --wait a job is not to queue: so long pods may take to be admitted and scheduled.
PROMPT_S = 120.0
FIRST_POLL_S, LAST_POLL_S, POLL_GROWTH = 0.3, 5.0, 1.5
# Of an earlier attempt, whose JobSet is still being removed.
REMOVED_WITHIN_S = 120.0
# An API server that does not answer is asked again for so long.
PATIENCE_S, RETRY_S = 120.0, 1.0
WORKLOADS = "workloads.kueue.x-k8s.io"
MAX_NAMED = 3
# A removal that is late is looked at once more.
LAST_LOOK_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTerms:
    """``queue_s``: how long pods may take until each has a machine; ``start_s``: and from then on
    until all run.
    """

    queue_s: float
    start_s: float

    @classmethod
    def of(cls, request: RunRequest) -> JobTerms:
        queue_s = PROMPT_S if request.wait_s is None else request.wait_s
        return cls(queue_s=queue_s, start_s=request.budgets.prepare_s)


class PodJob:
    """``note`` hears what is waited for. ``asked``: the API server was asked to make something.
    Every method may be repeated.
    """

    def __init__(self, request: RunRequest, pods: RunPods, note: Callable[[str], None]) -> None:
        self._request = request
        self._pods = pods
        self._note = note
        self._terms = JobTerms.of(request)
        self._places = [spec.pod for spec in request.cluster.workers if spec.pod is not None]
        self._first = self._places[0]
        self.name = pods.settings.name
        self.asked = False

    async def make(self) -> None:
        """The JobSet, unless it is there. Raises ``PreflightError``."""
        await self._check_access()
        manifest = json.dumps(job_set(self._request, self._pods, pod_program("hold"))).encode()
        while True:
            if (job := await self._find()) is not None and not job.deleting:
                return
            if job is not None:
                await self._await_removal(REMOVED_WITHIN_S)
            self.asked = True
            try:
                await self._ask("create", "--validate=ignore", "-f", "-", stdin=manifest)
            except AlreadyThere:
                await asyncio.sleep(FIRST_POLL_S)
                continue
            except NotFound as error:  # who may do all there may do it where there is nothing
                raise _nowhere(self._first, str(error)) from error
            return

    async def await_pods(self) -> None:
        """Until the pod of every node runs. Raises ``PreflightError`` with the reason."""
        clock = asyncio.get_running_loop().time
        began, scheduled, told, pause_s = clock(), 0.0, "", FIRST_POLL_S
        while (waiting := await self._look_patiently(thorough=pause_s >= 1)) is not None:
            scheduled = 0.0 if waiting.queued else scheduled or clock()
            limit_s = self._terms.queue_s if waiting.queued else self._terms.start_s
            waited_s = clock() - (began if waiting.queued else scheduled)
            if waited_s >= limit_s:
                raise _refused(waiting.overdue(waited_s), self.name)
            if waiting.text != told:
                told = waiting.text
                self._note(told)
            pause_s = min(pause_s * POLL_GROWTH, LAST_POLL_S)
            await asyncio.sleep(min(pause_s, max(limit_s - waited_s, FIRST_POLL_S)))

    async def remove(self, within_s: float) -> tuple[str, ...]:
        """Delete the JobSet and all that was made for it; what is still there after ``within_s``.
        Never raises: what could not be asked is still there for all we know.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + within_s

        def left_s() -> float:
            return max(deadline - clock(), 0.0)

        try:
            async with asyncio.timeout(within_s + LAST_LOOK_S):
                await _patiently(self._delete, within_s)
                return await _patiently(lambda: self._left(left_s()), left_s())
        except TimeoutError:
            return (f"JobSet {self.name}: the API server had no answer within {within_s:g} s",)
        except (PreflightError, NotFound, ValueError, OSError) as error:
            why = getattr(error, "why", "") or str(error)
            return (f"JobSet {self.name}: {why}",)

    async def _delete(self) -> None:
        if await self._find() is not None:
            flags = ("--ignore-not-found", "--wait=false", "--cascade=background")
            await self._ask("delete", JOBSET, self.name, *flags)

    async def exists(self) -> bool:
        """Raises ``PreflightError``."""
        return await self._find() is not None

    async def _find(self) -> JobState | None:
        """Ours. Raises ``Refused`` for one of the same name that another run made."""
        try:
            job = parse_job(await self._ask("get", JOBSET, self.name, "-o", "json"))
        except NotFound:
            return None
        if job.owner != owner_mark(self._request.token):
            raise Refused(
                f"another run made the JobSet {self.name}",
                id="OR-KUBE-012",
                where=self.name,
                remedy=f"another --run-id; {self._first.command('describe', JOBSET, self.name)}",
            )
        return job

    async def _look_patiently(self, *, thorough: bool) -> Waiting | None:
        return await _patiently(lambda: self._look(thorough=thorough), PATIENCE_S)

    async def _look(self, *, thorough: bool) -> Waiting | None:
        """What is waited for; None: nothing. Raises ``Refused``."""
        job = await self._find()
        if job is None:
            raise _refused(_gone(self._first), self.name)
        queue = await self._queue(job) if job.suspended else QueueState()
        verdict = judge_queue(job, queue, self._pods.settings.queue, self._first)
        if verdict is None:
            pods = await self._list()
            warned = await self._warnings() if thorough else []
            verdict = judge_pods(pods, self._places, warned)
        if isinstance(verdict, Problem):
            raise _refused(verdict, self.name)
        return verdict

    async def _list(self) -> list[PodState]:
        words = ("get", "pods", "--selector", job_selector(self.name), "-o", "json")
        return parse_pods(await self._ask(*words))

    async def _queue(self, job: JobState) -> QueueState:
        """Kueue may not be there, and a user need not be allowed to look at its workloads."""
        try:
            return parse_queue(await self._ask("get", WORKLOADS, "-o", "json"), job.uid)
        except (PreflightError, NotFound):
            return QueueState()

    async def _warnings(self) -> list[Warned]:
        """They explain; a user who may not see them gets pods all the same."""
        words = ("get", "events", "--field-selector", "type=Warning", "-o", "json")
        try:
            return parse_warnings(await self._ask(*words), self.name)
        except (PreflightError, NotFound):
            return []

    async def _check_access(self) -> None:
        """Before anything is made: a run that may not execute commands in its pods, or not remove
        them, is refused. Raises ``PreflightError``.
        """
        shown = await self._ask("config", "view", "--minify", "-o", "json")
        context, namespace, server = parse_context(shown)
        namespace = self._first.namespace or namespace
        reviews = json.dumps(access_reviews(namespace)).encode()
        flags = ("--validate=ignore", "-f", "-", "-o", "json")
        denied = parse_denied(await self._ask("create", *flags, stdin=reviews))
        if denied:
            named = ", ".join(f"{verb} {resource}" for verb, _, resource in denied)
            verb, group, resource = denied[0]
            kind = f"{resource}.{group}" if group else resource
            raise Refused(
                f"the user may not {named} in namespace {namespace}",
                id="OR-KUBE-004",
                where=f"{context} ({server})",
                why="the API server says so, asked by a SelfSubjectAccessReview",
                remedy=f"{self._first.command('auth', 'can-i', verb, kind)}; an administrator "
                "grants it by a Role and a RoleBinding; --pod-namespace names another namespace",
            )
        self._note(f"{len(self._places)} pods as JobSet {self.name} in {namespace} of {context}")

    async def _await_removal(self, within_s: float) -> None:
        if left := await self._left(within_s):
            message = f"an earlier attempt is still being removed: {named_pods(left)}"
            remedy = self._first.command("get", "pods", "-l", job_selector(self.name))
            raise _refused(Problem(id="OR-KUBE-013", message=message, remedy=remedy), self.name)

    async def _left(self, within_s: float) -> tuple[str, ...]:
        """What is still there of the job; empty as soon as nothing is."""
        clock = asyncio.get_running_loop().time
        deadline, pause_s = clock() + within_s, FIRST_POLL_S
        while True:
            job = () if await self._find() is None else (f"JobSet {self.name}",)
            pods = tuple(f"pod {pod.name}" for pod in await self._list())
            if not (job or pods) or clock() >= deadline:
                return (*job, *pods)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * POLL_GROWTH, 1.0)

    async def _ask(self, *words: str, stdin: bytes = b"") -> bytes:
        return await ask_kubectl(self._first, *words, stdin=stdin)


T = TypeVar("T")


async def _patiently(ask: Callable[[], Awaitable[T]], within_s: float) -> T:
    """The answer, asked for again while the API server does not answer: it may be restarted while
    a job waits for hours.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + within_s
    while True:
        try:
            return await ask()
        except Refused:
            raise
        except PreflightError:
            if clock() >= deadline:
                raise
        await asyncio.sleep(min(RETRY_S, max(deadline - clock(), 0.0)))


def _nowhere(place: PodPlace, why: str) -> Refused:
    remedy = f"--pod-namespace names another one; {place.command('get', 'namespaces')}"
    what = "the API server has no place for the JobSet"
    return Refused(what, id="OR-KUBE-006", where=place.job, why=why, remedy=remedy)


def _gone(place: PodPlace) -> Problem:
    message = f"the JobSet {place.job} was deleted by another client, and its pods with it"
    events = place.command("get", "events", "--sort-by", ".lastTimestamp")
    return Problem(id="OR-KUBE-011", message=message, remedy=events)


def _refused(problem: Problem, where: str) -> Refused:
    return Refused(problem.message, id=problem.id, where=where, remedy=problem.remedy)


def named_pods(left: Sequence[str]) -> str:
    """The first of what is left, in words."""
    more = f" and {len(left) - MAX_NAMED} more" if len(left) > MAX_NAMED else ""
    return ", ".join(left[:MAX_NAMED]) + more
