"""What must be the same on all nodes, or ranks fail in ways that are hard to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from orchestrator.core.doctor.check_model import (
    NONE,
    OK,
    Check,
    CheckAnswer,
    CheckedNode,
    Fleet,
    Judge,
    Needs,
    answer_each,
    fail_answer,
    unknown_answer,
    warn_answer,
)
from orchestrator.core.model.checks import NCCL_WHEELS
from orchestrator.core.model.facts import Facts, Gpu
from orchestrator.core.tuning.risky_settings import differing_variables

GIB = 1 << 30
MEMORY_TOLERANCE = 0.05


def _same_as_most(
    what: str, value: Callable[[Facts], str], differs: Callable[[str], CheckAnswer]
) -> Judge:
    """Judges a node by what most nodes have."""

    def judge(look: CheckedNode) -> CheckAnswer:
        if len(look.fleet.facts) < 2:
            return NONE
        usual, mine = look.fleet.usual(value), value(look.facts)
        if usual is None:
            return NONE
        if not mine:
            return unknown_answer(what)
        return OK if mine == usual else differs(f"{what} {mine}, most nodes have {usual}")

    return judge


def _gpu_models(facts: Facts) -> str:
    names = Counter(gpu.name for gpu in facts.gpus)
    return " + ".join(f"{count}x {name}" for name, count in sorted(names.items())) or "no GPU"


def _torch_version(facts: Facts) -> str:
    return facts.modules.get("torch", _no_module(facts))


def _nccl_version(facts: Facts) -> str:
    """Its wheel, if it is one: a torch that was built otherwise brings its own."""
    return next(
        (facts.modules[name] for name in NCCL_WHEELS if name in facts.modules), _no_module(facts)
    )


def _no_module(facts: Facts) -> str:
    """An interpreter that was asked and lacks it is no interpreter that could not be asked."""
    return "none" if facts.interpreter else ""


def _memlock_limit(facts: Facts) -> str:
    limit = facts.memlock_bytes
    return "unlimited" if limit is None else f"{limit / 1024**2:.0f} MiB"


def _adapter_kinds(facts: Facts) -> str:
    return ",".join(sorted({hca.name for hca in facts.hcas}))


def _firmware_versions(facts: Facts) -> str:
    """The versions by kind of board, as a text that can be compared."""
    found = {f"{hca.board or hca.name} {hca.firmware}" for hca in facts.hcas if hca.firmware}
    return ", ".join(sorted(found))


def _python_version(facts: Facts) -> str:
    return ".".join(facts.agent_python.split(".")[:2])


def _gpu_firmware(what: str, version: Callable[[Gpu], str], *, needed: bool) -> Judge:
    """Judges each GPU by what most of its model have, on this node and the others. ``needed``
    False: drivers may do without it, all of them.
    """

    def judge(look: CheckedNode) -> CheckAnswer:
        fleet = look.fleet.gpus
        if len(fleet) < 2:
            return NONE
        if not needed and not any(map(version, fleet)):
            return NONE
        usual = _usual_by_model(fleet, version)
        answers = [
            (gpu.index, _usual_or_odd(what, version(gpu), usual[gpu.name]))
            for gpu in look.facts.gpus
        ]
        return answer_each("GPU", answers)

    return judge


def _usual_by_model(fleet: Sequence[Gpu], version: Callable[[Gpu], str]) -> dict[str, str]:
    """What most GPUs of each model have."""
    counts = Counter((gpu.name, version(gpu)) for gpu in fleet)
    return {model: found for (model, found), _ in reversed(counts.most_common())}


def _usual_or_odd(what: str, mine: str, usual: str) -> CheckAnswer:
    if not mine:
        return unknown_answer(what)
    return OK if mine == usual else warn_answer(f"{what} {mine}, most of its model have {usual}")


def _memory_size(look: CheckedNode) -> CheckAnswer:
    """What kernels keep for themselves differs by a little."""
    sizes = sorted(facts.memory_bytes for facts in look.fleet.facts if facts.memory_bytes)
    mine = look.facts.memory_bytes
    if len(look.fleet.facts) < 2 or not sizes:
        return NONE
    if not mine:
        return unknown_answer("its memory")
    usual = sizes[len(sizes) // 2]
    if abs(mine - usual) <= MEMORY_TOLERANCE * usual:
        return OK
    return warn_answer(f"{mine / GIB:.0f} GiB of memory, most nodes have {usual / GIB:.0f}")


def _variables_alike(look: CheckedNode) -> CheckAnswer:
    """NCCL's files; what must differ, such as names of interfaces, does not count."""
    if len(look.fleet.facts) < 2:
        return NONE
    odd = differing_variables({other.node: other.nccl_conf for other in look.fleet.facts})
    mine = [text for name, text in odd.items() if _is_odd(look.facts, look.fleet, name)]
    return fail_answer("; ".join(mine)) if mine else OK


