"""Where a connection goes and what it may use: the inventory and ssh_config combined."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.adapters.transport.ssh import known_hosts
from orchestrator.adapters.transport.ssh.unsupported import refuse_unsupported
from orchestrator.adapters.transport.ssh_config.account import expand_tilde
from orchestrator.adapters.transport.ssh_config.evaluation import evaluate_config
from orchestrator.adapters.transport.ssh_config.files import ConfigFile, read_all, read_config
from orchestrator.adapters.transport.ssh_config.settings import Settings
from orchestrator.core.base.errors import PreflightError, SourceLocation, UsageError
from orchestrator.core.model.inventory import SSH_LIBRARIES, NodeSpec, SshEndpoint
from orchestrator.parsing.ssh_config.hops import Hop, parse_hops

MAX_HOPS = 8
MAX_WORLDS = 64
DEFAULT_IDENTITIES = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")
DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
SYSTEM_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
ALGORITHMS = (
    "kexalgorithms",
    "ciphers",
    "macs",
    "hostkeyalgorithms",
    "pubkeyacceptedalgorithms",
)
# What a shell on the way would change: ssh hands a jump host's words to one.
_SHELL = set("`$\\\"'&;<>|(){}*?!#\t\n ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One SSH server and how to reach it. All paths are expanded; ``agent`` is a socket or empty.
    ``endpoint`` is what it was made of.

    ``algorithms`` holds what ssh_config says under the lower-case keywords ``ALGORITHMS``.
    ``family`` is ``any``, ``inet`` or ``inet6``; ``bind_address`` and ``proxy_command`` (a line for
    the user's shell) may be empty. ``env`` is for each command's session. ``absent`` names what
    could let ssh in, or have it trust the host, and is not done here: keyword and value.
    """

    endpoint: SshEndpoint
    host: str
    port: int
    user: str
    identity_files: tuple[str, ...]
    certificate_files: tuple[str, ...]
    identities_only: bool
    agent: str
    known_hosts_files: tuple[str, ...]
    revoked_keys_file: str
    host_key_alias: str
    algorithms: tuple[tuple[str, str], ...]
    family: str
    bind_address: str
    proxy_command: str
    env: tuple[tuple[str, str], ...]
    absent: tuple[tuple[str, str], ...]
    via: Target | None

    def stations(self) -> Iterator[Target]:
        """The server, then its jump hosts, the nearest to us last."""
        yield self
        if self.via is not None:
            yield from self.via.stations()

    @property
    def alias(self) -> str:
        """The name that ssh_config knows it by."""
        return self.endpoint.host

    @property
    def address(self) -> str:
        """``user@host:port`` for messages."""
        return f"{self.user}@{self.host}:{self.port}"

    @property
    def certificate_paths(self) -> tuple[str, ...]:
        """The files to look for certificates in: those beside the keys unless others are named."""
        return self.certificate_files or tuple(f"{path}-cert.pub" for path in self.identity_files)

    @property
    def accepted_keys(self) -> str:
        """What ``PubkeyAcceptedAlgorithms`` says, or nothing."""
        return dict(self.algorithms).get("pubkeyacceptedalgorithms", "")

    @property
    def server(self) -> tuple[str, int, Target | None]:
        """What a handshake is with: host and port, as seen from the jump host."""
        return (self.host, self.port, self.via)

    @property
    def known_hosts_names(self) -> tuple[str, ...]:
        """The names under which the host's key may be filed, in OpenSSH's order."""
        if self.host_key_alias:
            return (self.host_key_alias,)
        return tuple(dict.fromkeys((known_hosts.lookup_name(self.host, self.port), self.host)))

    def trust(self) -> known_hosts.Trust:
        """What the user's known_hosts files say about this host, read now.

        Raises :class:`UsageError` for a file of ``RevokedHostKeys`` that cannot be used.
        """
        trust = known_hosts.trust_in(self.known_hosts_files, self.known_hosts_names)
        if not self.revoked_keys_file:
            return trust
        revoked = known_hosts.revoked_in(self.revoked_keys_file)
        return replace(trust, revoked=(*trust.revoked, *revoked))


