"""An inventory file's text -> ``Cluster``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from orchestrator.core.base.command import Secret, Text
from orchestrator.core.base.nodeset import MAX_NAMES, expand_nodeset
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.inventory import (
    Cluster,
    Expectation,
    GpuSpec,
    NodeSpec,
    PythonKind,
    PythonSpec,
    Role,
    SshEndpoint,
    TransportKind,
)
from orchestrator.parsing.inputs.cluster_schema import (
    ClusterFile,
    GpuEntry,
    NodeEntry,
    NodeFields,
    PythonEntry,
    SecretEntry,
)
from orchestrator.parsing.inputs.container_schema import container_spec, merged_container
from orchestrator.parsing.inputs.validation import validate_document
from orchestrator.parsing.inputs.yaml_source import (
    Document,
    InputProblem,
    Path,
    parse_yaml,
    refuse_input,
)


def load_cluster(
    data: str | bytes,
    source: str,
    *,
    folder: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Cluster:
    """Validate an inventory.

    ``source`` is the file name in errors. Relative paths in the text are relative to ``folder``
    (default: the folder of ``source``); ``~`` is ``environ["HOME"]``. ``environ`` is where
    ``{secret: NAME}`` values are read; None leaves them empty, which is right for showing and wrong
    for running. Raises :class:`UsageError` listing every problem with file:line:column.
    """
    document = parse_yaml(data, source)
    entry = validate_document(ClusterFile, document)
    base = str(PurePosixPath(source).parent) if folder is None else folder
    return _Builder(document, entry, base, environ).cluster()


class _Builder:
    """Unfolds entries into nodes, and collects what only shows across entries."""

    def __init__(
        self,
        document: Document,
        entry: ClusterFile,
        folder: str,
        environ: Mapping[str, str] | None,
    ) -> None:
        self._document = document
        self._entry = entry
        self._folder = folder
        self._environ = environ
        self._problems: list[InputProblem] = []

    def cluster(self) -> Cluster:
        entry = self._entry
        nodes = self._nodes()
        groups = self._groups(nodes)
        workers = sum(node.role is Role.WORKER for node in nodes)
        if not workers:
            self._report(("nodes",), "no node has the role worker")
        if entry.min_nodes is not None and entry.min_nodes > workers:
            there = "there is 1 worker" if workers == 1 else f"there are {workers} workers"
            self._report(("min_nodes",), f"min_nodes: {entry.min_nodes}, but {there}")
        if self._problems:
            refuse_input(self._problems, self._document.source)
        return Cluster(
            name=entry.name,
            source=self._document.source,
            summary=entry.summary,
            nodes=tuple(nodes),
            groups=groups,
            expectations=tuple(Expectation(**e.model_dump()) for e in entry.expectations),
            currency=entry.currency,
            min_nodes=entry.min_nodes,
        )

    def _nodes(self) -> list[NodeSpec]:
        nodes: dict[str, NodeSpec] = {}
        members = self._memberships()
        for index, entry in enumerate(self._entry.nodes):
            path = ("nodes", index)
            names = expand_nodeset(entry.name)
            for name, host in zip(names, self._hosts(entry, names, path), strict=True):
                if name in nodes:
                    self._report((*path, "name"), f"node {name!r} is declared twice")
                nodes[name] = self._node(name, host, entry, path, members.get(name, []))
        if len(nodes) > MAX_NAMES:
            self._report(("nodes",), f"more than {MAX_NAMES} nodes")
        return list(nodes.values())

    def _hosts(self, entry: NodeEntry, names: tuple[str, ...], path: Path) -> tuple[str, ...]:
        if entry.ssh is None:
            return names
        hosts = expand_nodeset(entry.ssh) if "[" in entry.ssh else (entry.ssh,)
        if len(hosts) != len(names):
            what = f"ssh stands for {len(hosts)} hosts, the name for {len(names)} nodes"
            self._report((*path, "ssh"), what)
            return names
        return hosts

    def _node(
        self, name: str, host: str, entry: NodeEntry, path: Path, groups: Iterable[str]
    ) -> NodeSpec:
        fields = _merge_fields(self._entry.defaults, entry)
        return NodeSpec(
            name=name,
            role=Role(fields.role or Role.WORKER),
            transport=TransportKind(fields.transport or TransportKind.ASYNCSSH),
            ssh=SshEndpoint(
                host=host,
                user=fields.user,
                port=fields.port,
                identity_file=self._local(fields.key),
                jump=fields.jump,
                ssh_config=self._config(fields.ssh_config),
                known_hosts=self._local(fields.known_hosts),
            ),
            gpus=_gpu_spec(fields.gpus),
            python=self._python_spec(fields.python),
            workdir=fields.workdir or "~/.orchestrate",
            env={key: self._text(key, value, entry, path) for key, value in fields.env.items()},
            price_per_hour=fields.price_per_hour,
            groups=tuple(dict.fromkeys([*fields.groups, *groups])),
            container=container_spec(fields.container),
        )

    def _memberships(self) -> dict[str, list[str]]:
        """Node name -> the groups that the file's `groups` put it in."""
        known = {name for entry in self._entry.nodes for name in expand_nodeset(entry.name)}
        members: dict[str, list[str]] = {}
        for group, names in self._entry.groups.items():
            for name in expand_nodeset(names):
                members.setdefault(name, []).append(group)
                if name not in known:
                    what = f"group {group} names the unknown node {name!r}"
                    self._report(("groups", group), what, did_you_mean(name, known))
        return members

    def _groups(self, nodes: Iterable[NodeSpec]) -> dict[str, tuple[str, ...]]:
        groups: dict[str, list[str]] = {group: [] for group in self._entry.groups}
        for node in nodes:
            for group in node.groups:
                groups.setdefault(group, []).append(node.name)
        return {group: tuple(names) for group, names in groups.items()}

    def _text(self, key: str, value: str | SecretEntry, entry: NodeEntry, path: Path) -> Text:
        if isinstance(value, str):
            return value
        if self._environ is None:
            return Secret("")
        found = self._environ.get(value.secret)
        if found is None:
            owner = path if key in entry.env else ("defaults",)
            what = f"the secret for {key} is missing: ${value.secret} is not set here"
            self._report((*owner, "env", key), what, f"export {value.secret}=...")
        return Secret(found or "")

    def _python_spec(self, entry: PythonEntry | None) -> PythonSpec:
        if entry is None:
            return PythonSpec()
        base = entry.base or "python3"
        if not entry.sources:
            return PythonSpec(value=base, base=base)
        kind = PythonKind(entry.sources[0])
        value = "" if kind is PythonKind.WORKLOAD else str(getattr(entry, kind.value))
        if kind is PythonKind.REQUIREMENTS:
            value = self._local(value) or value
        return PythonSpec(kind=kind, value=value, base=base)

    def _config(self, path: str | None) -> str | None:
        """An ssh_config file; ``none`` is no file at all, as for ``ssh -F``."""
        return path if path is not None and path.lower() == "none" else self._local(path)

    def _local(self, path: str | None) -> str | None:
        """A path on the coordinator, relative to the inventory's folder."""
        if path is None:
            return None
        home = (self._environ or {}).get("HOME")
        if path.startswith("~"):
            return path.replace("~", home, 1) if home and path.startswith("~/") else path
        return str(PurePosixPath(self._folder) / path)

    def _report(self, path: Path, what: str, remedy: str = "") -> None:
        self._problems.append(InputProblem(self._document.place(path), what, remedy))


def _merge_fields(defaults: NodeFields, node: NodeFields) -> NodeFields:
    """``node`` over ``defaults``: maps merge key by key, everything else replaces."""
    merged = {name: getattr(defaults, name) for name in NodeFields.model_fields}
    merged |= {name: getattr(node, name) for name in node.model_fields_set if name in merged}
    merged["env"] = {**defaults.env, **node.env}
    if defaults.gpus and node.gpus:
        changes = {name: getattr(node.gpus, name) for name in node.gpus.model_fields_set}
        merged["gpus"] = defaults.gpus.model_copy(update=changes)
    merged["container"] = merged_container(defaults.container, node.container)
    if defaults.python and node.python:
        source = node.python if node.python.sources else defaults.python
        base = node.python.base or defaults.python.base
        merged["python"] = source.model_copy(update={"base": base})
    return NodeFields.model_construct(**merged)


def _gpu_spec(entry: GpuEntry | None) -> GpuSpec:
    if entry is None:
        return GpuSpec()
    indices = None if entry.indices is None else tuple(sorted(entry.indices))
    return GpuSpec(count=entry.count, type=entry.type, indices=indices)