def _is_odd(facts: Facts, fleet: Fleet, name: str) -> bool:
    values = Counter(other.nccl_conf.get(name) for other in fleet.facts)
    return facts.nccl_conf.get(name) != values.most_common(1)[0][0]


def _alike_check(
    number: int, name: str, remedy: str, judge: Judge, needs: Needs = Needs.NOTHING
) -> Check:
    return Check(id=f"OR-DOC-SAME-{number:03}", name=name, remedy=remedy, judge=judge, needs=needs)


CHECKS = (
    _alike_check(
        1,
        "same GPUs",
        "leave the node out, or weigh work by node",
        _same_as_most("GPUs", _gpu_models, warn_answer),
    ),
    _alike_check(
        2,
        "same driver",
        "install the same driver on all nodes",
        _same_as_most("driver", lambda facts: facts.driver, fail_answer),
        Needs.GPUS,
    ),
    _alike_check(
        3,
        "same torch",
        "install the same torch, or let orchestrate build it: python: {requirements: FILE}",
        _same_as_most("torch", _torch_version, fail_answer),
        Needs.GPUS,
    ),
    _alike_check(
        4,
        "same NCCL",
        "install the same nvidia-nccl, or let orchestrate build the environment",
        _same_as_most("NCCL", _nccl_version, fail_answer),
        Needs.GPUS,
    ),
    _alike_check(
        5,
        "same kernel",
        "bring all nodes to one image",
        _same_as_most("kernel", lambda f: f.kernel, warn_answer),
    ),
    _alike_check(
        6,
        "same memlock",
        "the same limits.conf and sshd unit on all nodes",
        _same_as_most("memlock", _memlock_limit, warn_answer),
        Needs.ADAPTERS,
    ),
    _alike_check(
        7,
        "same adapters",
        "nothing to do for orchestrate, which names adapters per node; fixed lists elsewhere break",
        _same_as_most("adapters", _adapter_kinds, warn_answer),
        Needs.ADAPTERS,
    ),
    _alike_check(
        8,
        "same firmware",
        "mlxfwmanager or flint: one firmware for all adapters of a kind",
        _same_as_most("firmware", _firmware_versions, warn_answer),
        Needs.ADAPTERS,
    ),
    _alike_check(
        9,
        "same variables",
        "make /etc/nccl.conf and ~/.nccl.conf the same on all nodes, or remove them",
        _variables_alike,
    ),
    _alike_check(
        10,
        "same python",
        "name one interpreter for all nodes in the inventory",
        _same_as_most("python3", _python_version, warn_answer),
    ),
    _alike_check(
        11,
        "same VBIOS",
        "the vendor's update of the board's firmware, on all nodes",
        _gpu_firmware("VBIOS", lambda gpu: gpu.vbios, needed=True),
        Needs.GPUS,
    ),
    _alike_check(
        12,
        "same GSP",
        "one driver and one NVreg_EnableGpuFirmware on all nodes, then reboot",
        _gpu_firmware("GSP firmware", lambda gpu: gpu.gsp, needed=False),
        Needs.GPUS,
    ),
    _alike_check(
        13,
        "same InfoROM",
        "the vendor's update of the board's firmware, on all nodes",
        _gpu_firmware("InfoROM", lambda gpu: gpu.inforom, needed=True),
        Needs.GPUS,
    ),
    _alike_check(
        14,
        "same memory",
        "a memory module that failed is left out at boot: dmidecode -t memory as root",
        _memory_size,
    ),
)
