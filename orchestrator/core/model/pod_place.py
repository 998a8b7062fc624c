"""Where a node is a pod: which one, and what of Kubernetes it lives in."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from orchestrator.core.base.wire_names import wire

# The container of a pod that stands for the node, and where its files are.
CONTAINER = "ranks"
WORK_DIR = "/orchestrate/work"
JOB_LABEL = "app.kubernetes.io/instance"
GROUP_LABEL = "jobset.sigs.k8s.io/replicatedjob-name"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


@wire("PodPlace")
@dataclass(frozen=True, slots=True, kw_only=True)
class PodPlace:
    """The pod with number ``index`` of the JobSet's group ``group``. ``context`` and ``namespace``
    ``""`` = as kubectl decides. ``python``: the program of the image that its commands start with.
    """

    job: str
    group: str
    index: int
    namespace: str = ""
    context: str = ""
    python: str = "python3"

    @property
    def kubectl(self) -> tuple[str, ...]:
        """How kubectl is called for anything in its namespace."""
        context = ("--context", self.context) if self.context else ()
        namespace = ("--namespace", self.namespace) if self.namespace else ()
        return ("kubectl", *context, *namespace)

    @property
    def selector(self) -> str:
        """The labels that it alone has."""
        return f"{job_selector(self.job)},{GROUP_LABEL}={self.group},{INDEX_LABEL}={self.index}"

    def command(self, *words: str) -> str:
        """A line to paste into a shell."""
        return shlex.join([*self.kubectl, *words])


def job_selector(job: str) -> str:
    """The labels of all that was made for a job."""
    return f"{JOB_LABEL}={job}"
