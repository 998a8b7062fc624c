"""What ssh_config says about one host, and the tokens that its values may hold."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.adapters.transport.ssh_config.account import current_account, expand_tilde
from orchestrator.core.base.errors import SourceLocation, UsageError
from orchestrator.parsing.ssh_config.directives import Directive
from orchestrator.parsing.ssh_config.session_variables import (
    assigned_variables,
    session_variables,
)

SSH_PORT = 22
_TOKEN = re.compile(r"%(.?)", re.DOTALL)
_TOKEN_OR_VARIABLE = re.compile(r"%(.?)|\$\{([^}]*)(\}?)", re.DOTALL)
PROXY_TOKENS = "hknpr"


@dataclass(slots=True)
class Settings:
    """What applies to one host: directives by keyword in lower case, tokens not yet expanded.

    ``alias`` is what was asked for; ``canonical`` the name or address to connect to, once known.
    ``doubts`` are ``Match`` lines that cannot be decided here, with the condition's name, as far
    as what they govern is about reaching a host.
    """

    alias: str
    values: dict[str, Directive] = field(default_factory=dict)
    identity_files: list[Directive] = field(default_factory=list)
    certificate_files: list[Directive] = field(default_factory=list)
    send_env: list[str] = field(default_factory=list)
    canonical: str | None = None
    doubts: dict[SourceLocation, str] = field(default_factory=dict)

    def get(self, keyword: str, default: str = "") -> str:
        """The value of ``keyword`` as one text."""
        return self.values[keyword].text if keyword in self.values else default

    def is_set(self, keyword: str) -> bool:
        """Whether a yes/no option is on."""
        return self.get(keyword) == "yes"

    def words(self, keyword: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The words of ``keyword``; none if they are the one word ``none``."""
        words = self.values[keyword].words if keyword in self.values else default
        return () if [word.lower() for word in words] == ["none"] else words

    @property
    def user(self) -> str:
        return self.get("user") or current_account().name

    @property
    def port(self) -> int:
        return int(self.get("port") or SSH_PORT)

    @property
    def host(self) -> str:
        """The name or address to connect to. Raises :class:`UsageError` for an unknown token."""
        if self.canonical is not None:
            return self.canonical
        found = self.values.get("hostname")
        return _expand_tokens(found, found.text, {"h": self.alias}) if found else self.alias

    @property
    def host_key_alias(self) -> str:
        """In lower case; empty if there is none."""
        return self.get("hostkeyalias").lower()

    @property
    def set_env(self) -> dict[str, str]:
        """The variables of ``SetEnv``; of two for one name, the first."""
        return assigned_variables(self.words("setenv"))

    @property
    def sent_env(self) -> dict[str, str]:
        """This process' variables that ``SendEnv`` names, and those of ``SetEnv`` over them."""
        return session_variables(os.environ, self.send_env, self.words("setenv"))

    def path(self, directive: Directive, text: str | None = None) -> str:
        """A file's name with ``~``, ``%`` tokens and ``${NAME}`` expanded. Raises
        :class:`UsageError`.
        """
        text = directive.text if text is None else text
        try:
            text = expand_tilde(text)
        except ValueError as error:
            raise _refused_directive(directive, str(error)) from error
        return _expand_tokens(directive, text, self.tokens(), variables=True)

    def command(self, keyword: str) -> str:
        """A proxy's command line with its tokens expanded. Raises :class:`UsageError`."""
        tokens = self.tokens()
        return _expand_tokens(
            self.values[keyword], self.get(keyword), {t: tokens[t] for t in PROXY_TOKENS}
        )

    def condition(self, directive: Directive, text: str) -> str:
        """The command of a ``Match exec``. Raises :class:`UsageError`."""
        tokens = self.tokens()
        tokens["k"] = self.host_key_alias or self.host
        return _expand_tokens(directive, text, tokens)

    def tokens(self) -> dict[str, str]:
        """What stands for each ``%`` token now."""
        us, local = current_account(), socket.gethostname()
        port = str(self.port)
        hashed = hashlib.sha1(
            f"{local}{self.host}{port}{self.user}".encode(errors="surrogateescape"),
            usedforsecurity=False,
        )
        return {
            "C": hashed.hexdigest(),
            "L": local.partition(".")[0],
            "d": us.home,
            "h": self.host,
            "i": str(us.uid),
            "k": self.host_key_alias or self.alias,
            "l": local,
            "n": self.alias,
            "p": port,
            "r": self.user,
            "u": us.name,
        }


def _refused_directive(directive: Directive, why: str) -> UsageError:
    return UsageError(
        f"cannot expand {directive.keyword}",
        id="OR-SSH-024",
        where=directive.place,
        why=why,
        remedy="correct the value; 'man ssh_config', section TOKENS",
    )


def _expand_tokens(
    directive: Directive, text: str, tokens: Mapping[str, str], *, variables: bool = False
) -> str:
    """``text`` with its tokens, and with ``${NAME}`` where ``variables`` are allowed."""

    def value(found: re.Match[str]) -> str:
        if found[0].startswith("%"):
            known = {**tokens, "%": "%"}
            if found[1] not in known:
                raise _refused_directive(directive, f"there is no token {found[0]} here")
            return known[found[1]]
        if not found[3] or not found[2]:
            raise _refused_directive(directive, "'${' without a name and '}'")
        if found[2] not in os.environ:
            raise _refused_directive(directive, f"the variable {found[2]} is not set")
        return os.environ[found[2]]

    return (_TOKEN_OR_VARIABLE if variables else _TOKEN).sub(value, text)
