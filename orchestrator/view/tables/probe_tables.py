"""What a probe found, as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from orchestrator.core.base.nodeset import fold_nodeset
from orchestrator.core.model.facts import Facts, Gpu, Hca
from orchestrator.view.tables.table_data import NONE, UNKNOWN, Table, figure_text, fold_rows
from orchestrator.view.terminal.text import brief_text, format_size

GIB = 1024**3
IN_STEP_S = 0.5


def probe_tables(found: Sequence[Facts], section: str) -> Iterator[Table]:
    """The tables of one section, or of all."""
    for name, tables in SECTIONS.items():
        if section in (name, "all"):
            yield from (table for table in tables(found) if table.rows)


def note_lines(found: Sequence[Facts]) -> list[str]:
    """What nodes could not find out: each note once, with the nodes that say it."""
    told: dict[str, list[str]] = {}
    for facts in found:
        for note in facts.notes:
            told.setdefault(brief_text(note, 300), []).append(facts.node)
    return [f"{fold_nodeset(nodes)}: {note}" for note, nodes in told.items()]


# ---- summary ------------------------------------------------------------------------------------


def _summary(found: Sequence[Facts]) -> Iterator[Table]:
    headings = (
        "nodes",
        "GPUs",
        "driver",
        "NVLink",
        "adapters",
        "CPUs",
        "memory",
        "clock",
        "in use",
    )
    yield Table(headings=headings, rows=fold_rows((f.node, _summary_cells(f)) for f in found))


def _summary_cells(facts: Facts) -> tuple[str, ...]:
    return (
        _gpu_names(facts),
        facts.driver or (UNKNOWN if facts.gpus else NONE),
        _nvlink_kinds(facts),
        _adapters(facts),
        str(facts.cpus),
        f"{facts.memory_bytes / GIB:.0f} GiB",
        _clock(facts),
        _in_use(facts),
    )


def _gpu_names(facts: Facts) -> str:
    names = Counter(gpu.name for gpu in facts.gpus)
    least = min((gpu.memory_bytes for gpu in facts.gpus), default=0)
    each = f", {least / GIB:.0f} GiB" if least else ""
    return " + ".join(f"{count}x {name}" for name, count in names.items()) + each or NONE


def _nvlink_kinds(facts: Facts) -> str:
    if len(facts.gpus) < 2:
        return NONE
    kinds = sorted({p.kind for p in facts.paths if p.a.startswith("gpu") and p.b.startswith("gpu")})
    return ",".join(kinds) or UNKNOWN


def _adapters(facts: Facts) -> str:
    kinds = Counter((h.rate_gbit, h.link_layer) for h in facts.hcas if h.active)
    active = " + ".join(f"{n}x {rate:g}G {layer}" for (rate, layer), n in kinds.items())
    idle = len(facts.hcas) - sum(kinds.values())
    return (active + (f", {idle} not active" if idle else "")).lstrip(", ") or NONE


def _clock(facts: Facts) -> str:
    """Coarse on purpose: nodes whose clocks agree share a row, and an answer takes its time."""
    offset = facts.clock_offset_s
    return "in step" if abs(offset) < IN_STEP_S else f"{offset:+.1f} s"


def _in_use(facts: Facts) -> str:
    busy = [gpu for gpu in facts.gpus if gpu.users]
    if not facts.gpus:
        return NONE
    users = Counter(p.user or UNKNOWN for gpu in busy for p in gpu.processes)
    by = f" by {', '.join(users)}" if users else ""
    return f"{len(busy)} of {len(facts.gpus)}{by}"


# ---- GPUs ---------------------------------------------------------------------------------------


def _gpus(found: Sequence[Facts]) -> Iterator[Table]:
    headings = (
        *("GPU", "name", "memory", "power", "temp", "SM clock", "held back by", "PCIe"),
        *("ECC", "rows", "NVLink", "fabric", "modes", "used by"),
    )
    for facts in found:
        rows = tuple(_gpu_cells(gpu) for gpu in facts.gpus)
        title = f"{facts.node}: driver {figure_text(facts.driver)}, CUDA {figure_text(facts.cuda)}"
        yield Table(title=f"{title}, by {facts.gpu_source}", headings=headings, rows=rows)
    yield from _matrices(found)


def _gpu_cells(gpu: Gpu) -> tuple[str, ...]:
    used, total = gpu.memory_used_bytes / GIB, gpu.memory_bytes / GIB
    watts = "/".join(UNKNOWN if w is None else f"{w:.0f}" for w in (gpu.power_w, gpu.power_limit_w))
    clock = f"{figure_text(gpu.sm_clock_mhz)}/{figure_text(gpu.sm_clock_max_mhz)} MHz"
    return (
        str(gpu.index),
        gpu.name,
        f"{used:.1f}/{total:.0f} GiB",
        f"{watts} W",
        figure_text(gpu.temperature_c, " C"),
        clock,
        UNKNOWN if gpu.throttle is None else ",".join(gpu.throttle) or NONE,
        _pcie(gpu),
        _ecc(gpu),
        _rows(gpu),
        _nvlink(gpu),
        gpu.fabric or UNKNOWN,
        _modes(gpu),
        ", ".join(f"{p.user or UNKNOWN}:{p.name or p.pid}" for p in gpu.processes) or NONE,
    )


def _pcie(gpu: Gpu) -> str:
    link = gpu.pcie
    now, most = (
        f"{figure_text(link.gen)}x{figure_text(link.width)}",
        f"{figure_text(link.gen_max)}x{figure_text(link.width_max)}",
    )
    return f"gen{now}" if now == most else f"gen{now} of gen{most}"


def _ecc(gpu: Gpu) -> str:
    if gpu.ecc.enabled is None:
        return UNKNOWN
    if not gpu.ecc.enabled:
        return "off"
    return f"{figure_text(gpu.ecc.corrected)} corrected, {figure_text(gpu.ecc.uncorrected)} not"


def _rows(gpu: Gpu) -> str:
    rows = gpu.rows
    if rows.corrected is None or rows.uncorrected is None:
        return UNKNOWN
    state = " FAILED" if rows.failed else " pending" if rows.pending else ""
    return f"{rows.corrected + rows.uncorrected}{state}"


def _nvlink(gpu: Gpu) -> str:
    link = gpu.nvlink
    if link.total == 0:
        return NONE
    rate = f" x {link.mbyte_s / 1000:.1f} GB/s" if link.mbyte_s else ""
    errors = f", {link.errors} errors" if link.errors else ""
    return f"{figure_text(link.active)}/{figure_text(link.total)}{rate}{errors}"


def _modes(gpu: Gpu) -> str:
    persistent = {True: "persistent", False: "not persistent", None: "persistence ?"}
    words = [persistent[gpu.persistence], *(["MIG"] if gpu.mig else [])]
    if gpu.compute_mode not in ("", "default"):
        words.append(gpu.compute_mode)
    return ", ".join(words)


def _matrices(found: Sequence[Facts]) -> Iterator[Table]:
    """The topology, once for all nodes that have the same."""
    alike: dict[Table, list[str]] = {}
    for facts in found:
        if facts.gpus:
            alike.setdefault(_matrix(facts), []).append(facts.node)
    for table, nodes in alike.items():
        title = f"{fold_nodeset(nodes)}: topology"
        yield Table(title=title, headings=table.headings, rows=table.rows)


def _matrix(facts: Facts) -> Table:
    gpus = [f"gpu{gpu.index}" for gpu in facts.gpus]
    adapters = list(dict.fromkeys(hca.name for hca in facts.hcas))
    columns = (*gpus, *adapters)
    rows = tuple(
        (
            f"gpu{gpu.index}",
            *("X" if name == f"gpu{gpu.index}" else _between(facts, gpu, name) for name in columns),
            gpu.cpus or UNKNOWN,
            figure_text(gpu.numa_node),
        )
        for gpu in facts.gpus
    )
    return Table(headings=("", *columns, "CPUs", "NUMA"), rows=rows)


def _between(facts: Facts, gpu: Gpu, name: str) -> str:
    return facts.path(f"gpu{gpu.index}", name) or UNKNOWN


# ---- adapters -----------------------------------------------------------------------------------


def _ib(found: Sequence[Facts]) -> Iterator[Table]:
    headings = (
        *("port", "state", "link", "rate", "kind", "firmware", "netdev", "NUMA", "nearest GPU"),
        *("GIDs", "errors"),
    )
    for facts in found:
        rows = tuple(_hca_cells(facts, hca) for hca in facts.hcas)
        yield Table(title=f"{facts.node}: adapters", headings=headings, rows=rows)
    direct = ((f.node, _direct_cells(f)) for f in found if f.gpus and (f.hcas or len(f.gpus) > 1))
    yield Table(
        title="direct access to GPU memory",
        headings=("nodes", "peermem", "DMA-BUF", "IOMMU of the GPUs", "ACS redirects P2P at"),
        rows=fold_rows(direct),
    )


def _hca_cells(facts: Facts, hca: Hca) -> tuple[str, ...]:
    kinds = Counter(gid.kind or hca.link_layer for gid in hca.gids)
    errors = {name: count for name, count in hca.errors.items() if count}
    return (
        f"{hca.name}:{hca.port}",
        hca.state,
        hca.physical_state or UNKNOWN,
        f"{hca.rate_gbit:g} Gb/s" if hca.rate_gbit else UNKNOWN,
        hca.link_layer,
        hca.firmware or UNKNOWN,
        hca.netdev or NONE,
        figure_text(hca.numa_node),
        _nearest(facts, hca),
        ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or NONE,
        ", ".join(f"{name} {count}" for name, count in errors.items())
        or (NONE if hca.errors else UNKNOWN),
    )


def _nearest(facts: Facts, hca: Hca) -> str:
    order = ("PIX", "PXB", "PHB", "NODE", "SYS")
    kinds = [(facts.path(f"gpu{gpu.index}", hca.name), gpu.index) for gpu in facts.gpus]
    ranked = sorted((order.index(kind), index) for kind, index in kinds if kind in order)
    if not ranked:
        return NONE if not facts.gpus else UNKNOWN
    best = ranked[0][0]
    near = [str(index) for at, index in ranked if at == best]
    return f"{','.join(near)} ({order[best]})"


def _direct_cells(facts: Facts) -> tuple[str, ...]:
    dmabuf = {True: "yes", False: "no", None: UNKNOWN}[facts.dmabuf]
    peermem = UNKNOWN if facts.peermem is None else facts.peermem or "not loaded"
    bridges = facts.p2p.redirecting
    redirecting = UNKNOWN if bridges is None else ", ".join(bridges) or NONE
    return (peermem, dmabuf, figure_text(facts.p2p.iommu), redirecting)


# ---- network and environment --------------------------------------------------------------------


def _net(found: Sequence[Facts]) -> Iterator[Table]:
    headings = ("interface", "state", "addresses", "speed", "MTU", "kind", "")
    for facts in found:
        rows = tuple(
            (
                i.name,
                "up" if i.up else "down",
                ", ".join(i.addresses) or NONE,
                f"{i.speed_mbit / 1000:g} Gb/s" if i.speed_mbit else UNKNOWN,
                str(i.mtu or UNKNOWN),
                {True: "virtual", False: "device", None: UNKNOWN}[i.virtual],
                "SSH comes in here" if facts.route_address in i.addresses else "",
            )
            for i in facts.interfaces
            if not i.loopback
        )
        yield Table(title=f"{facts.node}: interfaces", headings=headings, rows=rows)


def _env(found: Sequence[Facts]) -> Iterator[Table]:
    yield Table(
        title="system",
        headings=(
            "nodes",
            "system",
            "kernel",
            "runs in",
            "memlock",
            "shared memory",
            "huge pages",
            "NUMA",
        ),
        rows=fold_rows((f.node, _system_cells(f)) for f in found),
    )
    yield Table(
        title="software",
        headings=("nodes", "driver", "CUDA", "python", "modules", "fabric manager", "Xids"),
        rows=fold_rows((f.node, _software_cells(f)) for f in found),
    )
    yield Table(
        title="disks",
        headings=("nodes", "path", "kind", "free", "size"),
        rows=fold_rows(
            (
                f.node,
                (
                    d.path,
                    d.kind or UNKNOWN,
                    format_size(_coarse(d.free_bytes)),
                    format_size(d.total_bytes),
                ),
            )
            for f in found
            for d in f.disks
        ),
    )
    yield Table(
        title="NCCL's files, and variables that logins set (ranks do not inherit those)",
        headings=("nodes", "where", "variable", "value"),
        rows=fold_rows((f.node, cells) for f in found for cells in _variables(f)),
    )


def _coarse(count: int) -> int:
    """To a tenth of a GB: free space never stands still."""
    return round(count / 1e8) * 100_000_000


def _system_cells(facts: Facts) -> tuple[str, ...]:
    machine = facts.virtual_machine
    where = ["machine ?" if machine is None else machine or "bare metal"]
    where += [facts.container] if facts.container else []
    limit = facts.memlock_bytes
    return (
        figure_text(facts.system),
        figure_text(facts.kernel),
        ", ".join(where),
        "unlimited" if limit is None else format_size(limit),
        UNKNOWN if facts.shm_bytes is None else format_size(facts.shm_bytes),
        UNKNOWN if facts.hugepages_bytes is None else format_size(facts.hugepages_bytes),
        " | ".join(facts.numa) or UNKNOWN,
    )


def _software_cells(facts: Facts) -> tuple[str, ...]:
    modules = ", ".join(f"{name} {version}" for name, version in sorted(facts.modules.items()))
    return (
        facts.driver or (UNKNOWN if facts.gpus else NONE),
        facts.cuda or (UNKNOWN if facts.gpus else NONE),
        facts.interpreter or UNKNOWN,
        modules or (UNKNOWN if not facts.interpreter else NONE),
        _manager(facts),
        _xids(facts),
    )


def _manager(facts: Facts) -> str:
    manager = facts.fabric_manager
    if manager is None:
        return NONE if not facts.gpus else UNKNOWN
    state = {True: "running", False: "not running", None: UNKNOWN}[manager.running]
    if not manager.switches and not manager.running:
        return NONE
    return f"{state} {manager.version}, {manager.switches} switches".replace("  ", " ")


def _xids(facts: Facts) -> str:
    if not facts.gpus:
        return NONE
    if facts.xids is None:
        return UNKNOWN
    told = (f"{'S' if x.switch else ''}Xid {x.code} x{x.count} at {x.pci}" for x in facts.xids)
    return ", ".join(told) or NONE


def _variables(facts: Facts) -> Iterator[tuple[str, str, str]]:
    for name, value in facts.nccl_conf.items():
        yield "nccl.conf", name, value
    for name, value in facts.exports.items():
        yield "login", name, value


SECTIONS: dict[str, Callable[[Sequence[Facts]], Iterator[Table]]] = {
    "summary": _summary,
    "gpu": _gpus,
    "ib": _ib,
    "net": _net,
    "env": _env,
}
