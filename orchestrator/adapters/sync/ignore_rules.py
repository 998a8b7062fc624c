"""Which files of a folder may travel, whether git lists them or nobody does.

Three groups of rules, the strongest first: the lines of ``.orchestrateignore``, which also hold for
files that git tracks; names that stay behind by default; and what git ignores. Each group means
what git means by it, and a stronger one decides before a weaker one is asked. So ``!name`` in
``.orchestrateignore`` takes back what the weaker groups leave out. Two limits keep a broad pattern
from sending what nobody meant: a default is taken back only by a line that spells its name, and a
folder that a weaker group leaves out is opened only for a line that spells its path.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.adapters.sync.ignore_file import IgnoreRule, RuleList, named_rules, read_rules

IGNORE_FILE = ".orchestrateignore"
OWN_FILES = "files of orchestrate itself"

_DEFAULTS = named_rules(
    "default",
    ".git .hg .svn .orchestrate __pycache__ .venv venv node_modules .mypy_cache .pytest_cache "
    ".ruff_cache .hypothesis .tox .nox .ipynb_checkpoints .DS_Store *.pyc *.pyo".split(),
)
# Where programs keep keys, tokens and passwords. What git tracks of it travels, with a warning.
_PRIVATE = named_rules(
    "default, private",
    ".ssh .gnupg .aws .azure .oci .kube .password-store .netrc _netrc .git-credentials .pgpass "
    ".npmrc .vault_pass .vault_pass.txt .vault_password .databrickscfg .mylogin.cnf .comet.config "
    ".my.cnf .pypirc .s3cfg .boto .vault-token .terraformrc .dockercfg .bash_history "
    ".zsh_history .python_history id_rsa id_dsa id_ecdsa id_ecdsa_sk id_ed25519 id_ed25519_sk "
    "**/.docker/config.json **/.config/gcloud **/.config/gh **/.config/hub **/.config/rclone "
    "**/.config/git/credentials **/.config/containers/auth.json **/.config/op "
    "**/.config/configstore **/.config/doctl **/.terraform.d/credentials.tfrc.json "
    "**/.cargo/credentials **/.cargo/credentials.toml **/.gem/credentials **/.kaggle/kaggle.json "
    "**/.huggingface/token **/.huggingface/stored_tokens **/.cache/huggingface/token "
    "**/.cache/huggingface/stored_tokens **/.local/share/keyrings **/Library/Keychains".split(),
)
_PRIVATE_ENDS = frozenset(rule.text.rpartition("/")[2] for rule in _PRIVATE.rules)
# A file that only the root of a Python environment holds.
_ENVIRONMENTS = ("pyvenv.cfg", "conda-meta/history")


@dataclass(frozen=True, slots=True)
class Scope:
    """What holds for a path. ``rule`` leaves it out, unless empty; it began ``at`` this folder.

    ``final``: nothing below it can come back. ``weak``: rule lists of the weakest group that hold
    below it, the strongest first.
    """

    rule: str = ""
    at: str = ""
    final: bool = False
    weak: tuple[RuleList, ...] = ()


class Rules:
    """The rules of one tree. ``kept``: a folder in it (``a/b/`` or ``""``) that never travels."""

    def __init__(self, folder: Path, own: RuleList, kept: str = "") -> None:
        self.own = own
        self._folder = str(folder)
        self._kept = kept
        self._exceptions = [rule.literal_folder for rule in own.rules if rule.negative]
        self._scopes = {"": Scope()}
        self._forbidden = {"": ""}

    @classmethod
    def of(cls, folder: Path, kept: Path | None = None) -> Rules:
        """The rules for ``folder``; ``kept`` is where the coordinator keeps its files.

        They change while they would be read. Raises ``OSError`` if the ignore file cannot be read,
        ``UsageError`` if it is none.
        """
        own = read_rules(folder / IGNORE_FILE, IGNORE_FILE, follow=True)
        return cls(folder, own, "" if kept is None else _path_inside(folder, kept))

    @property
    def has_exceptions(self) -> bool:
        """Whether anything could come back that a weaker group leaves out."""
        return bool(self._exceptions)

    def judge(self, above: Scope, path: str, *, is_folder: bool, ignored: str = "") -> Scope:
        """What holds for an untracked ``path`` in a folder for which ``above`` holds.

        ``ignored`` is the rule of the weakest group, where git has said so already.
        """
        if above.final:
            return above
        if self._kept and f"{path}/".startswith(self._kept):
            return Scope(OWN_FILES, path, final=True)
        own = self.own.last_match(path, is_folder=is_folder)
        if own is not None and not own.negative:
            return Scope(str(own), path, final=True)
        if above.rule and (own is None or not _is_within(own.literal_folder, above.at)):
            return above
        rule = self._default(path, own, is_folder=is_folder)
        if not rule and own is None:
            rule = ignored or _weak_rule(above.weak, path, is_folder=is_folder)
        return replace(above, rule=rule, at=path if rule else "")

    def may_come_back(self, scope: Scope, folder: str) -> bool:
        """Whether a line spells a path in ``folder``, which ``scope`` leaves out."""
        if scope.final:
            return False
        return any(
            _is_within(spelled, scope.at)
            and (_is_within(spelled, folder) or _is_within(folder, spelled))
            for spelled in self._exceptions
        )

    def scope(self, folder: str) -> Scope:
        """What holds for a folder of untracked files that git does not ignore."""
        missing = []
        while (scope := self._scopes.get(folder)) is None:
            missing.append(folder)
            folder = folder.rpartition("/")[0]
        for path in reversed(missing):
            scope = self._scopes[path] = self.judge(scope, path, is_folder=True)
        return scope

    def rule(self, path: str) -> str:
        """The rule that leaves out an untracked file, or a repository (``path`` ends in ``/``)."""
        is_folder = path.endswith("/")
        path = path.rstrip("/")
        above = self.scope(path.rpartition("/")[0])
        return self.judge(above, path, is_folder=is_folder).rule

    def rule_for_tracked(self, path: str) -> str:
        """The same for a file that git tracks: only the ignore file's own rules hold."""
        is_folder = path.endswith("/")
        path = path.rstrip("/")
        above = self._forbidden_folder(path.rpartition("/")[0])
        return above or self._forbid(path, is_folder=is_folder)

    @property
    def holds_for_tracked(self) -> bool:
        """Whether any rule could leave out what git tracks."""
        return bool(self.own) or bool(self._kept)

    def _forbidden_folder(self, folder: str) -> str:
        missing = []
        while (rule := self._forbidden.get(folder)) is None:
            missing.append(folder)
            folder = folder.rpartition("/")[0]
        for path in reversed(missing):
            rule = self._forbidden[path] = rule or self._forbid(path, is_folder=True)
        return rule

    def _forbid(self, path: str, *, is_folder: bool) -> str:
        if self._kept and f"{path}/".startswith(self._kept):
            return OWN_FILES
        own = self.own.last_match(path, is_folder=is_folder)
        return "" if own is None or own.negative else str(own)

    def _default(self, path: str, own: IgnoreRule | None, *, is_folder: bool) -> str:
        """The default that leaves ``path`` out, unless ``own`` takes it back."""
        name = path.rpartition("/")[2]
        if own is not None and own.names(name):
            return ""
        for defaults in (_DEFAULTS, _PRIVATE):
            rule = defaults.last_match(path, is_folder=is_folder)
            if rule is not None and not (own is not None and own.names(rule.text)):
                return str(rule)
        if is_folder:
            for marker in _ENVIRONMENTS:
                if os.path.lexists(f"{self._folder}/{path}/{marker}"):
                    return f"default: a Python environment ({marker})"
        return ""


def private_names(names: Iterable[str]) -> list[str]:
    """The files among ``names`` that lie where programs keep keys or passwords."""
    return [n for n in names if not _PRIVATE_ENDS.isdisjoint(n.split("/")) and _is_private(n)]


def _is_private(path: str) -> bool:
    parts = path.split("/")
    return any(
        _PRIVATE.last_match("/".join(parts[:end]), is_folder=end < len(parts))
        for end in range(1, len(parts) + 1)
    )


def _weak_rule(lists: tuple[RuleList, ...], path: str, *, is_folder: bool) -> str:
    """The rule of ignore files that leaves ``path`` out: the first list that knows it decides."""
    for rules in lists:
        rule = rules.last_match(path, is_folder=is_folder)
        if rule is not None:
            return "" if rule.negative else str(rule)
    return ""


def _is_within(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or below it."""
    return path == folder or path.startswith(f"{folder}/") or not folder


def _path_inside(folder: Path, kept: Path) -> str:
    """``kept`` relative to ``folder`` with a ``/`` at its end, or ``""`` if it is not below it."""
    folder, kept = folder.resolve(), kept.resolve()
    return f"{kept.relative_to(folder).as_posix()}/" if folder in kept.parents else ""
