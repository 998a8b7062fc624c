"""Which directives apply to a host: blocks, conditions, Includes, and the second pass."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from orchestrator.adapters.transport.ssh_config.account import current_account
from orchestrator.adapters.transport.ssh_config.canonical import canonical_name
from orchestrator.adapters.transport.ssh_config.files import Block, ConfigFile, included_files
from orchestrator.adapters.transport.ssh_config.settings import Settings
from orchestrator.core.base.errors import SourceLocation, UsageError
from orchestrator.parsing.ssh_config.criteria import Criterion
from orchestrator.parsing.ssh_config.directives import Directive
from orchestrator.parsing.ssh_config.patterns import (
    matches_any,
    matches_host,
    matches_list,
    matches_pattern,
)

MATCH_EXEC_TIMEOUT_S = 10.0
COMMAND_LINE = SourceLocation("the inventory")
# A transport always executes a command; `ssh` has other kinds of sessions, too.
SESSION_TYPE = "exec"


def evaluate_config(
    alias: str,
    files: Sequence[ConfigFile],
    *,
    preset: Mapping[str, str],
    holding: frozenset[SourceLocation] = frozenset(),
) -> Settings:
    """What ``files`` say about ``alias``; ``preset`` wins, as the command line of ``ssh`` does.

    Of the ``Match`` lines that cannot be decided here, those of ``holding`` count as if they held.
    Raises :class:`UsageError` for a value that cannot be expanded or a condition that cannot
    be evaluated, and for a name that ``CanonicalizeHostname`` does not find.
    """
    settings = Settings(alias)
    for keyword, value in preset.items():
        _set_keyword(settings, Directive(keyword, (value,), COMMAND_LINE))
    first = _Pass(settings, alias, holding, final=False)
    first.apply_all(files)
    settings.canonical = canonical_name(settings)
    if first.wants_final or settings.get("canonicalizehostname", "no") != "no":
        _Pass(settings, settings.canonical, holding, final=True).apply_all(files)
    return settings


def _set_keyword(settings: Settings, directive: Directive) -> None:
    """The first value of a keyword counts; some gather values, and two exclude each other."""
    keyword, values = directive.keyword, settings.values
    if keyword == "identityfile":
        _append_directive(settings.identity_files, directive)
    elif keyword == "certificatefile":
        _append_directive(settings.certificate_files, directive)
    elif keyword == "sendenv":
        _send_variables(settings.send_env, directive.words)
    elif keyword == "proxyjump" and directive.text:
        if not {"proxyjump", "proxycommand"} & values.keys():
            values["proxyjump"] = directive
            values["proxycommand"] = Directive("proxycommand", ("none",), directive.place)
    elif directive.words:
        values.setdefault(keyword, directive)


def _append_directive(found: list[Directive], directive: Directive) -> None:
    if all(other.words != directive.words for other in found):
        found.append(directive)


def _send_variables(patterns: list[str], words: Sequence[str]) -> None:
    for word in words:
        if word.startswith("-"):
            patterns[:] = [kept for kept in patterns if not matches_pattern(kept, word[1:])]
        else:
            patterns.append(word)


class _Pass:
    """One pass over the files; ``name`` is what ``Host`` patterns are compared with."""

    def __init__(
        self, settings: Settings, name: str, holding: frozenset[SourceLocation], *, final: bool
    ) -> None:
        self._settings = settings
        self._name = name
        self._holding = holding
        self._final = final
        self._doubt: tuple[SourceLocation, str] | None = None  # the block at hand cannot be decided
        self.wants_final = False

    def apply_all(self, files: Sequence[ConfigFile]) -> None:
        for file in files:
            self._apply(file, active=True, depth=0)

    def _apply(self, file: ConfigFile, *, active: bool, depth: int) -> None:
        outer_doubt = self._doubt
        for block in file.blocks:
            self._doubt = outer_doubt
            holds = self._opens(block.header) and active
            if holds or self._doubt is not None or block.has_includes:
                self._apply_block(block, file, active=holds, depth=depth)
        self._doubt = outer_doubt

    def _opens(self, header: Directive | None) -> bool:
        if header is None:
            return True
        if header.keyword == "host":
            return matches_any(self._name, header.words)
        return self._match(header)

    def _apply_block(self, block: Block, file: ConfigFile, *, active: bool, depth: int) -> None:
        for directive in block.body:
            self._note_doubt()
            if directive.keyword == "include":
                # Also where the block does not apply: a bad file is bad for all hosts.
                for other in included_files(directive, of_user=file.of_user, depth=depth):
                    self._apply(other, active=active, depth=depth + 1)
            # The second pass follows the canonical name; how it is found is settled.
            elif active and not (self._final and directive.keyword.startswith("canonicalize")):
                _set_keyword(self._settings, directive)

    def _note_doubt(self) -> None:
        if self._doubt is not None:
            place, name = self._doubt
            self._settings.doubts[place] = name

    def _match(self, directive: Directive) -> bool:
        """Whether all conditions hold. A command is only run while the others do."""
        result: bool = True
        doubtful = ""
        for criterion in directive.criteria:
            if criterion.name == "final":
                self.wants_final = True
            if criterion.name == "exec" and not result:
                continue
            holds = self._holds(criterion, directive)
            if holds is None:
                doubtful = criterion.name
            else:
                result = result and holds != criterion.negated
        if result and doubtful:
            self._doubt = self._doubt or (directive.place, doubtful)
            return directive.place in self._holding
        return result

    def _holds(self, criterion: Criterion, directive: Directive) -> bool | None:
        """Whether one condition holds before its negation; None: that cannot be said here."""
        settings, value = self._settings, criterion.argument
        match criterion.name:
            case "all":
                return True
            case "canonical" | "final":
                return self._final
            case "host":
                return matches_host(settings.host, value)
            case "originalhost":
                return matches_host(settings.alias, value)
            case "user":
                return matches_list(settings.user, value)
            case "localuser":
                return matches_list(current_account().name, value)
            case "exec":
                return _command_succeeds(settings.condition(directive, value), directive)
            case "tagged":
                tag = settings.get("tag")
                return matches_list(tag, value) if tag else not value
            case "sessiontype":
                return matches_list(SESSION_TYPE, value)
            case _:
                return None


def _command_succeeds(command: str, directive: Directive) -> bool:
    # OpenSSH does the same with this line of the user's own file.
    shell = os.environ.get("SHELL") or "/bin/sh"
    try:
        done = subprocess.run(
            [shell, "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=MATCH_EXEC_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _cannot_run(directive, str(error)) from error
    if done.returncode < 0:
        raise _cannot_run(directive, f"the command was ended by signal {-done.returncode}")
    return done.returncode == 0


def _cannot_run(directive: Directive, why: str) -> UsageError:
    return UsageError(
        "cannot evaluate 'Match exec'",
        id="OR-SSH-020",
        where=directive.place,
        why=why,
        remedy="correct the command of this line",
    )
