"""The user's own kubectl: one process a question, bounded in time and size, its refusals sorted.

OR-KUBE-001 kubectl is missing, 002 its kubeconfig, 003 the API server does not answer or does not
let us in, 004 the user may not do it, 005 the API server knows no JobSet, 006 it refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.adapters.transport.ssh.failures import Refused
from orchestrator.adapters.transport.transport import CHUNK_BYTES
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.kubernetes.run_pods import JOBSET
from orchestrator.core.model.pod_place import PodPlace
from orchestrator.parsing.replies.supervisor_records import BadRecord

PROGRAM = "kubectl"
MAX_BYTES = 64 * 1024 * 1024
MAX_WORDS = 600
LOGGED = re.compile(r"[IWEF]\d{4} \d\d:")
ASK_S = 30.0
# The API server ends what takes it longer than that.
REQUEST_S = 20
# Said of a kind that is not installed any more, while kubectl still remembers it.
NO_RESOURCE = "could not find the requested resource"


class NotFound(Exception):
    """What was asked for is not there."""


class AlreadyThere(Exception):
    """What was to be made is there."""


@dataclass(frozen=True, slots=True)
class KubectlFailure:
    """How kubectl words one kind of failure: ``pattern`` in what it writes to standard error."""

    id: str
    pattern: re.Pattern[str]
    what: str
    remedy: str
    final: bool = True


REFUSALS = (
    KubectlFailure(
        "OR-KUBE-002",
        re.compile(
            r"current-context|cannot locate context|context .* does not exist|"
            r"no configuration has been provided|"
            r"error loading config file|invalid configuration|localhost:8080",
            re.IGNORECASE,
        ),
        "kubectl has no context to work with",
        "kubectl config get-contexts; --pod-context NAME chooses one, KUBECONFIG names the file",
    ),
    KubectlFailure(
        "OR-KUBE-003",
        re.compile(r"Unauthorized|must be logged in|provide credentials|getting credentials"),
        "the API server does not know the user",
        "log in again as your site has it, then: kubectl auth whoami",
    ),
    KubectlFailure(
        "OR-KUBE-004",
        re.compile(r"[Ff]orbidden"),
        "the user may not do that",
        "kubectl auth can-i --list; an administrator grants verbs by a Role and a RoleBinding",
    ),
    KubectlFailure(
        "OR-KUBE-005",
        re.compile(
            f"no matches for kind|doesn't have a resource type|{NO_RESOURCE}",
        ),
        "the cluster has no JobSet",
        "an administrator installs it: https://jobset.sigs.k8s.io/docs/installation/; "
        f"kubectl api-resources --api-group {JOBSET.partition('.')[2]} shows it",
    ),
    KubectlFailure(
        "OR-KUBE-003",
        re.compile(
            r"[Uu]nable to connect|connection refused|no such host|i/o timeout|TLS handshake|x509:|"
            r"context deadline exceeded|connection reset|EOF|ServiceUnavailable|TooManyRequests|"
            r"etcdserver|network is unreachable|no route to host|http2: |stream error|"
            r"InternalError",
        ),
        "the API server does not answer",
        "kubectl cluster-info; check the network, a proxy (HTTPS_PROXY) and the context's server",
        final=False,
    ),
)


def kubectl_program() -> str:
    """The path of kubectl. Raises ``PreflightError``."""
    path = shutil.which(PROGRAM)
    if path is None:
        raise PreflightError(
            "kubectl is not here",
            id="OR-KUBE-001",
            where="PATH",
            why="pods are made, followed and removed with the kubectl of this machine",
            remedy="https://kubernetes.io/docs/tasks/tools installs it; then: kubectl cluster-info",
        )
    return path


def kubectl_environment() -> Mapping[str, str]:
    """What kubectl is started with: nothing that changes how it writes."""
    left_out = {"KUBECTL_EXTERNAL_DIFF", "KUBECTL_COMMAND_HEADERS", "KUBE_EDITOR"}
    return {name: value for name, value in os.environ.items() if name not in left_out}


async def ask_kubectl(
    place: PodPlace, *words: str, stdin: bytes = b"", timeout_s: float | None = None
) -> bytes:
    """What ``kubectl WORDS`` prints, in the context and namespace of ``place``.

    Raises :class:`NotFound`, :class:`AlreadyThere`, and ``PreflightError`` (``Refused`` where
    asking again cannot help).
    """
    program = kubectl_program()
    limit_s = ASK_S if timeout_s is None else timeout_s
    _, *options = place.kubectl
    argv = [program, *options, f"--request-timeout={REQUEST_S}s", *words]
    try:
        code, out, err = await _run(argv, stdin, limit_s)
    except TimeoutError:
        raise PreflightError(
            "the API server does not answer",
            id="OR-KUBE-003",
            where=place.job,
            why=f"kubectl {' '.join(words[:2])} had no answer within {limit_s:g} s",
            remedy=place.command("cluster-info"),
        ) from None
    except OSError as error:
        raise Refused(
            "kubectl cannot be started",
            id="OR-KUBE-001",
            where=program,
            why=error.strerror or str(error),
            remedy=f"{program} version --client; the first kubectl of PATH is the one that is used",
        ) from error
    if code == 0:
        return out
    said = _one_line(err or out)
    if "(NotFound)" in said and NO_RESOURCE not in said:
        raise NotFound(said)
    if "(AlreadyExists)" in said:
        raise AlreadyThere(said)
    raise _failure(place, words, code, said)


async def _run(argv: list[str], stdin: bytes, timeout_s: float) -> tuple[int, bytes, bytes]:
    """Raises ``TimeoutError`` and ``OSError``."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=kubectl_environment(),
        start_new_session=True,  # a terminal's Ctrl-C is ours, not kubectl's
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(timeout_s):
            _, out, err = await asyncio.gather(
                _feed(process, stdin), _read(process.stdout), _read(process.stderr)
            )
            return await process.wait(), out, err
    finally:
        if process.returncode is None:
            # With what it started: a plug-in of the kubeconfig would hold its pipes open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _feed(process: asyncio.subprocess.Process, stdin: bytes) -> None:
    if process.stdin is None:
        return
    try:
        process.stdin.write(stdin)
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it says by itself why it does not read on
    finally:
        process.stdin.close()


