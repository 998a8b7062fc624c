"""GPUs: as many as declared, free, and nothing that slows them down or is about to break."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from orchestrator.core.doctor.check_model import (
    NONE,
    OK,
    Check,
    CheckAnswer,
    CheckedNode,
    Judge,
    Needs,
    answer_each,
    fail_answer,
    unknown_answer,
    warn_answer,
    worst_answer,
)
from orchestrator.core.model.checks import gpus_missing
from orchestrator.core.model.devices import broken_driver_reason
from orchestrator.core.model.facts import Facts, Gpu, Xid

# Links of a GPU on its baseboard, by the name that the driver gives it (datasheets of the cards).
LINKS = (("A100-SXM", 12), ("H100 80GB HBM3", 18), ("H200", 18), ("B200", 18), ("B300", 18))
WITHOUT_LINKS = ("PCIe", "NVL")
SLOWED = frozenset({"hw_slowdown", "hw_thermal", "hw_power_brake"})
WARMED = frozenset({"sw_thermal"})
HOT_C, TOO_HOT_C = 83, 90
POWER_SHARE = 0.98
# Xids of programs: a bad access or a kernel that was ended says nothing against the card. The
# classes are those of NVIDIA's Xid catalogue.
OF_PROGRAMS = frozenset({8, 13, 31, 32, 43, 45, 68, 69})
HARMLESS = frozenset({63, 92, 94})  # contained or corrected: the rows and ECC checks tell
NO_KERNEL_LOG = "no permission to read the kernel log"


def per_gpu(judge: Callable[[Gpu], CheckAnswer]) -> Judge:
    """One answer for all GPUs of a node."""

    def together(look: CheckedNode) -> CheckAnswer:
        return answer_each("GPU", [(gpu.index, judge(gpu)) for gpu in look.facts.gpus])

    return together


def _gpus_present(look: CheckedNode) -> CheckAnswer:
    missing = gpus_missing(look.subject.spec, look.facts)
    if missing:
        return fail_answer(missing)
    reason = "; ".join(look.facts.lost_gpus) or broken_driver_reason(look.facts)
    if reason:
        return fail_answer(reason)
    return OK if look.facts.gpus else NONE


def _gpu_free(gpu: Gpu) -> CheckAnswer:
    if gpu.users_known is False:
        return unknown_answer("which processes use it")
    if not gpu.users:
        return OK
    names = Counter(f"{p.user or '?'}'s {p.name or p.pid}" for p in gpu.processes)
    return warn_answer("used by " + (", ".join(names) or f"{len(gpu.users)} processes"))


def _ecc_errors(gpu: Gpu) -> CheckAnswer:
    if gpu.ecc.enabled is False:
        return warn_answer("ECC is off")
    if gpu.ecc.uncorrected is None:
        return unknown_answer("ECC errors")
    if gpu.ecc.uncorrected:
        return fail_answer(
            f"{gpu.ecc.uncorrected} uncorrected memory errors since the driver was loaded"
        )
    return OK


def _remapped_rows(gpu: Gpu) -> CheckAnswer:
    rows = gpu.rows
    if rows.failed:
        return fail_answer("a row of memory could not be replaced: the card needs an RMA")
    if rows.pending:
        return fail_answer("a row of memory is replaced at the next reset")
    return unknown_answer("remapped rows") if rows.failed is None or rows.pending is None else OK


def is_grave(xid: Xid) -> bool:
    """Whether it speaks against the card, or the switch."""
    return xid.switch or xid.code not in OF_PROGRAMS | HARMLESS


def _recent_xids(look: CheckedNode) -> CheckAnswer:
    if look.facts.xids is None:
        return unknown_answer(NO_KERNEL_LOG)
    grave = list(filter(is_grave, look.facts.xids))
    if not grave:
        return OK
    texts = (
        f"{'S' if x.switch else ''}Xid {x.code} at {x.pci} ({x.count}x, last {x.last})"
        for x in grave
    )
    return fail_answer("; ".join(texts))


def _throttle_reasons(gpu: Gpu) -> CheckAnswer:
    if gpu.throttle is None:
        return unknown_answer("why clocks are held back")
    slowed = sorted(SLOWED & set(gpu.throttle))
    if slowed:
        return fail_answer(f"clocks held back by {', '.join(slowed)}")
    warmed = sorted(WARMED & set(gpu.throttle))
    return warn_answer(f"clocks held back by {', '.join(warmed)}") if warmed else OK


def _gpu_temperature(gpu: Gpu) -> CheckAnswer:
    if gpu.temperature_c is None:
        return unknown_answer("its temperature")
    text = f"{gpu.temperature_c} C"
    if gpu.temperature_c >= TOO_HOT_C:
        return fail_answer(text)
    return warn_answer(text) if gpu.temperature_c >= HOT_C else OK


def _power_limit(gpu: Gpu) -> CheckAnswer:
    if gpu.power_limit_w is None or gpu.power_default_w is None:
        return unknown_answer("its power limit")
    if gpu.power_limit_w < POWER_SHARE * gpu.power_default_w:
        return fail_answer(f"limited to {gpu.power_limit_w:.0f} W of {gpu.power_default_w:.0f} W")
    return OK


def _pcie_link(gpu: Gpu) -> CheckAnswer:
    link = gpu.pcie
    if link.width is None or link.width_max is None or link.gen is None or link.gen_max is None:
        return unknown_answer("its PCIe link")
    if link.width < link.width_max:
        return fail_answer(f"PCIe runs on {link.width} of {link.width_max} lanes")
    if link.gen >= link.gen_max:
        return OK
    text = f"PCIe generation {link.gen} of {link.gen_max}"
    # Some cards lower the speed of a link that has nothing to do.
    return (
        unknown_answer(f"{text} while idle")
        if "idle" in (gpu.throttle or ())
        else fail_answer(text)
    )


def _nvlinks_up(look: CheckedNode) -> CheckAnswer:
    """A single GPU may have been given away without its links: they lead nowhere."""
    alone = len(look.facts.gpus) == 1
    answers = [(gpu.index, _nvlink_of(gpu, alone=alone)) for gpu in look.facts.gpus]
    return answer_each("GPU", answers)


def _nvlink_of(gpu: Gpu, *, alone: bool) -> CheckAnswer:
    wanted = 0 if alone else _links_of(gpu.name)
    link = gpu.nvlink
    if link.total is None or link.active is None:
        return NONE if wanted == 0 else unknown_answer("its NVLinks")
    total = max(link.total, wanted or 0)
    if not total or (wanted is None and not link.active):
        return NONE  # none at all, or a bridge that nobody has to buy
    if link.active < total:
        return fail_answer(f"{link.active} of {total} NVLinks are active")
    return warn_answer(f"{link.errors} NVLink errors") if link.errors else OK


def _links_of(name: str) -> int | None:
    """How many links such a card has on its board; None = not known."""
    if any(word in name for word in WITHOUT_LINKS):
        return None
    return next((count for part, count in LINKS if part in name), None)


def _fabric_state(gpu: Gpu) -> CheckAnswer:
    if gpu.fabric in ("not_started", "in_progress"):
        return fail_answer(f"not part of the NVLink fabric: {gpu.fabric.replace('_', ' ')}")
    if gpu.fabric == "completed":
        return OK
    behind_switches = "switch" in gpu.nvlink.peers
    return (
        unknown_answer("the state of its NVLink fabric")
        if behind_switches and not gpu.fabric
        else NONE
    )


def _fabric_manager(look: CheckedNode) -> CheckAnswer:
    manager = look.facts.fabric_manager
    if manager is None or not manager.switches:
        return NONE
    if manager.running is None:
        return unknown_answer("whether the fabric manager runs")
    if not manager.running:
        return fail_answer(f"{manager.switches} NVSwitches, and no fabric manager runs")
    if not manager.version:
        return unknown_answer("the fabric manager's version")
    if look.facts.driver and manager.version != look.facts.driver:
        return fail_answer(f"fabric manager {manager.version}, driver {look.facts.driver}")
    return OK


def _gpu_modes(gpu: Gpu) -> CheckAnswer:
    found = []
    if gpu.compute_mode == "prohibited":
        found.append(fail_answer("compute mode is prohibited"))
    if gpu.compute_mode.startswith("exclusive"):
        found.append(warn_answer("compute mode is exclusive: one process per GPU"))
    if gpu.mig:
        found.append(warn_answer("MIG is on: no peer-to-peer, no NVLink"))
    if gpu.persistence is False:
        found.append(warn_answer("persistence is off: every start waits for the driver"))
    return worst_answer(found or [unknown_answer("its modes") if gpu.persistence is None else OK])


def _acs_redirect(look: CheckedNode) -> CheckAnswer:
    if not _has_peers(look.facts):
        return NONE
    if look.facts.virtual_machine:
        return NONE  # what the host redirects cannot be seen, nor changed, from inside
    bridges = look.facts.p2p.redirecting
    if bridges is None:
        return unknown_answer("ACS of the bridges above the GPUs")
    return (
        fail_answer(f"ACS sends peer-to-peer through the root at {', '.join(bridges[:4])}")
        if (bridges)
        else OK
    )


def _iommu_state(look: CheckedNode) -> CheckAnswer:
    if not _has_peers(look.facts) or look.facts.virtual_machine:
        return NONE
    kind = look.facts.p2p.iommu
    if kind is None:
        return unknown_answer("the IOMMU of the GPUs")
    return (
        OK
        if kind in ("none", "identity")
        else fail_answer(f"the IOMMU translates for GPUs ({kind})")
    )


def _has_peers(facts: Facts) -> bool:
    """Whether there is anything that a GPU could exchange data with directly."""
    return len(facts.gpus) > 1 or any(hca.active for hca in facts.hcas)


def gpu_check(
    number: int, name: str, remedy: str, judge: Judge, needs: Needs = Needs.GPUS
) -> Check:
    """``OR-DOC-GPU-`` and ``number``."""
    return Check(id=f"OR-DOC-GPU-{number:03}", name=name, remedy=remedy, judge=judge, needs=needs)


CHECKS = (
    gpu_check(
        1,
        "GPUs",
        "nvidia-smi -L and dmesg | grep -i nvrm: has a card fallen off, or is the inventory old?",
        _gpus_present,
        Needs.NOTHING,
    ),
    gpu_check(2, "GPUs free", "end those processes, or take other GPUs", per_gpu(_gpu_free)),
    gpu_check(3, "ECC", "reset the GPU; replace it if the error recurs", per_gpu(_ecc_errors)),
    gpu_check(
        4,
        "memory rows",
        "pending: nvidia-smi --gpu-reset; failed: replace it",
        per_gpu(_remapped_rows),
    ),
    gpu_check(
        5, "Xids", "orchestrate diagnose on the kernel's log explains the code", _recent_xids
    ),
    gpu_check(
        6,
        "throttling",
        "nvidia-smi -q -d PERFORMANCE: cooling, power supply, power brake",
        per_gpu(_throttle_reasons),
    ),
    gpu_check(7, "temperature", "look at fans, air flow and inlet", per_gpu(_gpu_temperature)),
    gpu_check(
        8,
        "power limit",
        "nvidia-smi -pl WATTS as root, or -pl of the default",
        per_gpu(_power_limit),
    ),
    gpu_check(
        9, "PCIe", "reseat the card; look at BIOS and riser; then reboot", per_gpu(_pcie_link)
    ),
    gpu_check(10, "NVLink", "nvidia-smi nvlink -s; reset all GPUs; replace on repeat", _nvlinks_up),
    gpu_check(
        11,
        "NVLink fabric",
        "systemctl restart nvidia-fabricmanager, then reset the GPUs",
        per_gpu(_fabric_state),
    ),
    gpu_check(
        12,
        "fabric manager",
        "install the fabric manager of exactly the driver's version and start it",
        _fabric_manager,
    ),
    gpu_check(
        13,
        "modes",
        "nvidia-smi -pm 1 -c 0 -mig 0 as root, as the case may be",
        per_gpu(_gpu_modes),
    ),
    gpu_check(
        14,
        "ACS",
        "as root: turn ACS off on these bridges (setpci ... ECAP_ACS+6.w=0000) or in the BIOS",
        _acs_redirect,
    ),
    gpu_check(15, "IOMMU", "boot with iommu=pt, or turn the IOMMU off", _iommu_state),
)