def check_configuration(nodes: Iterable[NodeSpec]) -> None:
    """Read the ssh_config files of all ``nodes``: a bad line is found before anything is contacted.

    Raises :class:`UsageError`.
    """
    remote = (node for node in nodes if node.transport in SSH_LIBRARIES)
    for chosen in dict.fromkeys(node.ssh.ssh_config for node in remote):
        read_all(read_config(chosen))


def resolve_target(endpoint: SshEndpoint) -> Target:
    """Combine ``endpoint`` with ssh_config; the endpoint wins. Reads files, contacts no node.

    Raises ``UsageError`` for a configuration that cannot be read or
    followed and :class:`PreflightError` for jump hosts that form a circle.
    """
    return _resolve_endpoint(endpoint, read_config(endpoint.ssh_config), depth=0)


def _resolve_endpoint(endpoint: SshEndpoint, files: Sequence[ConfigFile], depth: int) -> Target:
    preset = _preset_options(endpoint)
    settings = evaluate_config(endpoint.host, files, preset=preset)
    target = _reached_target(endpoint, settings, files, depth)
    worlds = [frozenset({place}) for place in settings.doubts]
    for holding in worlds:  # grows: a block may bring doubts of its own
        other = evaluate_config(endpoint.host, files, preset=preset, holding=holding)
        if not _is_reached_alike(target, endpoint, other, files, depth):
            raise _undecidable_error(settings, other, holding)
        more = (holding | {place} for place in other.doubts)
        worlds += [world for world in more if world not in worlds]
        if len(worlds) > MAX_WORLDS:
            raise _undecidable_error(settings, other, holding)
    return target


def _is_reached_alike(
    target: Target,
    endpoint: SshEndpoint,
    settings: Settings,
    files: Sequence[ConfigFile],
    depth: int,
) -> bool:
    try:
        return _reached_target(endpoint, settings, files, depth) == target
    except (UsageError, PreflightError):
        return False


def _preset_options(endpoint: SshEndpoint) -> dict[str, str]:
    """What the inventory says, as options of ssh's command line."""
    preset = {"user": endpoint.user or "", "port": str(endpoint.port or "")}
    preset = {keyword: value for keyword, value in preset.items() if value}
    if endpoint.jump and endpoint.jump.lower() == "none":
        return {**preset, "proxyjump": "", "proxycommand": "none"}
    return {**preset, "proxyjump": endpoint.jump} if endpoint.jump else preset


def _undecidable_error(
    settings: Settings, other: Settings, holding: frozenset[SourceLocation]
) -> UsageError:
    """``other`` is what would apply if the conditions of ``holding`` held."""
    place = max(holding, key=lambda place: (place.file, place.line))
    name = other.doubts[place]
    names = settings.values.keys() | other.values.keys()
    changed = sorted(n for n in names if settings.get(n) != other.get(n)) or ["a key file"]
    return UsageError(
        f"cannot evaluate 'Match {name}'",
        id="OR-SSH-020",
        where=place,
        why=f"for {settings.alias}, {', '.join(changed)} depends on it",
        remedy="say it with 'Host', 'Match host' or 'Match exec', or give 'ssh_config:' another "
        "file",
    )


def _reached_target(
    endpoint: SshEndpoint, settings: Settings, files: Sequence[ConfigFile], depth: int
) -> Target:
    """The target of decided ``settings``, with its jump hosts."""
    refuse_unsupported(settings)
    target = _make_target(endpoint, settings)
    if not settings.get("proxyjump"):
        return target
    jump = _expanded_jump(settings)
    if depth >= MAX_HOPS:
        raise PreflightError(
            f"jump hosts form a circle or a chain of more than {MAX_HOPS}",
            id="OR-SSH-008",
            where=endpoint.host,
            why=f"'ProxyJump {jump}' applies to {endpoint.host} itself",
            remedy="exclude the jump host from the block that names it: 'Host * !JUMP'",
        )
    return replace(target, via=_jump_chain(jump, endpoint, files, depth))


def _expanded_jump(settings: Settings) -> str:
    """The jump hosts with their tokens. ssh builds a proxy's command line of them for a shell."""
    jump = settings.command("proxyjump")
    if _SHELL & set(jump):
        raise UsageError(
            "a jump host with characters that a shell would change",
            id="OR-SSH-027",
            where=settings.values["proxyjump"].place,
            why=f"ProxyJump {jump!r}",
            remedy="give the jump host a 'Host' block with its User and HostName, and name that",
        )
    return jump


