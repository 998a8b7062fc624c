"""The scheduler itself: TorchX's calls as commands of ours. Imported by TorchX alone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import torchx
from torchx.schedulers.api import DescribeAppResponse, ListAppResponse, Scheduler, Stream
from torchx.schedulers.ids import make_unique
from torchx.specs import (
    AppDef,
    AppDryRunInfo,
    AppState,
    InvalidRunConfigException,
    ReplicaStatus,
    Role,
    RoleStatus,
    macros,
    runopts,
)
from torchx.workspace import WorkspaceMixin

from orchestrator.adapters.store.background_command import own_command, own_environment
from orchestrator.adapters.store.layout import Layout
from orchestrator.cli.torchx_plugin import app_runs
from orchestrator.cli.torchx_plugin.translate import (
    RunOrder,
    Unsupported,
    needs_of,
    pick_nodes,
    refuse_app,
    refuse_macros,
    torchrun_job,
    torchrun_line,
)
from orchestrator.core.base.nodeset import fold_nodeset
from orchestrator.core.launchers import LAUNCHERS

BACKEND = "orchestrate"
PROBE_S = 120.0
STOP_S = 300.0
STREAMS = {Stream.STDOUT: "out", Stream.STDERR: "err"}


class RefusedByTorchx(InvalidRunConfigException):  # type: ignore[misc] # TorchX comes without types
    """As TorchX's command line shows one, without a traceback: 0.7.0 shows ``cfg_key`` alone."""

    def __init__(self, what: str) -> None:
        Exception.__init__(self, what)
        self.cfg_key = what


