"""What a command and the broker say to each other before a connection is the command's.

Each message is a JSON object in a frame of the socket's protocol. The command asks once; the broker
answers ``waiting`` at once and every ``WAITING_S``, then what came of it. After ``attached`` the
socket carries messages of RFC 4254.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.adapters.transport.multiplex.multiplex_messages import MalformedMessage, frame
from orchestrator.adapters.transport.ssh.failures import HandshakeCut, Refused
from orchestrator.adapters.transport.ssh.target import Target
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import OrchestrateError, PreflightError, UsageError
from orchestrator.core.model.inventory import SshEndpoint

WAITING_S = 1.0
WAITING = {"state": "waiting"}
ATTACHED = {"state": "attached"}
_ERRORS: dict[str, type[OrchestrateError]] = {
    "refused": Refused,
    "cut": HandshakeCut,
    "usage": UsageError,
    "preflight": PreflightError,
}
_ERROR_FIELDS = ("what", "id", "where", "why", "remedy")
# These concern sessions, or what is not done here: two targets that differ in them alone are one.
_OF_SESSIONS = frozenset({"env", "absent"})
_FIELDS = tuple(field.name for field in dataclasses.fields(Target))


def message(fields: Mapping[str, Any]) -> bytes:
    """A frame with a JSON object."""
    return frame(json.dumps(fields).encode())


def read_message(data: bytes) -> dict[str, Any]:
    """Raises ``MalformedMessage``."""
    try:
        fields = json.loads(data)
    except ValueError as error:
        raise MalformedMessage(f"no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise MalformedMessage("no JSON object")
    return fields


def attach_request(target: Target, limits: ConnectLimits, keep_s: int) -> dict[str, Any]:
    """Ask for a connection to ``target`` that stays for ``keep_s`` seconds after its use."""
    written = write_target(target)
    return {
        "op": "attach",
        "key": connection_key(target, written),
        "target": written,
        "limits": dataclasses.asdict(limits),
        "keep_s": keep_s,
    }


def write_target(target: Target) -> dict[str, Any]:
    """JSON-ready; ``read_target`` reads it back."""
    fields: dict[str, Any] = {name: getattr(target, name) for name in _FIELDS}
    fields["endpoint"] = dataclasses.asdict(target.endpoint)
    fields["via"] = write_target(target.via) if target.via is not None else None
    return fields


def read_target(fields: Mapping[str, Any]) -> Target:
    """Raises ``TypeError`` and ``KeyError`` for what ``write_target`` did not write."""
    values = {name: _tuples(fields[name]) for name in _FIELDS}
    values["endpoint"] = SshEndpoint(**fields["endpoint"])
    values["via"] = read_target(fields["via"]) if fields["via"] is not None else None
    return Target(**values)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def connection_key(target: Target, written: Mapping[str, Any]) -> str:
    """Of all that decides where a connection goes, as whom, and what it trusts on the way: another
    value, another connection. Files count by identity, size and times.
    """
    versions = [_version(path) for station in target.stations() for path in _files(station)]
    made_of = [_of_connection(written), versions]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]


def _of_connection(written: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in written.items() if name not in _OF_SESSIONS}
    if written["via"] is not None:
        fields["via"] = _of_connection(written["via"])
    return fields


def _files(target: Target) -> Iterator[str]:
    yield from target.known_hosts_files
    yield from filter(None, (target.revoked_keys_file, target.agent))
    for path in target.identity_files:
        yield path
        yield f"{path}.pub"
    yield from target.certificate_paths


def _version(path: str) -> tuple[int, ...]:
    """Empty: there is none."""
    try:
        now = Path(path).stat()
    except OSError:
        return ()
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


def write_error(error: OrchestrateError) -> dict[str, Any]:
    """The answer that the connection failed."""
    kind = next((kind for kind, cls in _ERRORS.items() if isinstance(error, cls)), "preflight")
    return {"state": "failed", "kind": kind, **{n: getattr(error, n) for n in _ERROR_FIELDS}}


def read_error(fields: Mapping[str, Any]) -> OrchestrateError:
    """The error that the broker had. Raises ``KeyError`` for what ``write_error`` did not write."""
    what, *rest = (str(fields[name]) for name in _ERROR_FIELDS)
    words = dict(zip(_ERROR_FIELDS[1:], rest, strict=True))
    return _ERRORS[fields["kind"]](what, **words)