def _jump_chain(
    jump: str, endpoint: SshEndpoint, files: Sequence[ConfigFile], depth: int
) -> Target | None:
    """The hops of ``a,b``: b is reached through a; only a's own ProxyJump is looked up."""
    via: Target | None = None
    texts = jump.split(",")
    for number, hop in enumerate(parse_hops(jump)):
        own_jump = "none" if number else None
        target = _resolve_endpoint(_hop_endpoint(hop, endpoint, own_jump), files, depth + 1)
        if number:
            told = replace(target.endpoint, jump=",".join(texts[:number]))
            target = replace(target, via=via, endpoint=told)
        via = target
    return via


def _hop_endpoint(hop: Hop, endpoint: SshEndpoint, jump: str | None) -> SshEndpoint:
    return replace(endpoint, host=hop.host, user=hop.user, port=hop.port, jump=jump)


def _make_target(endpoint: SshEndpoint, settings: Settings) -> Target:
    return Target(
        endpoint=endpoint,
        host=settings.host,
        port=settings.port,
        user=settings.user,
        identity_files=_identity_files(endpoint, settings),
        certificate_files=tuple(settings.path(file) for file in settings.certificate_files),
        identities_only=endpoint.identity_file is not None or settings.is_set("identitiesonly"),
        agent=_agent_socket(settings),
        known_hosts_files=_known_hosts_files(endpoint, settings),
        revoked_keys_file="".join(settings.words("revokedhostkeys")),
        host_key_alias=settings.host_key_alias,
        algorithms=tuple((k, settings.get(k)) for k in ALGORITHMS if settings.get(k)),
        family=settings.get("addressfamily", "any"),
        bind_address=settings.get("bindaddress"),
        proxy_command=settings.command("proxycommand") if settings.words("proxycommand") else "",
        env=tuple(sorted(settings.sent_env.items())),
        absent=_absent_files(settings),
        via=None,
    )


def _identity_files(endpoint: SshEndpoint, settings: Settings) -> tuple[str, ...]:
    """The inventory's file first, then ssh_config's; OpenSSH's defaults if neither names any."""
    explicit = [endpoint.identity_file] if endpoint.identity_file is not None else []
    named = [file for file in settings.identity_files if file.text.lower() != "none"]
    if not explicit and not settings.identity_files:
        return tuple(expand_tilde(f"~/.ssh/{name}") for name in DEFAULT_IDENTITIES)
    return (*map(_of_inventory, explicit), *map(settings.path, named))


def _of_inventory(path: str) -> str:
    """As OpenSSH takes a path of its command line."""
    try:
        return expand_tilde(path)
    except ValueError as error:
        raise UsageError(
            f"cannot find {path!r}",
            id="OR-SSH-024",
            where="the inventory",
            why=str(error),
            remedy="write the path out, or '~/' for your own home directory",
        ) from error


def _agent_socket(settings: Settings) -> str:
    """The agent's socket. ``$NAME`` is the variable's value, whatever it holds."""
    chosen = settings.values.get("identityagent")
    text = settings.path(chosen) if chosen else "SSH_AUTH_SOCK"
    if text == "none":
        return ""
    if text == "SSH_AUTH_SOCK" or text.startswith("$"):
        return os.environ.get(text.removeprefix("$"), "")
    return text


def _known_hosts_files(endpoint: SshEndpoint, settings: Settings) -> tuple[str, ...]:
    if endpoint.known_hosts is not None:
        return (_of_inventory(endpoint.known_hosts),)
    chosen = settings.values.get("userknownhostsfile")
    users = (
        [settings.path(chosen, name) for name in settings.words("userknownhostsfile")]
        if chosen
        else map(expand_tilde, DEFAULT_KNOWN_HOSTS)
    )
    system = settings.words("globalknownhostsfile", SYSTEM_KNOWN_HOSTS)
    return (*users, *map(expand_tilde, system))


def _absent_files(settings: Settings) -> tuple[tuple[str, str], ...]:
    names = {"knownhostscommand": "KnownHostsCommand", "pkcs11provider": "PKCS11Provider"}
    return tuple(
        (name, settings.get(keyword)) for keyword, name in names.items() if settings.words(keyword)
    )