class OrchestrateScheduler(WorkspaceMixin, Scheduler):  # type: ignore[misc] # likewise
    """Apps are runs in the background; what is known of them is in ``$ORCHESTRATE_HOME``."""

    def __init__(self, session_name: str) -> None:
        super().__init__(BACKEND, session_name)
        self._layout = Layout.from_environment(os.environ)

    def _run_opts(self) -> runopts:
        options = runopts()
        for name, type_, help_ in (
            ("nodes", str, "only these nodes of it may be taken, such as gpu[01-04]"),
            ("container", str, "image that the ranks run in, as orchestrate run --container"),
            ("container_engine", str, "what runs it: podman, docker, apptainer, enroot"),
            ("timeout", int, "seconds that the ranks may run"),
            ("wait", int, "seconds to queue while other runs hold GPUs or machines"),
        ):
            options.add(name, type_=type_, default=None, help=help_)
        meeting = ("auto", *(each.name for each in LAUNCHERS.values() if each.ranks_meet))
        options.add("cluster", type_=str, required=True, help="inventory: a name or a file")
        options.add(
            "launcher",
            type_=str,
            default="auto",
            help=f"what starts the ranks of dist.ddp and dist.torchrun: {', '.join(meeting)}",
        )
        options.add("exclusive", type_=bool, default=False, help="keep other runs off the machines")
        options.add(
            "fabric_probe", type_=bool, default=True, help="try a collective before the launch"
        )
        return options

    def build_workspace_and_update_role(
        self, role: Role, workspace: str, cfg: Mapping[str, Any]
    ) -> None:
        """The folder travels when the run begins, only what is missing; nothing is built here."""
        del cfg
        _refuse_image(role)
        role.image = str(Path(workspace.removeprefix("file://")).resolve())

    def caching_build_workspace_and_update_role(
        self, role: Role, cfg: Mapping[str, Any], build_cache: dict[object, object]
    ) -> None:
        """The same by the later interface."""
        del build_cache
        if not role.workspace:
            return
        if not role.workspace.is_unmapped_single_project():
            raise RefusedByTorchx("a workspace of several folders: one folder travels with a run")
        self.build_workspace_and_update_role(role, str(role.workspace), cfg)

    def _validate(self, app: AppDef, scheduler: str, cfg: Mapping[str, Any] | None = None) -> None:
        """A role without a resource asks for nothing, which every node has."""

    def _submit_dryrun(self, app: AppDef, cfg: Mapping[str, Any]) -> AppDryRunInfo:
        try:
            return AppDryRunInfo(self._order(app, cfg), str)
        except Unsupported as what:
            raise RefusedByTorchx(f"this scheduler cannot honour {what}") from None

    def _order(self, app: AppDef, cfg: Mapping[str, Any]) -> RunOrder:
        role = refuse_app(app)
        _refuse_image(role)
        line = torchrun_line(role)
        if line is None:
            refuse_macros(role)
        run_id = make_unique(app.name)
        values = macros.Values(img_root="", app_id=run_id, replica_id="", rank0_env="MASTER_ADDR")
        filled = values.apply(role)
        launcher, ranks = "command", 1
        words = [filled.entrypoint, *filled.args]
        if line is not None:
            launcher = str(cfg["launcher"])
            ranks, words = torchrun_job(torchrun_line(filled) or [], role.num_replicas)
        folder = Path(role.image)
        return RunOrder(
            run_id=run_id,
            role=role.name,
            replicas=role.num_replicas,
            ranks=ranks,
            needs=needs_of(role.resource),
            cluster=_cluster(str(cfg["cluster"])),
            nodes=cfg.get("nodes") or "",
            workdir=str(folder if folder.is_dir() else Path.cwd()),
            launcher=launcher,
            env=tuple(filled.env.items()),
            words=tuple(words),
            options=tuple(_options(cfg)),
        )

    def schedule(self, dryrun_info: AppDryRunInfo) -> str:
        """Until the ranks run, or the run queues; progress goes to standard error."""
        order: RunOrder = dryrun_info.request
        try:
            nodes = pick_nodes(self._facts(order), order)
        except Unsupported as what:
            raise RefusedByTorchx(str(what)) from None
        done = _command(self._layout, order.arguments(fold_nodeset(nodes)), folder=order.workdir)
        if done.returncode:
            _fail(f"orchestrate run ended with exit code {done.returncode}; its reason is above")
        return order.run_id

    def _facts(self, order: RunOrder) -> dict[str, Mapping[str, Any] | None]:
        """What each node that may be taken has, in the order of the inventory."""
        words = ["probe", "--json", "--cluster", order.cluster]
        words += ["--nodes", order.nodes] if order.nodes else []
        done = _command(self._layout, words, folder=order.workdir, limit_s=PROBE_S)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        facts = {r["node"]: r.get("facts") for r in records if r.get("type") == "node"}
        if not facts:
            _fail(f"orchestrate probe ended with exit code {done.returncode}; its reason is above")
        return facts

    def describe(self, app_id: str) -> DescribeAppResponse | None:
        folder = app_runs.find_app(self._layout, app_id)
        if folder is None:
            return None
        run = app_runs.look_at(folder)
        replicas = [
            ReplicaStatus(id=at, state=AppState[state], role=run.role, hostname=node)
            for at, (node, state) in enumerate(run.replicas)
        ]
        return DescribeAppResponse(
            app_id=app_id,
            state=AppState[run.state],
            num_restarts=0,
            msg=run.message,
            roles_statuses=[RoleStatus(role=run.role, replicas=replicas)],
            roles=[Role(name=run.role, image="", num_replicas=len(replicas))],
        )

    def list(self, cfg: Mapping[str, Any] | None = None) -> list[ListAppResponse]:
        """The latest runs of this home, whoever started them."""
        del cfg
        return [
            ListAppResponse(app_id=run.run_id, state=AppState[run.state])
            for run in app_runs.list_apps(self._layout)
        ]

    def _cancel_existing(self, app_id: str) -> None:
        """Returns when every node is clean."""
        done = _command(self._layout, ["stop", app_id], limit_s=STOP_S)
        if done.returncode:
            _fail(f"orchestrate stop ended with exit code {done.returncode}; its reason is above")

    def log_iter(  # noqa: PLR0917 - TorchX's signature, by position
        self,
        app_id: str,
        role_name: str,
        k: int = 0,
        regex: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        should_tail: bool = False,
        streams: Stream | None = None,
    ) -> Iterable[str]:
        """What the ranks of the ``k``-th node wrote."""
        del role_name  # a run has one
        if since is not None or until is not None:
            raise RefusedByTorchx("since and until: the lines of ranks carry no times")
        folder = app_runs.find_app(self._layout, app_id)
        if folder is None:
            raise RefusedByTorchx(f"no run is called {app_id}")
        stream = STREAMS.get(streams) if streams is not None else None
        return app_runs.log_lines(folder, k, stream, regex, follow=should_tail)


def _command(
    layout: Layout, words: Sequence[str], *, folder: str = ".", limit_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """A command of ours to its end; what it says to people is seen by those of TorchX."""
    try:
        return subprocess.run(
            own_command(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=own_environment(layout),
            cwd=folder,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RefusedByTorchx(f"orchestrate {words[0]} did not end within {limit_s:g} s") from None


def _refuse_image(role: Role) -> None:
    """An image that is no folder here is a container's, unless it is the one that TorchX puts into
    every component.
    """
    if role.image not in ("", torchx.IMAGE) and not Path(role.image).is_dir():
        what = (
            f"image {role.image}: ranks run in the Python environment that the inventory names, "
            f"or in a container: --scheduler_args container={role.image}"
        )
        raise RefusedByTorchx(f"this scheduler cannot honour {what}")


def _cluster(name: str) -> str:
    """A file is named so that it is found from the workspace, too."""
    return str(Path(name).resolve()) if Path(name).is_file() else name


def _options(cfg: Mapping[str, Any]) -> Iterable[str]:
    for name in ("container", "container_engine", "timeout", "wait"):
        if cfg.get(name) is not None:
            yield from (f"--{name.replace('_', '-')}", str(cfg[name]))
    if cfg.get("exclusive"):
        yield "--exclusive"
    if not cfg.get("fabric_probe", True):
        yield "--no-fabric-probe"


def _fail(what: str) -> NoReturn:
    raise RefusedByTorchx(what)
