"""What kubectl prints of objects (``-o json``): read once, bounded, and nothing of it trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.core.kubernetes.pod_health import JobState, PodState, QueueState, Warned
from orchestrator.core.kubernetes.run_pods import OWNER
from orchestrator.core.model.pod_place import GROUP_LABEL, INDEX_LABEL
from orchestrator.parsing.replies.supervisor_records import BadRecord

MAX_OBJECTS = 20_000
MAX_NAME, MAX_TEXT, MAX_SHOWN = 253, 500, 80
MAX_EVENTS = 100
INDEX_DIGITS = 6
BLANK = re.compile(r"\s*")
# A pod's name is a word of later command lines; no option of kubectl has this form.
POD_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?")
# A pod whose machine stopped reporting is not ready for this reason, until it is evicted.
SILENT_REASONS = frozenset({"NodeNotReady", "NodeLost", "NodeUnreachable"})


def read_json(data: bytes) -> Mapping[str, Any]:
    """One object. Raises :class:`BadRecord`."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"kubectl printed no JSON: {_text(str(error), 200)}") from error
    if not isinstance(value, dict):
        raise BadRecord("kubectl printed no object")
    return value


def read_stream(data: bytes) -> list[Mapping[str, Any]]:
    """Objects one behind the other, or the items of a list. Raises :class:`BadRecord`."""
    decoder, text, found = json.JSONDecoder(), data.decode(errors="replace"), []
    at = _next_word(text, 0)
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise BadRecord(f"kubectl printed no JSON: {_text(str(error), 200)}") from error
        at = _next_word(text, end)
        found += _items(value) if _dict(value).get("kind") == "List" else [_dict(value)]
        if len(found) > MAX_OBJECTS:
            raise BadRecord(f"more than {MAX_OBJECTS} objects")
    return found


def _next_word(text: str, at: int) -> int:
    """Where the next one begins. The text is not cut, which would copy it for every object."""
    blank = BLANK.match(text, at)
    return blank.end() if blank else at


def parse_pods(data: bytes) -> list[PodState]:
    """Those that a JobSet numbered. Raises :class:`BadRecord`."""
    return [pod for item in _items(read_json(data)) if (pod := _pod(item)) is not None]


def parse_job(data: bytes) -> JobState:
    """Raises :class:`BadRecord`."""
    item = read_json(data)
    meta, spec, status = (_dict(item.get(part)) for part in ("metadata", "spec", "status"))
    failed = next(
        (c for c in _conditions(status) if c["type"] == "Failed" and c["status"] == "True"), None
    )
    return JobState(
        owner=_text(_dict(meta.get("annotations")).get(OWNER), MAX_NAME),
        uid=_text(meta.get("uid"), MAX_NAME),
        suspended=spec.get("suspend") is True,
        failed="" if failed is None else failed["message"] or failed["reason"] or "no reason given",
        deleting="deletionTimestamp" in meta,
    )


def parse_queue(data: bytes, uid: str) -> QueueState:
    """Kueue's workload of the JobSet with ``uid``, among all of a namespace. Raises
    :class:`BadRecord`.
    """
    for item in _items(read_json(data)):
        owners = _dict(item.get("metadata")).get("ownerReferences")
        if not any(_dict(owner).get("uid") == uid for owner in _list(owners)):
            continue
        conditions = {c["type"]: c for c in _conditions(_dict(item.get("status")))}
        reserved = conditions.get("QuotaReserved")
        if conditions.get("Admitted", {}).get("status") == "True":
            return QueueState(admitted=True)
        if reserved is not None:
            reason, message = reserved["reason"], reserved["message"]
            return QueueState(admitted=False, reason=reason, message=message)
    return QueueState()


def parse_warnings(data: bytes, job: str) -> list[Warned]:
    """The warnings about a job and what was made for it, oldest first. Raises
    :class:`BadRecord`.
    """
    found = []
    for item in _items(read_json(data)):
        about = _text(_dict(item.get("involvedObject")).get("name"), MAX_NAME)
        if about != job and not about.startswith(f"{job}-"):
            continue
        at = _text(item.get("lastTimestamp") or item.get("eventTime"), MAX_NAME)
        reason, message = _text(item.get("reason"), MAX_NAME), _text(item.get("message"))
        found.append((at, Warned(object=about, reason=reason, message=message)))
    return [warned for _, warned in sorted(found, key=lambda each: each[0])][-MAX_EVENTS:]


