"""Which of a node's GPUs its ranks see: what CUDA makes of the user's choice, and of MIG. Pure.

Sources: "CUDA_VISIBLE_DEVICES" in the CUDA C++ programming guide; "Device enumeration" in NVIDIA's
MIG user guide: a process sees one MIG instance, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.base.command import Text, reveal_secret
from orchestrator.core.model.facts import Facts, Gpu
from orchestrator.core.model.inventory import NodeSpec

VARIABLE = "CUDA_VISIBLE_DEVICES"
NONE = frozenset({"", "-1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """The GPUs that CUDA shows to a rank, in its order. ``wrong``: why the choice cannot be meant,
    "" = nothing. ``instance``: what is seen is one MIG instance of the only GPU.
    """

    gpus: tuple[int, ...]
    wrong: str = ""
    instance: bool = False


def choice(*environments: Mapping[str, Text]) -> str | None:
    """What the user set; the last one counts. None = nothing."""
    found = [env[VARIABLE] for env in environments if VARIABLE in env]
    return reveal_secret(found[-1]) if found else None


def visible_gpus(text: str, facts: Facts) -> Visible:
    """What ``text`` shows on a node with ``facts``."""
    chosen: list[int] = []
    for item in map(str.strip, text.split(",")):
        if item in NONE:
            break
        gpu = _named_gpu(item, facts.gpus)
        if gpu is None:
            found = f"found {len(facts.gpus)} GPUs"
            return Visible(gpus=tuple(chosen), wrong=f"names {item}, which is not there ({found})")
        if item.startswith("MIG-"):
            return Visible(gpus=(gpu.index,), instance=True)
        if gpu.index in chosen:
            return Visible(gpus=tuple(chosen), wrong=f"names GPU {gpu.index} twice")
        chosen.append(gpu.index)
    return Visible(gpus=tuple(chosen))


def gpus_of(spec: NodeSpec, facts: Facts, chosen: str | None) -> tuple[int, ...]:
    """Declared GPUs, else all that were found; of these what the user chose."""
    found = tuple(gpu.index for gpu in facts.gpus)
    allowed = found if spec.gpus.indices is None else spec.gpus.indices
    if chosen is not None:
        allowed = tuple(
            index for index in _chosen_gpus(chosen, facts) if index in allowed or not found
        )
    return allowed if spec.gpus.count is None else allowed[: spec.gpus.count]


def _chosen_gpus(text: str, facts: Facts) -> tuple[int, ...]:
    """Of a node that was not asked, numbers are believed."""
    if not facts.assumed:
        return visible_gpus(text, facts).gpus
    numbers = [item.strip() for item in text.split(",")]
    return tuple(int(number) for number in numbers if number.isdigit())


def unfit_gpus_reason(
    spec: NodeSpec, facts: Facts, chosen: str | None, ranks: int | None
) -> str | None:
    """Why ranks cannot have the GPUs that they would be planned on; None = they can.

    ``ranks``: how many the node is to have, None = one for each GPU.
    """
    if facts.assumed or _hides_all(chosen):
        return None
    if is_undeclared(spec) and (reason := broken_driver_reason(facts)):
        return reason
    if chosen is not None and (wrong := visible_gpus(chosen, facts).wrong):
        return f"{VARIABLE}={chosen} {wrong}"
    if is_undeclared(spec) and chosen is None and facts.lost_gpus:
        return "; ".join(facts.lost_gpus)
    divided = mig_devices(spec, facts, chosen)
    if divided and ranks is None and len(gpus_of(spec, facts, chosen)) > 1:
        return f"{divided[0]}, so that ranks cannot have a GPU each"
    return None


def is_undeclared(spec: NodeSpec) -> bool:
    """Whether the inventory does not say which GPUs the node has."""
    return spec.gpus.count is None and spec.gpus.indices is None


def _hides_all(chosen: str | None) -> bool:
    """Whether the user wants ranks without any GPU."""
    return chosen is not None and chosen.partition(",")[0].strip() in NONE


def broken_driver_reason(facts: Facts) -> str | None:
    """The node shows no GPU, although there is a driver, or a tool of it: what that says."""
    if facts.gpus:
        return None
    said = driver_words(facts)
    if said:
        return f"shows no GPU: {said}"
    return f"has the driver {facts.driver}, but no GPU" if facts.driver else None


def driver_words(facts: Facts) -> str:
    """What the driver's library or nvidia-smi said in place of an answer."""
    words = (note for note in facts.notes if note.startswith(("nvidia-smi", "NVML", "nvml")))
    return "; ".join(words)


