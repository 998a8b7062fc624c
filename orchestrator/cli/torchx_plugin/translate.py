"""From TorchX's ``AppDef`` to what ``orchestrate run`` is asked for, or why it cannot be. Pure.

What TorchX says is taken as it is or refused by name: nothing of it is dropped. Its objects come as
``Any``, for TorchX is not imported here.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROLE_VARIABLE = "TORCHX_ROLE_NAME"
REPLICA_ID, RANK0 = "${replica_id}", "${rank0_env}"  # macros of TorchX, before they are filled in
DEFAULT_RDZV_PORTS = ("29500", "0")
# What torchrun is given by dist.ddp and dist.torchrun: options with the values that say nothing
# else than what a run does anyway; None = looked at below, or the same by another way.
TORCHRUN_OPTIONS: Mapping[str, tuple[str, ...] | None] = {
    "rdzv_backend": ("c10d", "static"),
    "rdzv_endpoint": None,
    "rdzv_id": None,
    "nnodes": None,
    "nproc_per_node": None,
    "node_rank": None,
    "tee": ("3",),
    "role": ("",),
}


class Unsupported(Exception):
    """What of an app cannot be honoured, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleNeeds:
    """What each node must have; nothing of it is reserved but the GPUs. 0 = nothing is asked."""

    cpus: int = 0
    memory_mb: int = 0
    gpus: int = 0

    def lacking(self, facts: Mapping[str, Any]) -> str:
        """What a node with these facts has too little of; "" = nothing."""
        found = {
            "CPUs": (self.cpus, int(facts.get("cpus") or 0)),
            "MB of memory": (self.memory_mb, int(facts.get("memory_bytes") or 0) // 1_000_000),
            "GPUs": (self.gpus, len(facts.get("gpus") or ())),
        }
        short = [f"{has} {what} of {asked}" for what, (asked, has) in found.items() if has < asked]
        return ", ".join(short)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """One run: ``words`` on ``replicas`` nodes of the cluster. ``ranks`` on each of them, which
    meet unless the launcher is ``command``; ``options`` are words for ``orchestrate run``.
    """

    run_id: str
    role: str
    replicas: int
    ranks: int
    needs: RoleNeeds
    cluster: str
    nodes: str
    workdir: str
    launcher: str
    env: tuple[tuple[str, str], ...]
    words: tuple[str, ...]
    options: tuple[str, ...] = ()

    def arguments(self, nodes: str) -> list[str]:
        """What follows ``orchestrate``, for the run on these nodes."""
        variables = [*self.env, (ROLE_VARIABLE, self.role)]
        if self.needs.gpus:
            shown = ",".join(map(str, range(self.needs.gpus)))
            variables.append(("CUDA_VISIBLE_DEVICES", shown))
        return [
            *("run", "--detach", "--cluster", self.cluster, "--run-id", self.run_id),
            *(("--nodes", nodes) if nodes else ()),
            *("--workdir", self.workdir, "--launcher", self.launcher),
            *("--ranks-per-node", str(self.ranks)),
            *(word for name, value in variables for word in ("--env", f"{name}={value}")),
            *(*self.options, "--", *self.words),
        ]

    def __str__(self) -> str:
        """As a shell would take it; which nodes are taken is decided when they were looked at."""
        return shlex.join(["orchestrate", *self.arguments(self.nodes)])


def refuse_app(app: Any) -> Any:
    """The app's only role. Raises :class:`Unsupported` with all that cannot be honoured."""
    if len(app.roles) != 1:
        names = ", ".join(str(role.name) for role in app.roles)
        what = f"{len(app.roles)} roles ({names}): a run has one; launch an app for each"
        raise Unsupported(what)
    role = app.roles[0]
    found = [*_of_app(app), *_of_role(role), *_of_resource(role.resource)]
    if found:
        raise Unsupported("; ".join(found))
    return role


def _of_app(app: Any) -> Iterator[str]:
    if app.metadata:
        yield f"metadata {', '.join(sorted(app.metadata))}: a run has none"


def _of_role(role: Any) -> Iterator[str]:
    if role.min_replicas not in (None, role.num_replicas):
        asked = f"{role.min_replicas}:{role.num_replicas}"
        yield f"min_replicas ({asked} nodes): the number of nodes is fixed; min_nodes in the "
        "inventory leaves bad ones out"
    if role.max_retries:
        yield f"max_retries={role.max_retries}: orchestrate resume RUN --retry begins another one"
    if role.mounts:
        yield "mounts: ranks run on the node itself and see its files"
    if role.metadata:
        yield f"metadata of role {role.name}: {', '.join(sorted(role.metadata))}"
    if getattr(role, "overrides", None):
        yield f"overrides of role {role.name}"


def _of_resource(resource: Any) -> Iterator[str]:
    for name in ("capabilities", "devices"):
        if asked := getattr(resource, name, None):
            words = ", ".join(sorted(map(str, asked)))
            yield f"resource {name} {words}: name the nodes that have them, nodes=EXPR"


def needs_of(resource: Any) -> RoleNeeds:
    """TorchX writes -1 for what nobody asked."""
    return RoleNeeds(
        cpus=max(0, int(resource.cpu)),
        memory_mb=max(0, int(resource.memMB)),
        gpus=max(0, int(resource.gpu)),
    )


def torchrun_line(role: Any) -> list[str] | None:
    """The words of the torchrun that ``dist.ddp`` makes of a script; None for other commands."""
    if role.entrypoint not in ("bash", "sh") or list(role.args[:1]) != ["-c"]:
        return None
    try:
        words = shlex.split(" ".join(role.args[1:]))
    except ValueError:
        return None
    return words[1:] if words[:1] == ["torchrun"] else None


def torchrun_job(words: Sequence[str], replicas: int) -> tuple[int, list[str]]:
    """(ranks on each node, what each rank runs), without torchrun's own options.

    Raises :class:`Unsupported` for an option that asks for something else than a run does.
    """
    given, job = _torchrun_options(list(words))
    for name, value in given.items():
        allowed = TORCHRUN_OPTIONS.get(name, ())
        if allowed is not None and value not in allowed:
            raise Unsupported(f"torchrun's --{name}={value}: the run decides that itself")
    if given.get("nnodes", str(replicas)) != str(replicas):
        raise Unsupported(f"torchrun's --nnodes={given['nnodes']} on {replicas} nodes")
    port = given.get("rdzv_endpoint", ":0").rpartition(":")[2]
    if port not in DEFAULT_RDZV_PORTS:
        raise Unsupported(
            f"rdzv_port={port}: the port is a free one that every node proved to reach"
        )
    ranks = given.get("nproc_per_node", "1")
    if not ranks.isdigit() or not int(ranks):
        raise Unsupported(f"torchrun's --nproc_per_node={ranks} is no number of ranks")
    return int(ranks), job if job[:1] == ["-m"] else ["python", *job]


def _torchrun_options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    given: dict[str, str] = {}
    at = 0
    while at < len(words) and words[at].startswith("--"):
        name, equals, value = words[at][2:].replace("-", "_").partition("=")
        if not equals:
            at += 1
            value = words[at] if at < len(words) else ""
        given[name] = value
        at += 1
    if at >= len(words):
        raise Unsupported("torchrun is given nothing to run")
    return given, words[at:]


def refuse_macros(role: Any) -> None:
    """Raise :class:`Unsupported` for macros that have no one value: every node is given the same
    command.
    """
    for macro, instead in ((REPLICA_ID, "$GROUP_RANK"), (RANK0, "$MASTER_ADDR of dist.torchrun")):
        if any(macro in text for text in (*role.args, *role.env.values())):
            raise Unsupported(f"macro {macro} of role {role.name}: use {instead} in the program")


def pick_nodes(facts: Mapping[str, Mapping[str, Any] | None], order: RunOrder) -> list[str]:
    """The first nodes, in the order of the inventory, that have what is asked. ``facts``: of each
    node that may be taken, None = it did not answer. Raises :class:`Unsupported`.
    """
    lacking = {
        name: "does not answer" if known is None else order.needs.lacking(known)
        for name, known in facts.items()
    }
    fit = [name for name, lack in lacking.items() if not lack]
    if len(fit) >= order.replicas:
        return fit[: order.replicas]
    short = "".join(f"; {name}: {lack}" for name, lack in lacking.items() if lack)
    raise Unsupported(f"{order.replicas} nodes are asked, {len(fit)} of {order.cluster} fit{short}")
