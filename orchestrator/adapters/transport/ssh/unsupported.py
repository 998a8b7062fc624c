"""What ssh_config may demand and no library does: such a node is refused, the keyword named."""

from __future__ import annotations

from orchestrator.adapters.transport.ssh_config.settings import Settings
from orchestrator.core.base.errors import UsageError


def refuse_unsupported(settings: Settings) -> None:
    """Raises :class:`UsageError` where going on would reach the host another way than ssh does."""
    for keyword, demand, remedy in _list_demands(settings):
        raise UsageError(
            f"ssh_config demands what orchestrate does not do: {demand}",
            id="OR-SSH-028",
            where=settings.values[keyword].place,
            why=f"it applies to {settings.alias}",
            remedy=f"{remedy}; or reach it by your own ssh: transport: openssh",
        )


def _list_demands(settings: Settings) -> list[tuple[str, str, str]]:
    """Keyword, what it demands, and what to write instead."""
    demands = []
    if settings.get("pubkeyauthentication") == "no":
        keys_only = "only keys are used for authentication: allow them for this host"
        demands.append(("pubkeyauthentication", "PubkeyAuthentication no", keys_only))
    methods = settings.get("preferredauthentications")
    if methods and "publickey" not in methods.split(","):
        wanted = f"PreferredAuthentications {methods}"
        demands.append(("preferredauthentications", wanted, "add publickey for this host"))
    if "refuseconnection" in settings.values:
        wanted = f"RefuseConnection {settings.get('refuseconnection')!r}"
        demands.append(("refuseconnection", wanted, "leave the node out, or exempt its name"))
    return demands + (
        _of_proxy(settings) if settings.words("proxycommand") else _direct_demands(settings)
    )


def _of_proxy(settings: Settings) -> list[tuple[str, str, str]]:
    if settings.get("proxycommand") == "-":
        instead = "name a command, or give the node its address"
        return [("proxycommand", "ProxyCommand - (the standard input)", instead)]
    if settings.is_set("proxyusefdpass"):
        instead = "set ProxyUseFdpass no, with a command that carries the data itself"
        return [("proxyusefdpass", "ProxyUseFdpass yes", instead)]
    return []


def _direct_demands(settings: Settings) -> list[tuple[str, str, str]]:
    interface = settings.get("bindinterface")
    if not interface or settings.get("proxyjump") or settings.get("bindaddress"):
        return []
    instead = "give the interface's address with BindAddress"
    return [("bindinterface", f"BindInterface {interface}", instead)]