def parse_denied(data: bytes) -> list[tuple[str, str, str]]:
    """(verb, group, resource with its part) of what the user may not do. Raises
    :class:`BadRecord`.
    """
    denied = []
    for item in read_stream(data):
        asked = _dict(_dict(item.get("spec")).get("resourceAttributes"))
        part = _text(asked.get("subresource"), MAX_NAME)
        resource = _text(asked.get("resource"), MAX_NAME) + (f"/{part}" if part else "")
        if _dict(item.get("status")).get("allowed") is not True:
            denied.append(
                (_text(asked.get("verb"), 40), _text(asked.get("group"), MAX_NAME), resource)
            )
    return denied


def parse_context(data: bytes) -> tuple[str, str, str]:
    """(context, namespace, server) of the kubeconfig that kubectl uses. Raises
    :class:`BadRecord`.
    """
    config = read_json(data)
    context = next(map(_dict, _list(config.get("contexts"))), {})
    cluster = next(map(_dict, _list(config.get("clusters"))), {})
    return (
        _text(context.get("name") or config.get("current-context"), MAX_NAME),
        _text(_dict(context.get("context")).get("namespace"), MAX_NAME) or "default",
        _text(_dict(cluster.get("cluster")).get("server"), MAX_NAME),
    )


def _pod(item: Mapping[str, Any]) -> PodState | None:
    meta, spec, status = (_dict(item.get(part)) for part in ("metadata", "spec", "status"))
    labels = _dict(meta.get("labels"))
    group, index = _text(labels.get(GROUP_LABEL), MAX_NAME), labels.get(INDEX_LABEL)
    if not group or not isinstance(index, str) or not index.isascii() or not index.isdigit():
        return None
    if len(index) > INDEX_DIGITS:
        return None
    name = _text(meta.get("name"), MAX_NAME)
    if not POD_NAME.fullmatch(name):
        raise BadRecord(f"a pod is named {name[:MAX_SHOWN]!r}")
    container = next(map(_dict, _list(status.get("containerStatuses"))), {})
    state = _dict(container.get("state"))
    waiting, ended = _dict(state.get("waiting")), _dict(state.get("terminated"))
    conditions = {c["type"]: c for c in _conditions(status)}
    scheduled = conditions.get("PodScheduled", {"status": "", "reason": "", "message": ""})
    disrupted = conditions.get("DisruptionTarget", {"status": "", "reason": "", "message": ""})
    ready = conditions.get("Ready", {"status": "", "reason": "", "message": ""})
    code, reason = ended.get("exitCode"), _text(status.get("reason"), MAX_NAME)
    return PodState(
        name=name,
        uid=_text(meta.get("uid"), MAX_NAME),
        group=group,
        index=int(index),
        phase=_text(status.get("phase"), 40),
        machine=_text(spec.get("nodeName"), MAX_NAME),
        reason=reason,
        message=_text(status.get("message")),
        running="running" in state,
        unscheduled=_told(scheduled) if scheduled["status"] == "False" else "",
        waiting=_text(waiting.get("reason"), MAX_NAME),
        waiting_why=_text(waiting.get("message")),
        exit_code=code if type(code) is int else None,
        exit_reason=_text(ended.get("reason"), MAX_NAME),
        ended_by=_told(disrupted) if disrupted["status"] == "True" else "",
        deleting="deletionTimestamp" in meta,
        silent=_is_silent(ready) or reason in SILENT_REASONS,
    )


def _is_silent(ready: Mapping[str, str]) -> bool:
    return ready["status"] != "True" and ready["reason"] in SILENT_REASONS


def _told(condition: Mapping[str, str]) -> str:
    return ": ".join(filter(None, (condition["reason"], condition["message"])))


def _conditions(status: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for condition in map(_dict, _list(status.get("conditions"))[:MAX_EVENTS]):
        yield {
            "type": _text(condition.get("type"), MAX_NAME),
            "status": _text(condition.get("status"), 40),
            "reason": _text(condition.get("reason"), MAX_NAME),
            "message": _text(condition.get("message")),
        }


def _items(value: object) -> list[Mapping[str, Any]]:
    items = _list(_dict(value).get("items"))
    if len(items) > MAX_OBJECTS:
        raise BadRecord(f"more than {MAX_OBJECTS} objects")
    return list(map(_dict, items))


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object, limit: int = MAX_TEXT) -> str:
    """Printable, in one line, and no longer than that."""
    if not isinstance(value, str):
        return ""
    shown = "".join(c if c.isprintable() else " " for c in value[: 4 * limit])
    return " ".join(shown.split())[:limit]
