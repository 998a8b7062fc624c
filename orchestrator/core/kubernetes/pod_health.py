"""What Kubernetes says of a run's pods: ready, to be waited for, or hopeless, and why. Pure.

Ids: OR-KUBE-001 no kubectl, 002 no context, 003 no API server, 004 not allowed, 005 no JobSet
there, 006 refused, 007 not admitted in time, 008 not scheduled in time, 009 image, 010 not started,
011 pod lost, 012 name taken, 013 not removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.core.base.errors import ExitCode
from orchestrator.core.base.problem import Problem
from orchestrator.core.model.pod_place import PodPlace

NOT_ADMITTED, NOT_SCHEDULED = "OR-KUBE-007", "OR-KUBE-008"
BAD_IMAGE, NOT_STARTED, POD_LOST = "OR-KUBE-009", "OR-KUBE-010", "OR-KUBE-011"
# Waiting longer may help with these, and another user's job is what stands in the way.
BUSY = frozenset({NOT_ADMITTED, NOT_SCHEDULED})
# A first failure to pull (ErrImagePull) may pass; kubelet has tried again by the time of these.
IMAGE_REASONS = frozenset(
    {"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
START_REASONS = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",
        "StartError",
        "ContainerCannotRun",
    }
)
ENDED = frozenset({"Failed", "Succeeded"})
NO_SUCH_QUEUE = "Inadmissible"
MAX_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    """A pod as the API server shows it; texts are printable and bounded. ``waiting`` and
    ``waiting_why`` are of its container; ``ended_by``: why it is to go, as its conditions say.
    """

    name: str
    uid: str
    group: str
    index: int
    phase: str = ""
    machine: str = ""
    reason: str = ""
    message: str = ""
    running: bool = False
    unscheduled: str = ""
    waiting: str = ""
    waiting_why: str = ""
    exit_code: int | None = None
    exit_reason: str = ""
    ended_by: str = ""
    deleting: bool = False
    silent: bool = False

    @property
    def scheduled(self) -> bool:
        return bool(self.machine) and not self.unscheduled

    @property
    def over(self) -> bool:
        return self.phase in ENDED or self.deleting or self.exit_code is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """Kueue's word on the job. ``admitted`` None: Kueue said nothing of it yet."""

    admitted: bool | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """The JobSet as the API server shows it. ``failed``: why its controller gave it up."""

    owner: str
    uid: str
    suspended: bool = False
    failed: str = ""
    deleting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """A warning event: about which object, and what."""

    object: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Not ready yet. ``id``: what it is called when the time is up; ``text``: for what it waits.
    ``queued``: for others to make room, not for a machine to be prepared.
    """

    id: str
    text: str
    remedy: str
    queued: bool = True

    def overdue(self, after_s: float) -> Problem:
        return Problem(
            id=self.id,
            message=f"after {after_s:.0f} s: {self.text}",
            remedy=self.remedy,
        )


def exit_code_of(problem: Problem) -> ExitCode:
    """What a run that got no pods ends with."""
    return ExitCode.BUSY if problem.id in BUSY else ExitCode.PREFLIGHT


def judge_queue(
    job: JobState, queue: QueueState, name: str, place: PodPlace
) -> Waiting | Problem | None:
    """None: the job is admitted, or in no queue."""
    look = place.command("get", "workloads.kueue.x-k8s.io,localqueues.kueue.x-k8s.io")
    if job.failed:
        remedy = place.command("describe", "jobset", place.job)
        return Problem(
            id=POD_LOST, message=f"JobSet {place.job} failed: {job.failed}", remedy=remedy
        )
    if queue.admitted is False and queue.reason == NO_SUCH_QUEUE and "exist" in queue.message:
        message = f"Kueue cannot admit {place.job}: {queue.message}"
        return Problem(id=NOT_ADMITTED, message=message, remedy=f"--pod-queue; {look}")
    if not job.suspended:
        return None
    said = queue.message or "Kueue has not said why; is Kueue installed, and does the queue exist?"
    text = f"the job waits in the queue {name or '(none)'}: {said}"
    return Waiting(id=NOT_ADMITTED, text=text, remedy=f"--wait SECONDS waits longer; {look}")


def judge_pods(
    pods: Sequence[PodState], places: Sequence[PodPlace], warned: Sequence[Warned]
) -> Waiting | Problem | None:
    """None: the pod of every place runs."""
    found = {(pod.group, pod.index): pod for pod in pods}
    for place in places:
        pod = found.get((place.group, place.index))
        if pod is not None and (problem := _hopeless(pod, place, warned)):
            return problem
    missing = [place for place in places if (place.group, place.index) not in found]
    if missing:
        return _not_made(missing, warned)
    present = [(found[place.group, place.index], place) for place in places]
    if unscheduled := [(pod, place) for pod, place in present if not pod.scheduled]:
        return _not_scheduled(*unscheduled[0], len(unscheduled))
    if starting := [(pod, place) for pod, place in present if not pod.running]:
        return _starting(*starting[0], len(starting), warned)
    return None


def judge_pod(pod: PodState | None, place: PodPlace) -> Problem | None:
    """Why the pod that was there cannot be reached any more; None: it seems to run."""
    events = place.command("get", "events", "--sort-by", ".lastTimestamp")
    if pod is None:
        message = f"{place.job} has no pod {place.group}-{place.index}: deleted, or never made"
        return Problem(id=POD_LOST, message=message, remedy=events)
    if pod.over:
        return Problem(
            id=POD_LOST, message=_ending(pod), remedy=place.command("describe", "pod", pod.name)
        )
    return None


def describe_silence(pod: PodState) -> str:
    """What is to be said of a pod that runs and does not answer."""
    if pod.silent:
        return f"the machine {pod.machine} of pod {pod.name} does not answer the API server either"
    return f"pod {pod.name} runs on {pod.machine or 'an unknown machine'}"


def _hopeless(pod: PodState, place: PodPlace, warned: Iterable[Warned]) -> Problem | None:
    describe = place.command("describe", "pod", pod.name)
    if pod.waiting in IMAGE_REASONS:
        said = pod.waiting_why or _last_warning(pod.name, warned)
        message = f"pod {pod.name}: {pod.waiting}: {said}"
        return Problem(
            id=BAD_IMAGE,
            message=message,
            remedy=f"correct --pod-image, or give the namespace a pull secret; {describe}",
        )
    if pod.waiting in START_REASONS:
        message = (
            f"pod {pod.name}: {pod.waiting}: {pod.waiting_why or _last_warning(pod.name, warned)}"
        )
        return Problem(id=NOT_STARTED, message=message, remedy=describe)
    if pod.over:
        return Problem(id=POD_LOST, message=_ending(pod), remedy=describe)
    return None


def _ending(pod: PodState) -> str:
    whence = f" on {pod.machine}" if pod.machine else ""
    why = pod.ended_by or ": ".join(filter(None, (pod.reason, pod.message)))
    if not why and pod.exit_code is not None:
        why = f"its first process ended with exit code {pod.exit_code} {pod.exit_reason}".strip()
    if not why and pod.deleting:
        why = "it is being deleted"
    return f"pod {pod.name}{whence} ended: {why or pod.phase}"


def _not_made(missing: Sequence[PodPlace], warned: Sequence[Warned]) -> Waiting:
    first = missing[0]
    text = f"{len(missing)} pods of {first.job} are not made yet"
    if said := _last_warning(first.job, warned):
        text = f"{text}: {said}"
    remedy = first.command(
        "describe", "jobset,job", "-l", f"app.kubernetes.io/instance={first.job}"
    )
    return Waiting(id=NOT_STARTED, text=text, remedy=f"is the JobSet controller there? {remedy}")


def _not_scheduled(pod: PodState, place: PodPlace, count: int) -> Waiting:
    said = pod.unscheduled or "no scheduler has given it a machine yet"
    text = f"{count} pods are not scheduled; {pod.name}: {said}"
    remedy = f"--wait SECONDS waits longer; {place.command('describe', 'pod', pod.name)}"
    return Waiting(id=NOT_SCHEDULED, text=text, remedy=remedy)


def _starting(pod: PodState, place: PodPlace, count: int, warned: Sequence[Warned]) -> Waiting:
    said = ": ".join(filter(None, (pod.waiting, pod.waiting_why))) or pod.phase
    text = f"{count} pods are not running yet; {pod.name} on {pod.machine or '?'}: {said}"
    if warning := _last_warning(pod.name, warned):
        text = f"{text}; {warning}"
    remedy = f"--budget prepare=SECONDS waits longer; {place.command('describe', 'pod', pod.name)}"
    return Waiting(id=NOT_STARTED, text=text, remedy=remedy, queued=False)


def _last_warning(name: str, warned: Iterable[Warned]) -> str:
    """The last one about the object, or about what was made for it."""
    about = [w for w in warned if w.object == name or w.object.startswith(f"{name}-")]
    return f"{about[-1].reason}: {about[-1].message}" if about else ""
