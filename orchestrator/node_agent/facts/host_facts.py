"""What this machine is apart from its devices: memory, disks, limits, kernel, container."""

from __future__ import annotations

import os

from orchestrator.node_agent.base.sysfs import list_names, parse_int, read_number, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NCCL_CONF = "/etc/nccl.conf"
MAX_CONF_BYTES = 64 * 1024
MAX_VARIABLES = 128
TUNING_PREFIXES = ("NCCL_", "TORCH_NCCL_", "TORCH_FR_", "GLOO_")
TUNING = frozenset({"CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_VISIBLE_DEVICES"})


def find_host(root: str) -> dict[str, Any]:
    """``root`` is where we keep our own files."""
    system = os.uname()
    status = os.statvfs(root)
    memory = memory_table()
    return {
        "hostname": system.nodename,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": limited_memory(memory.get("MemTotal", 0)),
        "memlock_bytes": memlock_limit(),
        "disk_free_bytes": status.f_bavail * status.f_frsize,
        "writable": os.access(root, os.W_OK),
        "disks": find_disks([root, "/", "/tmp"]),  # noqa: S108 - only looked at
        "shm_bytes": _size("/dev/shm"),  # noqa: S108
        "hugepages_bytes": _hugepages(memory),
        "kernel": system.release,
        "system": _system(),
        "container": find_container(),
        "virtual_machine": find_virtual_machine(),
        "numa": find_numa(),
        "nccl_conf": nccl_conf([NCCL_CONF, os.path.expanduser("~/.nccl.conf")]),
        "exports": login_exports(),
    }


def memlock_limit(proc: str = "/proc") -> int | None:
    """None = unlimited. The supervisor raises the soft limit to the hard one."""
    for line in read_text(f"{proc}/self/limits", 4096).splitlines():
        if line.startswith("Max locked memory"):
            return parse_int(line.split()[4])
    return 0


def memory_table(proc: str = "/proc") -> dict[str, int]:
    """/proc/meminfo: bytes, or plain numbers for what has no unit."""
    table = {}
    for line in read_text(f"{proc}/meminfo", 16384).splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        amount = parse_int(words[0]) if words else None
        if amount is not None:
            table[name] = amount * (1024 if words[1:] == ["kB"] else 1)
    return table


def limited_memory(total: int, cgroup: str = "/sys/fs/cgroup") -> int:
    """``total``, or the control group's limit if that is lower."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = read_number(f"{cgroup}/{name}")
        if limit is not None:
            total = min(total, limit)
    return total


def _hugepages(memory: dict[str, int]) -> int | None:
    if "HugePages_Total" not in memory:
        return None
    return memory["HugePages_Total"] * memory.get("Hugepagesize", 0)


def _size(path: str) -> int | None:
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_blocks * status.f_frsize


def find_disks(paths: list[str], proc: str = "/proc") -> list[dict[str, Any]]:
    """Each file system once, under the first of ``paths`` that lies on it."""
    mounts = [line.split(" ") for line in read_text(f"{proc}/self/mounts", 65536).splitlines()]
    kinds = {words[1]: words[2] for words in mounts if len(words) > 2}
    disks: dict[int, dict[str, Any]] = {}
    for path in paths:
        try:
            device, status = os.stat(path).st_dev, os.statvfs(path)
        except OSError:
            continue
        above = os.path.realpath(path)
        while above not in kinds and above != "/":
            above = os.path.dirname(above)
        disk = {
            "path": path,
            "kind": kinds.get(above, ""),
            "total_bytes": status.f_blocks * status.f_frsize,
            "free_bytes": status.f_bavail * status.f_frsize,
        }
        disks.setdefault(device, disk)
    return list(disks.values())


def _system(etc: str = "/etc") -> str:
    for line in read_text(f"{etc}/os-release", 4096).splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip("\"'")[:128]
    return ""


def find_container(root: str = "/") -> str:
    """What kind of container this is; "" = none that we know of."""
    groups = read_text(os.path.join(root, "proc/1/cgroup"), 4096)
    if "kubepods" in groups or "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    for sign, kind in (
        (".dockerenv", "docker"),
        ("run/.containerenv", "podman"),
        (".singularity.d", "apptainer"),
    ):
        if os.path.exists(os.path.join(root, sign)):
            return kind
    return "docker" if "docker" in groups else ""


def find_virtual_machine(proc: str = "/proc", sys: str = "/sys") -> str | None:
    """The name of the hypervisor or the product; "" = bare metal, None = cannot be told."""
    # The first processor's entry says it; the whole file takes long on large machines.
    flags = read_text(f"{proc}/cpuinfo", 4096)
    product = " ".join(
        filter(
            None,
            (read_text(f"{sys}/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")),
        )
    )
    if "flags" not in flags:
        known = ("QEMU", "KVM", "Virtual", "Amazon EC2", "Google Compute", "OpenStack")
        return product if any(name in product for name in known) else None
    if " hypervisor" not in flags:
        return ""
    return (product or read_text(f"{sys}/hypervisor/type") or "hypervisor")[:128]


def find_numa(sys: str = "/sys") -> list[str]:
    """The processors of each NUMA node, in order."""
    folder = f"{sys}/devices/system/node"
    nodes = [
        name
        for name in list_names(folder)
        if name.startswith("node") and parse_int(name[4:]) is not None
    ]
    nodes.sort(key=lambda name: int(name[4:]))
    return [read_text(f"{folder}/{name}/cpulist", 1024) for name in nodes][:64]


def nccl_conf(paths: list[str]) -> dict[str, str]:
    """What NCCL reads from its configuration files; the later file wins."""
    found: dict[str, str] = {}
    for path in paths:
        for line in read_text(path, MAX_CONF_BYTES).splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                found[name.strip()[:64]] = value.strip()[:256]
    return dict(list(found.items())[:MAX_VARIABLES])


def login_exports() -> dict[str, str]:
    """Variables of NCCL and torch that the login sets."""
    found = {
        name: value[:256]
        for name, value in os.environ.items()
        if name.startswith(TUNING_PREFIXES) or name in TUNING
    }
    return dict(list(found.items())[:MAX_VARIABLES])
