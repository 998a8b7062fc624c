"""What an export must know that neither an inventory nor a workload says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

# torch's own default for the port of a rendezvous; a pod has all ports to itself.
RENDEZVOUS_PORT = 29500
# The longest name that a host, and so a pod that others find by its name, can have (RFC 1123).
MAX_HOST_CHARACTERS = 63
# What Kubernetes puts behind the name of a pod.
POD_SUFFIX = "-abcde"


class CodePlace(StrEnum):
    """Where pods find the code: in a ConfigMap, in their image, or on a PersistentVolumeClaim."""

    CONFIGMAP = "configmap"
    IMAGE = "image"
    CLAIM = "claim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """A taint of machines that pods put up with. ``value`` None: any; ``effect`` "": every one."""

    key: str
    value: str | None = None
    effect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """``name`` is that of all objects. ``image`` brings ``python``, 3.8 or newer, with what ranks
    import. ``resources``: what each pod asks for besides GPUs, as quantities by names.

    ``pull_secret``: the Secret with which the image is pulled, or ``""``.

    ``claim``: the PersistentVolumeClaim with the code, if it is there; ``results``: the one that
    keeps logs, reports and outputs, ``""`` = they are gone with the pods. ``queue``: Kueue's, or
    ``""``. ``serves``: the port of servers, which become a LeaderWorkerSet with ``replicas``
    groups; None = a job that ends, a JobSet.
    """

    name: str
    image: str
    python: str = "python3"
    namespace: str = ""
    resources: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    pull_secret: str = ""
    code: CodePlace = CodePlace.CONFIGMAP
    claim: str = ""
    results: str = ""
    queue: str = ""
    serves: int | None = None
    replicas: int = 1
    host_network: bool = False
    port: int = RENDEZVOUS_PORT

    @property
    def cpus(self) -> int:
        """Whole processors that a pod asks for; 0 = it does not say."""
        asked = self.resources.get("cpu", "")
        if asked.endswith("m"):
            return max(1, int(float(asked[:-1]) / 1000))
        return max(1, int(float(asked))) if asked else 0
