"""The judge of ssh_config: what ``ssh -G`` prints, and the same lines as we read them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.adapters.transport.ssh_config.evaluation import evaluate_config
from orchestrator.adapters.transport.ssh_config.files import read_config
from orchestrator.adapters.transport.ssh_config.settings import Settings
from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.ssh_config.hops import parse_hops
from tests.time_limits import communicate

Dump = dict[str, list[str]]
# None: the file, or this host's part of it, is refused.
Judgement = Dump | None

PLAIN = (
    "bindaddress",
    "bindinterface",
    "hostkeyalias",
    "knownhostscommand",
    "pkcs11provider",
    "preferredauthentications",
    "revokedhostkeys",
)
ALGORITHMS = ("ciphers", "hostkeyalgorithms", "kexalgorithms", "macs", "pubkeyacceptedalgorithms")
SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
DEFAULT_KEYS = [
    f"~/.ssh/id_{kind}"
    for kind in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk", "xmss", "dsa")
]


def judged(
    file: Path | None, names: Iterable[str], *, env: Mapping[str, str] | None = None
) -> dict[str, Judgement]:
    """What OpenSSH says of each name; all of them at once. Without a ``file``: by its own files."""
    chosen = ["-F", str(file)] if file else []
    commands = {name: ["ssh", "-G", *chosen, "--", name] for name in names}
    running = {
        name: subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )
        for name, command in commands.items()
    }
    judgements: dict[str, Judgement] = {}
    for name, process in running.items():
        with process:
            out, _ = communicate(process, 60)
        judgements[name] = dump_in(out) if process.returncode == 0 else None
    return judgements


def dump_in(text: str) -> Dump:
    """The lines of ``ssh -G`` by keyword."""
    found: Dump = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found


def read_by_us(file: Path | None, name: str) -> Judgement:
    """What we say of ``name``, in the words of ``ssh -G``, as far as it is about reaching it."""
    try:
        settings = evaluate_config(name, read_config(str(file) if file else None), preset={})
        return None if settings.doubts else _dump(settings)
    except UsageError:
        return None


def differences(theirs: Judgement, ours: Judgement) -> dict[str, tuple[object, object]]:
    """Keyword -> their value and ours, where they differ; empty: they agree."""
    if theirs is None or ours is None:
        return {} if theirs is ours else {"refused": (theirs is None, ours is None)}
    pairs = {keyword: (theirs.get(keyword, [""]), value) for keyword, value in ours.items()}
    return {keyword: pair for keyword, pair in pairs.items() if pair[0] != pair[1]}


def _dump(settings: Settings) -> Dump:
    one = {
        "hostname": settings.host,
        "port": str(settings.port),
        "user": settings.user,
        "addressfamily": settings.get("addressfamily", "any"),
        "identitiesonly": settings.get("identitiesonly", "no"),
        "proxyusefdpass": "no"
        if settings.get("proxyjump")
        else settings.get("proxyusefdpass", "no"),
        "canonicalizefallbacklocal": settings.get("canonicalizefallbacklocal", "yes"),
        "canonicalizemaxdots": settings.get("canonicalizemaxdots", "1"),
        "canonicaldomains": settings.get("canonicaldomains", "none"),
        "canonicalizehostname": _flag(settings.get("canonicalizehostname", "no")),
        "pubkeyauthentication": _flag(settings.get("pubkeyauthentication", "yes")),
        "globalknownhostsfile": settings.get("globalknownhostsfile", SYSTEM_KNOWN_HOSTS),
        "userknownhostsfile": " ".join(_known_hosts(settings)) or "none",
        "identityagent": _agent(settings),
        "proxycommand": "".join(settings.words("proxycommand")),
        "proxyjump": _jump(settings.get("proxyjump")),
        **{keyword: _not_none(keyword, settings) for keyword in PLAIN},
        **{k: settings.get(k) for k in ALGORITHMS if settings.get(k)[:1].isalnum()},
    }
    many = {
        "identityfile": [file.text for file in settings.identity_files] or DEFAULT_KEYS,
        "certificatefile": [file.text for file in settings.certificate_files] or [""],
        "sendenv": settings.send_env or [""],
        "setenv": [f"{name}={value}" for name, value in settings.set_env.items()] or [""],
    }
    return {**{keyword: [value] for keyword, value in one.items()}, **many}


def _flag(value: str) -> str:
    return {"yes": "true", "no": "false"}.get(value, value)


def _not_none(keyword: str, settings: Settings) -> str:
    if keyword == "hostkeyalias":
        return settings.host_key_alias
    kept = {"bindaddress", "bindinterface", "preferredauthentications"}  # none is a value there
    return settings.get(keyword) if keyword in kept else " ".join(settings.words(keyword))


def _known_hosts(settings: Settings) -> list[str]:
    chosen = settings.values.get("userknownhostsfile")
    if chosen is None:
        home = settings.tokens()["d"]
        return [f"{home}/.ssh/known_hosts", f"{home}/.ssh/known_hosts2"]
    return [settings.path(chosen, name) for name in settings.words("userknownhostsfile")]


def _agent(settings: Settings) -> str:
    chosen = settings.values.get("identityagent")
    return settings.path(chosen) if chosen else ""


def _jump(text: str) -> str:
    """As OpenSSH prints it: the last hop in its parts, those before it as they are."""
    if not text:
        return ""
    before, comma, _ = text.rpartition(",")
    last = parse_hops(text)[-1]
    numeric = ":" in last.host or not last.host.strip("0123456789.")
    host = f"[{last.host}]" if numeric else last.host
    user = f"{last.user}@" if last.user else ""
    return f"{before}{comma}{user}{host}{f':{last.port}' if last.port else ''}"
