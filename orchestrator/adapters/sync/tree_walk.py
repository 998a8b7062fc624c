"""Goes through a folder and the repositories in it, and collects what travels.

In a git work tree: what git tracks, and what it neither tracks nor ignores. Elsewhere, and in a
folder that its repository ignores as a whole (an installed package in a project's ``.venv``): every
file that its ``.gitignore`` files do not name. Both without what :mod:`.ignore_rules` leaves out.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orchestrator.adapters.sync import git_listing as git
from orchestrator.adapters.sync.file_stats import MODE, WIDTH, all_fine, name_fault, stat_all
from orchestrator.adapters.sync.ignore_file import IgnoreRule, RuleList, read_rules
from orchestrator.adapters.sync.ignore_rules import IGNORE_FILE, Rules, Scope, private_names
from orchestrator.adapters.sync.skip_report import SkipSummary

GITIGNORE = ".gitignore"
MAX_DEPTH = 64
MAX_NAMED = 3


class Walk:
    """``names`` relative to ``folder``, their rows of ``stats``, and what is to be said of it.

    The account remembers the rule for each path of ``needed`` that is left out.
    """

    def __init__(self, folder: Path, rules: Rules, needed: tuple[str, ...] = ()) -> None:
        self.names: list[str] = []
        self.stats = array("q")
        self.account = SkipSummary(folder, (*needed, *_taken_back(rules)))
        self.notes: list[str] = []
        self._folder = folder
        self._rules = rules

    def everything(self) -> None:
        """Collect. Raises ``UsageError`` if git refuses to list its files, ``OSError``."""
        self._repository("", 0)
        self.notes += self._without_effect()

    def _repository(self, prefix: str, depth: int) -> None:
        """Everything below ``prefix``, which is empty or ends in ``/``."""
        folder = self._folder / prefix
        query = git.GitQuery.start(folder)
        if query is None:
            self._without_git(prefix, depth)
            return
        with query:
            tracked = query.tracked()
            if tracked is None:
                self._plain(prefix, depth, Scope())
                return
            inner = self._take_tracked([prefix + name for name in tracked] if prefix else tracked)
            others = query.others()
            if not tracked and not others and git.is_folder_ignored(folder):
                self._plain(prefix, depth, Scope())
                return
            inner += self._take_others([prefix + name for name in others])
            self._ignored(prefix, depth, query.ignored())
        for name in inner:
            self._inner(name, depth)

    def _without_git(self, prefix: str, depth: int) -> None:
        root = git.repository_root(self._folder / prefix)
        if root is None:
            self._plain(prefix, depth, Scope())
            return
        self.notes.append(
            f"git is not installed: in {root}, files that it tracks stay behind if .gitignore "
            "names them"
        )
        weak = self._ignore_files(prefix, root, [root / ".git/info/exclude"])
        self._plain(prefix, depth, Scope(weak=weak))

    def _inner(self, name: str, depth: int) -> None:
        """A folder where git names a file: a submodule or another repository."""
        path = self._folder / name
        if os.path.lexists(path / ".git") and depth < MAX_DEPTH:
            self._repository(f"{name}/", depth + 1)
        elif not any(path.iterdir()):
            self.account.add("submodule that is not checked out", name)

    def _take_tracked(self, names: list[str]) -> list[str]:
        """Add the files among ``names``; the folders among them are returned."""
        if self._rules.holds_for_tracked:
            names = self._split(names, self._rules.rule_for_tracked)
        self.notes += _private_warning(names)
        return self._add(names)

    def _take_others(self, names: list[str]) -> list[str]:
        return self._add(self._split(names, self._rules.rule))

    def _split(self, names: list[str], rule_of: Callable[[str], str]) -> list[str]:
        """``names`` without those that a rule leaves out, which go to the account."""
        kept = []
        for name in names:
            rule = rule_of(name)
            if rule:
                self.account.add(rule, name)
            else:
                kept.append(name)
        return kept

    def _ignored(self, prefix: str, depth: int, names: list[str]) -> None:
        """What git ignores stays behind, unless the ignore file takes it back."""
        taking_back = self._rules.has_exceptions
        asked = names if taking_back else names[: git.MAX_IGNORED]
        for name, rule in git.ignore_reasons(self._folder / prefix, asked):
            if not (taking_back and self._taken_back(prefix, name, rule, depth)):
                self.account.add(rule, prefix + name)
        for name in names[len(asked) :]:
            self.account.add("other rules of git", prefix + name)

    def _taken_back(self, prefix: str, name: str, rule: str, depth: int) -> bool:
        """Whether a file or folder that git ignores was taken, as a whole or in part."""
        path = (prefix + name).rstrip("/")
        is_folder = name.endswith("/")
        above = self._rules.scope(path.rpartition("/")[0])
        scope = self._rules.judge(above, path, is_folder=is_folder, ignored=rule)
        if scope.rule and not (is_folder and self._rules.may_come_back(scope, path)):
            return False
        if is_folder:
            root, everywhere = git.rule_files(self._folder / prefix)
            weak = self._ignore_files(path, root, everywhere)
            self._plain(f"{path}/", depth, replace(scope, weak=weak))
        else:
            self._add([path])
        return True

    def _ignore_files(
        self, folder: str, root: Path, everywhere: list[Path]
    ) -> tuple[RuleList, ...]:
        """The rules that hold in ``folder`` besides its own file, the strongest first.

        Those of the folders above it up to the repository's ``root``, then those that hold in all
        of the repository.
        """
        top, root = Path(os.path.realpath(self._folder)), Path(os.path.realpath(root))
        above = [path for path in (top / folder).parents if path.is_relative_to(root)]
        files = [(path / GITIGNORE, path) for path in above]
        files += [(path, root) for path in everywhere]
        lists = (_rules_of(path, base, top) for path, base in files)
        return tuple(rules for rules in lists if rules)

    def _plain(self, prefix: str, depth: int, scope: Scope) -> None:
        """Walk without git. ``scope`` is what holds for ``prefix``."""
        names: list[str] = []
        pending = [(prefix, scope)]
        while pending:
            current, scope = pending.pop()
            found = self._entries(current)
            if current != prefix and ".git" in found and depth < MAX_DEPTH and not scope.rule:
                self._repository(current, depth + 1)
                continue
            if GITIGNORE in found:
                path = current + GITIGNORE
                inside = read_rules(self._folder / path, path, base=current)
                scope = replace(scope, weak=(inside, *scope.weak))
            for entry, is_folder in found.items():
                self._judge(current + entry, scope, names, pending if is_folder else None)
        # In the order in which git names files: the same list again means the same folder.
        self._add(sorted(names))

    def _entries(self, folder: str) -> dict[str, bool]:
        with os.scandir(self._folder / folder) as entries:
            return {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}

    def _judge(
        self, path: str, above: Scope, names: list[str], folders: list[tuple[str, Scope]] | None
    ) -> None:
        """Put ``path`` into ``names``, or into ``folders`` if it is one, or leave it out."""
        scope = self._rules.judge(above, path, is_folder=folders is not None)
        if folders is None:
            if scope.rule:
                self.account.add(scope.rule, path)
            else:
                names.append(path)
        elif scope.rule and not self._rules.may_come_back(scope, path):
            self.account.add(scope.rule, f"{path}/")
        else:
            folders.append((f"{path}/", scope))

    def _add(self, names: list[str]) -> list[str]:
        """Take what may travel of ``names``; the folders among them are returned."""
        names, stats = stat_all(self._folder, names)
        if all_fine(names, stats):
            self.names += names
            self.stats += stats
            return []
        folders = []
        for index, name in enumerate(names):
            row = stats[index * WIDTH : (index + 1) * WIDTH]
            if stat.S_ISDIR(row[MODE]):
                folders.append(name.rstrip("/"))
            elif fault := name_fault(name, row[MODE]):
                self.account.add(fault, name)
            else:
                self.names.append(name)
                self.stats += row
        return folders

    def _without_effect(self) -> list[str]:
        """Lines of the ignore file that do nothing, which nobody writes on purpose."""
        own = self._rules.own.rules
        return [f"{rule} can match nothing: {rule.fault}" for rule in own if rule.fault] + [
            f"{rule} has no effect: {path} is left out by {reason}"
            for path, rule in _taken_back(self._rules).items()
            if (reason := self.account.rule_of(path)) and os.path.lexists(self._folder / path)
        ]


def _taken_back(rules: Rules) -> dict[str, IgnoreRule]:
    """The paths that the ignore file spells to have them back."""
    return {
        path: rule
        for rule in rules.own.rules
        if rule.negative and not rule.by_name and (path := rule.literal)
    }


def _rules_of(path: Path, base: Path, top: Path) -> RuleList:
    """The rules in the file ``path`` that hold below ``base``, for the tree at ``top``."""
    source = os.path.relpath(path, top)
    if base.is_relative_to(top):
        inside = base.relative_to(top).as_posix()
        return read_rules(path, source, base="" if inside == "." else f"{inside}/")
    return read_rules(path, source, lead=f"{top.relative_to(base).as_posix()}/")


def _private_warning(names: list[str]) -> list[str]:
    private = private_names(names)
    if not private:
        return []
    named = ", ".join(private[:MAX_NAMED]) + (", ..." if len(private) > MAX_NAMED else "")
    return [f"git tracks what looks private, and it travels: {named}; see {IGNORE_FILE}"]