def mig_devices(spec: NodeSpec, facts: Facts, chosen: str | None) -> tuple[str, ...]:
    """For each GPU of the node's ranks that MIG divides: what a rank sees of it."""
    if chosen is not None and visible_gpus(chosen, facts).instance:
        return ()
    mine = gpus_of(spec, facts, chosen)
    return tuple(_divided_gpu(gpu) for gpu in facts.gpus if gpu.mig and gpu.index in mine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """What is asked of all nodes for each: the names of every machine, by its host id, and the
    first node that has GPUs, with their number.
    """

    machines: Mapping[str, Sequence[str]]
    equipped: str | None


def neighbours(facts: Mapping[str, Facts], workers: Sequence[NodeSpec]) -> Neighbours:
    """Looks once at all of them."""
    names = (spec.name for spec in workers if spec.name in facts)
    return Neighbours(
        machines=machine_names((name, facts[name]) for name in names),
        equipped=next((f"{name} has {len(f.gpus)}" for name, f in facts.items() if f.gpus), None),
    )


def machine_names(nodes: Iterable[tuple[str, Facts]]) -> dict[str, list[str]]:
    """The names of each machine by its host id, as far as that is known."""
    found: dict[str, list[str]] = {}
    for name, facts in nodes:
        if facts.host_id:
            found.setdefault(facts.host_id, []).append(name)
    return found


def without_gpu(spec: NodeSpec, mine: Facts, others: Neighbours, chosen: str | None) -> str | None:
    """Why a node of which nothing is declared would be given no GPU, although ranks of others have
    some, or it has some itself; None = all is well.
    """
    if mine.assumed or _hides_all(chosen) or not is_undeclared(spec):
        return None
    if mine.gpus:
        names = others.machines.get(mine.host_id, ())
        few = 0 < len(mine.gpus) < len(names)
        many = f"{len(names)} names of one machine ({', '.join(names)})"
        return f"{many} cannot divide {len(mine.gpus)} GPUs" if few else None
    said = driver_words(mine)
    return others.equipped and f"has no GPU, {others.equipped}" + (f" ({said})" if said else "")


def device_warnings(
    nodes: Sequence[tuple[NodeSpec, Facts, tuple[int, ...]]], env: Mapping[str, Text]
) -> Iterator[str]:
    """What of the nodes' GPUs is planned otherwise than one might think. ``nodes``: each with the
    GPUs of its ranks; ``env``: what the user sets for all of them.
    """
    yield from _unequal_nodes(nodes)
    for spec, facts, gpus in nodes:
        chosen = choice(spec.env, env)
        login = facts.exports.get(VARIABLE)
        if chosen is not None and len(gpus) < len(facts.gpus):
            yield f"{spec.name}: {VARIABLE}={chosen} leaves {len(gpus)} of {len(facts.gpus)} GPUs"
        elif login is not None and gpus and gpus != visible_gpus(login, facts).gpus:
            yield (
                f"{spec.name}: the login's {VARIABLE}={login} is not inherited: ranks get "
                f"{len(gpus)} GPUs; gpus: {{indices: [...]}} in the inventory restricts them"
            )
        yield from (f"{spec.name}: {text}" for text in mig_devices(spec, facts, chosen))
        yield from (f"{spec.name}: {text}" for text in facts.lost_gpus)
        if not facts.gpus and facts.gpus_on_bus:
            yield f"{spec.name}: {facts.gpus_on_bus} NVIDIA GPUs on its PCI bus, but no driver"


def _unequal_nodes(nodes: Sequence[tuple[NodeSpec, Facts, tuple[int, ...]]]) -> Iterator[str]:
    counts = {spec.name: len(gpus) for spec, _, gpus in nodes}
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{name} has {count or 'none'}" for name, count in counts.items())
        yield f"nodes have different numbers of GPUs: {each}"
    kinds = {spec.name: _gpu_kinds(facts, gpus) for spec, facts, gpus in nodes if gpus}
    if len(set(kinds.values())) > 1:
        each = ", ".join(f"{name} has {kind}" for name, kind in kinds.items())
        yield f"nodes have different GPUs, and the slowest sets the pace: {each}"


def _gpu_kinds(facts: Facts, gpus: tuple[int, ...]) -> str:
    return " + ".join(sorted({gpu.name for gpu in facts.gpus if gpu.index in gpus}))


def _divided_gpu(gpu: Gpu) -> str:
    profiles = [instance.profile for instance in gpu.mig_instances]
    many = f"into {len(profiles)} instances ({', '.join(sorted(set(profiles)))})"
    what = many if profiles else "and has no instance"
    return f"GPU {gpu.index} is divided by MIG {what}: a process sees one, and NCCL joins none"


def _named_gpu(item: str, gpus: Sequence[Gpu]) -> Gpu | None:
    """The GPU that an item of the list names: by number, or by the beginning of a UUID."""
    if item.isdigit():
        return next((gpu for gpu in gpus if gpu.index == int(item)), None)
    if item.startswith("MIG-"):
        return next((gpu for gpu in gpus if _has_instance(gpu, item)), None)
    hits = [gpu for gpu in gpus if item.startswith("GPU-") and gpu.uuid.startswith(item)]
    return hits[0] if len(hits) == 1 else None


def _has_instance(gpu: Gpu, item: str) -> bool:
    """Older drivers name instances after their GPU: ``MIG-GPU-<uuid>/3/0``."""
    if item.startswith("MIG-GPU-"):
        return bool(gpu.uuid) and item.removeprefix("MIG-").partition("/")[0] == gpu.uuid
    return any(instance.uuid.startswith(item) for instance in gpu.mig_instances)
