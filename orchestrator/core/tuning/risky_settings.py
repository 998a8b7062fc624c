"""Settings of users that are known to do harm, and settings that differ where they must not.

They are warned about, never changed: the user's setting wins.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.base.command import Text, reveal_secret
from orchestrator.core.base.nodeset import fold_nodeset
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.plan import NodePlan, Variable
from orchestrator.core.tuning.merging import NO_EFFECT
from orchestrator.core.tuning.names import KNOWN, LEGACY, PREFIXES
from orchestrator.core.tuning.variable_sources import FILE, USER

ON, OFF = frozenset({"1", "true", "yes"}), frozenset({"0", "false", "no"})
# Ranks need not agree on them: they are right or wrong on one node, or for one rank.
PER_NODE = frozenset(
    "NCCL_SOCKET_IFNAME NCCL_OOB_NET_IFNAME NCCL_IB_HCA NCCL_NET_GDR_LEVEL NCCL_HOSTID "
    "NCCL_TOPO_FILE NCCL_DEBUG_FILE TORCH_FR_BUFFER_SIZE TORCH_FR_DUMP_TEMP_FILE "
    "TORCH_NCCL_TRACE_BUFFER_SIZE TORCH_NCCL_DEBUG_INFO_TEMP_FILE "
    "TORCH_NCCL_DEBUG_INFO_PIPE_FILE".split()
)
MAX_TIMEOUT = 22
FAR_LEVELS = frozenset({"SYS", "4", "5"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """A setting of the user's and why it is likely to do harm."""

    rule: str
    name: str
    value: str
    why: str


Judge = Callable[[str], bool]


def _is_on(value: str) -> bool:
    return value.casefold() in ON


def _is_off(value: str) -> bool:
    return value.casefold() in OFF


def _is_fixed(value: str) -> bool:
    return _NUMBER.fullmatch(value) is not None


def _is_ring_only(value: str) -> bool:
    return value.casefold() in ("ring", "allreduce:ring")


def _is_long(value: str) -> bool:
    return _is_fixed(value) and int(value) > MAX_TIMEOUT


_VARIABLE = re.compile(r"\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}")
_AS_WRITTEN = "variables are not expanded here: it reaches the ranks as it is written"
_SWITCH = "a switch for diagnosis that was left on: {} is lost silently"
# (rule, variable, when it is a habit, why)
RULES: tuple[tuple[str, str, Judge, str], ...] = (
    (
        "habit-gid-index",
        "NCCL_IB_GID_INDEX",
        _is_fixed,
        "a fixed GID index differs per host and changes at reboots; NCCL 2.21 and newer finds it",
    ),
    (
        "habit-ring",
        "NCCL_ALGO",
        _is_ring_only,
        "Ring alone rules out NVLS, which is faster by a fifth to a third on NVSwitch machines",
    ),
    ("habit-p2p-off", "NCCL_P2P_DISABLE", _is_on, _SWITCH.format("NVLink between GPUs")),
    ("habit-shm-off", "NCCL_SHM_DISABLE", _is_on, _SWITCH.format("shared memory within a node")),
    ("habit-ib-off", "NCCL_IB_DISABLE", _is_on, _SWITCH.format("InfiniBand and RoCE")),
    ("habit-nvls-off", "NCCL_NVLS_ENABLE", _is_off, _SWITCH.format("reduction in the NVSwitch")),
    (
        "habit-gdr-far",
        "NCCL_NET_GDR_LEVEL",
        lambda value: value.upper() in FAR_LEVELS,
        "direct access across the whole system (SYS) is often slower than a copy by the host",
    ),
    (
        "habit-gdr-off",
        "NCCL_NET_GDR_LEVEL",
        lambda value: value.upper() in ("0", "LOC"),
        _SWITCH.format("direct access of adapters to GPU memory"),
    ),
    (
        "habit-ib-timeout",
        "NCCL_IB_TIMEOUT",
        _is_long,
        "more than 22 means over 17 s for each try: errors become hangs",
    ),
    (
        "habit-debug-info",
        "NCCL_DEBUG",
        lambda value: value.upper() in ("INFO", "TRACE"),
        "INFO costs time and fills logs: for diagnosis, not for runs that are timed",
    ),
    (
        "habit-one-connection",
        "CUDA_DEVICE_MAX_CONNECTIONS",
        lambda value: value == "1",
        "made for Megatron-LM's tensor parallel overlap; elsewhere kernels and copies queue up",
    ),
    (
        "habit-errors-ignored",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        _is_off,
        "with 0 a failed collective hangs for ever",
    ),
)


