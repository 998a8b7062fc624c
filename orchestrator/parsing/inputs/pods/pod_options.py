"""Options for pods, of ``export kubernetes`` and of runs: names, quantities, places of code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.kubernetes.pod_template import GPU_RESOURCE
from orchestrator.core.kubernetes.settings import MAX_HOST_CHARACTERS, CodePlace, Toleration

# RFC 1035 and 1123, as Kubernetes has them for services, other objects, and labels.
SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
QUALIFIED_NAME = re.compile(
    r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
LABEL_KEY = re.compile(rf"{QUALIFIED_NAME.pattern}|[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
QUANTITY = re.compile(r"\d{1,18}(\.\d{1,9})?([kMGTPE]|[KMGTPE]i|m)?")
CPU = re.compile(r"\d{1,6}(\.\d{1,3})?|\d{1,9}m")
WHOLE = re.compile(r"\d{1,9}")
# What a pod can ask for without a device plugin.
PLAIN_RESOURCES = ("cpu", "memory", "ephemeral-storage", "hugepages-2Mi", "hugepages-1Gi")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
PLACES = (CodePlace.CONFIGMAP.value, CodePlace.IMAGE.value, f"{CodePlace.CLAIM}:NAME")


def default_name(workload: str) -> str:
    """What a job's objects are called after its workload; ``""`` if nothing is left of it."""
    words = re.sub(r"[^a-z0-9]+", "-", workload.lower()).strip("-0123456789")
    return words[:30].strip("-")


def parse_service_name(option: str, name: str) -> str:
    """A name that hosts can have, too. Raises :class:`UsageError`."""
    if len(name) > MAX_HOST_CHARACTERS:
        what = f"a name of {len(name)} characters: {MAX_HOST_CHARACTERS} at most are one of a host"
        raise _refusal(option, what, f"a shorter {option}")
    if not SERVICE_NAME.fullmatch(name):
        remedy = "lower-case letters, digits and hyphens, beginning with a letter: finetune-7b"
        raise _refusal(option, f"no name for a job: {name[:80]!r}", remedy)
    return name


def parse_object_name(option: str, name: str) -> str:
    """The name of an object that is there. Raises :class:`UsageError`."""
    if name and not OBJECT_NAME.fullmatch(name):
        remedy = "lower-case letters, digits, hyphens and dots"
        raise _refusal(option, f"no name of an object: {name[:80]!r}", remedy)
    return name


def parse_resources(given: Sequence[str], option: str = "--resource") -> Mapping[str, str]:
    """``NAME=QUANTITY`` each. Raises :class:`UsageError`."""
    return _distinct(option, (_parse_resource(option, text) for text in given))


def _parse_resource(option: str, text: str) -> tuple[str, str]:
    name, _, quantity = text.partition("=")
    if name == GPU_RESOURCE:
        raise _refusal(option, "the inventory says how many GPUs", "gpus: N there")
    if name not in PLAIN_RESOURCES and not QUALIFIED_NAME.fullmatch(name):
        what = f"no resource is called {name[:80]!r}"
        remedy = f"{did_you_mean(name, PLAIN_RESOURCES)}; others have a domain: rdma/hca"
        raise _refusal(option, what, remedy)
    form = CPU if name == "cpu" else QUANTITY if name in PLAIN_RESOURCES else WHOLE
    if not form.fullmatch(quantity) or not quantity.strip("0.kKMGTPEim"):
        what = f"{name}: no quantity: {quantity[:80]!r}"
        raise _refusal(option, what, "cpu=32, memory=200Gi, rdma/hca=1")
    return name, quantity


def parse_labels(option: str, given: Sequence[str]) -> Mapping[str, str]:
    """``KEY=VALUE`` each. Raises :class:`UsageError`."""
    return _distinct(option, (_parse_label(option, text) for text in given))


def _parse_label(option: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
        remedy = "KEY=VALUE, such as nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3"
        raise _refusal(option, f"no label: {text[:80]!r}", remedy)
    return key, value


def parse_tolerations(option: str, given: Sequence[str]) -> tuple[Toleration, ...]:
    """``KEY[=VALUE][:EFFECT]`` each, as kubectl writes taints. Raises :class:`UsageError`."""
    return tuple(_parse_toleration(option, text) for text in given)


def _parse_toleration(option: str, text: str) -> Toleration:
    taint, colon, effect = text.partition(":")
    key, equals, value = taint.partition("=")
    if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
        remedy = "KEY[=VALUE][:EFFECT], such as nvidia.com/gpu:NoSchedule"
        raise _refusal(option, f"no taint: {text[:80]!r}", remedy)
    if colon and effect not in EFFECTS:
        remedy = did_you_mean(effect, EFFECTS)
        raise _refusal(option, f"{key}: no effect of a taint: {effect[:80]!r}", remedy)
    return Toleration(key=key, value=value if equals else None, effect=effect)


def _distinct(option: str, pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Each name once: of two values it is not known which one is meant."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            what = f"{name} was given twice: {found[name]} and {value}"
            raise _refusal(option, what, "give it once")
        found[name] = value
    return found


def parse_code_place(text: str) -> tuple[CodePlace, str]:
    """Where pods find the code, and on which claim. Raises :class:`UsageError`."""
    place, colon, claim = text.partition(":")
    known = place in list(CodePlace)
    if not known or bool(colon) is not (place == CodePlace.CLAIM) or (colon and not claim):
        what = f"no place for code: {text[:80]!r}"
        raise _refusal("--code", what, did_you_mean(text, PLACES))
    return CodePlace(place), parse_object_name("--code", claim)


def parse_image(image: str, option: str = "--image") -> str:
    """Not whether it exists: nothing is contacted. Raises :class:`UsageError`."""
    if not image or not image.isascii() or not image.isprintable() or " " in image:
        remedy = "as a container engine pulls it: registry/name:tag or registry/name@sha256:..."
        raise _refusal(option, f"no image: {image[:80]!r}", remedy)
    return image


def _refusal(option: str, what: str, remedy: str) -> UsageError:
    command = "run" if option.startswith("--pod-") else "export"
    id = f"{command}.{option.removeprefix('--')}"
    return UsageError(what, id=id, where=option, remedy=remedy)
