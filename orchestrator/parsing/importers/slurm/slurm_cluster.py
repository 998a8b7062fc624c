"""The nodes and partitions that records describe, put together as Slurm does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.core.base.nodeset import NodeSetError
from orchestrator.parsing.importers.foreign_nodes import Collector, Field
from orchestrator.parsing.importers.slurm.gres import gpus_of
from orchestrator.parsing.importers.slurm.hostlist import expand_hostlist, expand_parallel
from orchestrator.parsing.importers.slurm.slurm_records import TWO_RECORDS, Missing, SlurmRecord
from orchestrator.parsing.importers.slurm.states import is_future, state_trouble

_DEFAULT, _ALL = "default", "all"  # in any case of letters
# Settings of a node or a partition, which mean nothing in a line of their own.
_PARTS = frozenset(
    "boards corespeccount corespersocket feature features gres nodeaddr nodehostname nodes "
    "realmemory sockets socketsperboard threadspercore tmpdisk".split()
)
_NOTHING = frozenset({"", "(null)", "N/A"})


@dataclass(slots=True)
class _Node:
    record: SlurmRecord
    fields: dict[str, Field | None]
    groups: dict[str, None] = field(default_factory=dict)
    features: frozenset[str] = frozenset()


class Records:
    """Takes records in their order, and adds the nodes at the end."""

    def __init__(self, found: Collector) -> None:
        self._found = found
        self._nodes: dict[str, _Node] = {}
        self._defaults: dict[str, dict[str, str]] = {"nodename": {}, "partitionname": {}}
        self._sets: dict[str, SlurmRecord] = {}
        self._partitions: list[SlurmRecord] = []
        self._users: list[tuple[SlurmRecord, str]] = []  # jobs and reservations, with their nodes

    def take(self, record: SlurmRecord | Missing) -> None:
        if isinstance(record, Missing):
            self._at(record)
            self._found.unknown(f"the included file cannot be read: {record.why}", record.line)
        elif TWO_RECORDS in record.pairs:
            self._refuse(record, "two records in one line; each begins a line of its own")
        elif record["nodename"]:
            self._take_nodes(self._completed(record, "nodename"))
        elif record["reservationname"]:
            self._users.append((record, record["nodes"]))
        elif record["partitionname"]:
            completed = self._completed(record, "partitionname")
            self._partitions += [] if _is_default(record["partitionname"]) else [completed]
        elif record["nodeset"]:
            self._sets.setdefault(record["nodeset"], record)
        elif record["jobid"]:
            self._users.append((record, record["nodelist"]))
        elif record["downnodes"]:
            self._tell_down(record)
        elif record["include"]:
            self._refuse(record, "Include is written without '='")
        elif _PARTS & record.pairs.keys():
            what = f"{', '.join(sorted(_PARTS & record.pairs.keys()))} in a line without NodeName="
            self._refuse(record, f"{what}; does the line above lack its backslash?")

    def finish(self) -> None:
        """Put the nodes into their partitions, and all into the collector."""
        alone = not self._nodes
        for partition in self._partitions:
            self._take_partition(partition, alone=alone)
        for record, nodes in self._users:
            for name in self._names(record, nodes):
                self._nodes.setdefault(name, _Node(record, {}))
        for name, node in self._nodes.items():
            self._at(node.record)
            self._found.add(name, node.record.line, groups=node.groups, fields=node.fields)

    def _completed(self, record: SlurmRecord, kind: str) -> SlurmRecord:
        """``record`` over what the DEFAULT lines above it say; these add to each other."""
        pairs = {**self._defaults[kind], **record.pairs}
        if _is_default(record[kind]):
            self._defaults[kind] = pairs
        return SlurmRecord(record.file, record.line, pairs)

    def _take_nodes(self, record: SlurmRecord) -> None:
        if _is_default(record["nodename"]):
            return
        names = self._names(record, record["nodename"])
        if is_future(record["state"]):
            what = "does not exist yet (State=FUTURE): left out"
            self._warn(record, f"{record['nodename']} {what}")
            return
        addresses = self._addresses(record, names)
        if addresses is None:
            return
        for name, address in zip(names, addresses, strict=True):
            fields = {"ssh": None if address == name else address, "gpus": self._gpus(record)}
            groups = record["partitions"].split(",") if record["partitions"] else []
            if name in self._nodes:
                self._at(record)
                self._found.unknown("a node that is declared twice", record.line, name)
            self._nodes[name] = _Node(
                record,
                fields,
                dict.fromkeys(group for group in groups if group not in _NOTHING),
                frozenset(f"{record['features']},{record['feature']}".split(",")),
            )
        what = state_trouble(record["state"], record["reason"])
        if what and what != "unknown":  # in slurm.conf: to be found out
            self._warn(record, f"{record['nodename']} is {what}")

    def _addresses(self, record: SlurmRecord, names: tuple[str, ...]) -> tuple[str, ...] | None:
        """What is dialled: NodeAddr, else NodeHostname, else the name; ranges run in parallel."""
        for key in ("nodeaddr", "nodehostname"):
            if record[key] not in _NOTHING:
                try:
                    return expand_parallel(record[key], len(names))
                except NodeSetError as error:
                    self._at(record)
                    self._found.unknown(f"{key}: {error.reason}", record.line, record["nodename"])
                    return None
        return names

    def _gpus(self, record: SlurmRecord) -> Field | None:
        try:
            return gpus_of(record["gres"])
        except ValueError as error:
            self._warn(record, f"{record['nodename']}: {error}: no figure is taken")
            return None

    def _take_partition(self, record: SlurmRecord, *, alone: bool) -> None:
        """``alone``: no node is declared, so that the partitions are all that names nodes."""
        groups = dict.fromkeys(record["partitionname"].split(","))
        is_all = record["nodes"].lower() == _ALL
        names = tuple(self._nodes) if is_all else self._members(record)
        for name in names:
            if alone and name not in self._nodes:
                self._nodes[name] = _Node(record, {})
            if name in self._nodes:
                self._nodes[name].groups |= groups
            else:
                what = f"partition {record['partitionname']} names {name}"
                self._warn(record, f"{what}, which is declared nowhere")

    def _members(self, record: SlurmRecord) -> tuple[str, ...]:
        """The nodes of a partition, which may name sets of nodes."""
        names: dict[str, None] = {}
        for name in self._names(record, record["nodes"]):
            if name in self._sets:
                names |= dict.fromkeys(self._set(self._sets[name]))
            else:
                names[name] = None
        return tuple(names)

    def _set(self, record: SlurmRecord) -> Iterable[str]:
        if record["feature"]:
            yield from (n for n, node in self._nodes.items() if record["feature"] in node.features)
        yield from self._names(record, record["nodes"])

    def _tell_down(self, record: SlurmRecord) -> None:
        what = state_trouble(record["state"] or "down", record["reason"])
        if what:
            self._warn(record, f"{record['downnodes']} is {what}")

    def _names(self, record: SlurmRecord, text: str) -> tuple[str, ...]:
        if text in _NOTHING:
            return ()
        try:
            return expand_hostlist(text)
        except NodeSetError as error:
            self._at(record)
            self._found.unknown(f"{error.reason} (column {error.column})", record.line, text)
            return ()

    def _refuse(self, record: SlurmRecord, what: str) -> None:
        self._at(record)
        self._found.unknown(what, record.line)

    def _warn(self, record: SlurmRecord, text: str) -> None:
        self._at(record)
        self._found.warn(text, record.line)

    def _at(self, record: SlurmRecord | Missing) -> None:
        self._found.source = record.file


def _is_default(name: str) -> bool:
    return name.lower() == _DEFAULT