def find_habits(
    settings: Mapping[str, Text], facts: Facts | None = None, modules: Sequence[str] = ()
) -> list[Habit]:
    """What is wrong with ``settings``; some of it can only be seen with the node's ``facts``."""
    found = []
    for name, text in settings.items():
        value = reveal_secret(text)
        shown = str(text)
        for rule, variable, is_habit, why in RULES:
            excused = rule == "habit-one-connection" and "megatron" in modules
            if name == variable and is_habit(value) and not excused:
                found.append(Habit(rule=rule, name=name, value=shown, why=why))
        if isinstance(text, str) and _VARIABLE.search(text):
            found.append(Habit(rule="habit-variable", name=name, value=shown, why=_AS_WRITTEN))
        misspelt = _misspelt_name(name)
        if misspelt:
            found.append(Habit(rule="habit-unknown-name", name=name, value=shown, why=misspelt))
        if facts is not None and not facts.assumed:
            absent = _absent_devices(name, value, facts)
            if absent:
                found.append(Habit(rule="habit-not-here", name=name, value=shown, why=absent))
    return found


def _misspelt_name(name: str) -> str:
    if name in LEGACY:
        return f"an old name: torch calls it {LEGACY[name]}"
    if not name.startswith(PREFIXES) or name in KNOWN:
        return ""
    family = next(prefix for prefix in PREFIXES if name.startswith(prefix))
    alike = [known for known in KNOWN if known.startswith(family)]
    return f"a name that is not known and will be ignored: {did_you_mean(name, alike)}"


def _absent_devices(name: str, value: str, facts: Facts) -> str:
    """What a list names that this node does not have."""
    if name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        return _absent_interface(value, [interface.name for interface in facts.interfaces])
    if name == "NCCL_IB_HCA" and facts.hcas:
        return _absent_adapter(value, sorted({hca.name for hca in facts.hcas}))
    return ""


def _absent_interface(value: str, present: Sequence[str]) -> str:
    if value.startswith("=="):
        return "one = asks for an exact match; two match nothing"
    if value.startswith("^") or not present:
        return ""
    exact = value.startswith("=")
    wanted = [part for part in value.lstrip("=").split(",") if part]
    hits = [w for w in wanted if any(p == w or (not exact and p.startswith(w)) for p in present)]
    return "" if hits else f"no interface of that name here (there are {', '.join(present[:8])})"


def _absent_adapter(value: str, present: Sequence[str]) -> str:
    if value.startswith("^"):
        return ""
    exact = value.startswith("=")
    wanted = [part.partition(":")[0] for part in value.lstrip("=").split(",") if part]
    gone = [
        w for w in wanted if not any(p == w or (not exact and p.startswith(w)) for p in present)
    ]
    if gone:
        return f"no adapter {', '.join(gone)} here (there are {', '.join(present[:12])})"
    named = [w for w in wanted if w in present]
    more = sorted({p for w in named for p in present if p.startswith(w) and p not in wanted})
    if more and not exact:
        return f"a prefix: it takes {', '.join(more)}, too; = in front asks for exact names"
    return ""


# ---- the nodes together -------------------------------------------------------------------------


def habit_warnings(
    nodes: Sequence[NodePlan], facts: Mapping[str, Facts], modules: Sequence[str] = ()
) -> Iterator[str]:
    """Bad habits, each with the nodes that have it; and what nodes do not agree on."""
    told: dict[str, list[str]] = {}
    for node in nodes:
        given = {v.name: v.value for v in settings_of(node)}
        for habit in find_habits(given, facts.get(node.name), modules):
            told.setdefault(f"{habit.name}={habit.value}: {habit.why}", []).append(node.name)
        for idle in node.left:
            if idle.origin == USER and idle.reason.endswith(NO_EFFECT):
                told.setdefault(f"{idle.name} is {idle.reason}", []).append(node.name)
    for text, names in told.items():
        everywhere = len(names) == len(nodes)
        yield text if everywhere else f"{fold_nodeset(names)}: {text}"
    yield from differing_variables(
        {node.name: _masked_texts(node) for node in nodes if node.gpus}
    ).values()


def settings_of(node: NodePlan) -> list[Variable]:
    """What users and files set."""
    return [v for v in (*node.env, *node.left) if v.origin in (USER, FILE)]


def differing_variables(environments: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Variables of collectives that are not the same everywhere: name -> who has what."""
    names = {n: None for env in environments.values() for n in env if _must_agree(n)}
    found = {}
    for name in sorted(names):
        values: dict[str, list[str]] = {}
        for node, env in environments.items():
            values.setdefault(env.get(name, ""), []).append(node)
        if len(values) > 1:
            each = (
                f"{fold_nodeset(nodes)} has {value or 'none'}" for value, nodes in values.items()
            )
            found[name] = f"{name} differs between nodes, and ranks may hang: {', '.join(each)}"
    return found


def environment_digest(node: NodePlan) -> str:
    """What the ranks of different nodes must agree on, in 12 characters."""
    agreed = sorted((name, text) for name, text in _masked_texts(node).items() if _must_agree(name))
    return hashlib.sha256(repr(agreed).encode()).hexdigest()[:12]


def _must_agree(name: str) -> bool:
    return name.startswith(PREFIXES) and name not in PER_NODE


def _masked_texts(node: NodePlan) -> dict[str, str]:
    """What ranks get of variables, with secrets masked."""
    return {v.name: str(v.value) for v in (*node.left, *node.env) if v.value}