async def _read(stream: asyncio.StreamReader) -> bytes:
    """At most ``MAX_BYTES``; the rest passes."""
    kept = bytearray()
    while chunk := await stream.read(CHUNK_BYTES):
        kept += chunk[: MAX_BYTES - len(kept)]
    return bytes(kept)


def invalid_reply(error: BadRecord, where: str) -> PreflightError:
    """What a reply becomes that is not of the API server's form. Asking again may help."""
    what, why = "invalid reply of the API server", str(error)[:300]
    remedy = "kubectl version should name 1.25 or newer on both sides"
    return PreflightError(what, id="OR-KUBE-006", where=where, why=why, remedy=remedy)


def _failure(place: PodPlace, words: tuple[str, ...], code: int, said: str) -> PreflightError:
    why = said or f"kubectl {' '.join(words[:2])} ended with exit code {code}"
    for refusal in REFUSALS:
        if refusal.pattern.search(said):
            kind = Refused if refusal.final else PreflightError
            remedy = refusal.remedy
            if refusal.id == "OR-KUBE-004":
                remedy = f"{place.command('auth', 'can-i', '--list')}; {remedy.partition('; ')[2]}"
            return kind(refusal.what, id=refusal.id, where=place.job, why=why, remedy=remedy)
    return Refused(
        "the API server refuses",
        id="OR-KUBE-006",
        where=place.job,
        why=why,
        remedy=f"the reason is the API server's own; {place.command('get', JOBSET)}",
    )


def _one_line(data: bytes) -> str:
    """What kubectl says at last, without what its libraries logged before."""
    lines = data[-8192:].decode(errors="replace").splitlines()
    text = " ".join([line for line in lines if not LOGGED.match(line)] or lines)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MAX_WORDS]
