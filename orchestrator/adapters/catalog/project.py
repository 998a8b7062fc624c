"""The project of a user's own script: what travels to the nodes, and what must not."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.adapters.catalog.project_folder import find_project
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean, nearest_name
from orchestrator.core.launchers.typed import is_shell, script_warnings
from orchestrator.core.model.workload import Job, Per

if TYPE_CHECKING:
    from orchestrator.parsing.inputs.workloads.command_line import PythonCall

_MAX_SCRIPT = 64 << 10
_SHEBANG = re.compile(r"#!.{0,60}\b(?:ba|da|k|z)?sh\b")


def open_script(
    words: Sequence[str],
    *,
    cwd: Path,
    workdir: Path | None = None,
    per: Per = Per.GPU,
    cpu: int = 1,
) -> Job:
    """A user's own script or command as a job; see :func:`script_job`.

    What travels is ``workdir``, else the git root around the script (around ``cwd`` for a program),
    else ``cwd``. Raises :class:`UsageError` for a script that does not exist, is not executable, or
    is outside ``workdir``.
    """
    from orchestrator.parsing.inputs.workloads.command_line import python_call
    from orchestrator.parsing.inputs.workloads.jobs import python_job, script_job

    call = python_call(words) if words and words[0] else None
    script = _script_path(words, cwd) if call is None else _python_script(call, cwd)
    folder = find_project(cwd, workdir, script)
    relative: str | None = None
    if script is not None:
        if not script.is_relative_to(folder):
            what = f"{script} is outside {folder}, so it would not travel to the nodes"
            raise UsageError(what, id="run.script-outside", remedy="choose another --workdir")
        relative = script.relative_to(folder).as_posix()
    if call is None:
        job = script_job(words, folder=str(folder), script=relative, per=per, cpu=cpu)
        told = tuple(_shell_script_warnings(words, cwd))
        return replace(job, workload=replace(job.workload, warnings=told))
    root = _import_root(call, cwd.resolve(), folder)
    return python_job(call, folder=str(folder), script=relative, import_root=root, per=per, cpu=cpu)


def _shell_script_warnings(words: Sequence[str], cwd: Path) -> Iterator[str]:
    """What is said of the script of a shell that a command runs, if it lies here."""
    of_shell = is_shell(words[0])
    named = next((word for word in words[1:] if not word.startswith("-")), "")
    word = named if of_shell else words[0]
    if not word or "-c" in words[1:2]:
        return
    try:
        with (cwd / word).open("rb") as file:
            text = file.read(_MAX_SCRIPT).decode("utf-8", "replace")
    except (OSError, ValueError):
        return
    if of_shell or word.endswith(".sh") or _SHEBANG.match(text):
        yield from script_warnings(word, text)
        if "\r\n" in text:
            yield f"{word}: its lines end as in Windows, which a shell takes for a part of words"


def _script_path(words: Sequence[str], cwd: Path) -> Path | None:
    """The file here that ``words[0]`` names; None for a program that only the nodes need to have.

    Whatever is written with a relative folder is a file of the project.
    """
    word = words[0] if words else ""
    if Path(word).is_absolute():
        return None
    if "/" not in word:
        _refuse_bare_word(word, cwd)
        return None
    path = _existing(word, cwd)
    if path.is_dir():
        module = path.relative_to(cwd.resolve()) if path.is_relative_to(cwd.resolve()) else path
        remedy = f"-m {'.'.join(module.parts)} runs a package, else name a file in it"
        raise UsageError(f"{word} is a folder", id="run.no-script", remedy=remedy)
    if not os.access(path, os.X_OK):
        remedy = f"chmod +x {word}"
        raise UsageError(f"{word} is not executable", id="run.not-executable", remedy=remedy)
    _refuse_windows_line(word, path)
    return path


def _refuse_windows_line(word: str, path: Path) -> None:
    """The kernel takes the carriage return for a part of the interpreter's name."""
    with path.open("rb") as file:
        line = file.readline(256)
    if line.startswith(b"#!") and line.endswith(b"\r\n"):
        what = f"{word}: its first line ends as in Windows, so no node finds the program it names"
        remedy = f"sed -i 's/\\r$//' {word}"
        raise UsageError(what, id="run.not-executable", remedy=remedy)


def _python_script(call: PythonCall, cwd: Path) -> Path | None:
    """The script here, which may be a folder or an archive, too; None for modules, code, and files
    that only the nodes have.
    """
    if call.flag:
        return None
    if call.target.endswith(".ipynb"):
        what = f"{call.target} is a notebook, which Python does not run"
        raise UsageError(what, id="run.no-script", remedy=_of_notebook(call.target))
    elsewhere = call.target.startswith("~") or Path(call.target).is_absolute()
    if call.interpreter and elsewhere and not Path(call.target).exists():
        return None
    path = _existing(call.target, cwd)
    if path.is_dir() and not (path / "__main__.py").is_file():
        what = f"{call.target} is a folder without __main__.py, which Python does not run"
        remedy = "name a file in it, or a module of it: -m PACKAGE.MODULE"
        raise UsageError(what, id="run.no-script", remedy=remedy)
    return path


def _existing(word: str, cwd: Path) -> Path:
    """The path of ``word``, links of its folders resolved. Raises :class:`UsageError`."""
    named = cwd / word
    path = named.parent.resolve() / named.name
    if not path.exists():
        siblings = _files_beside(path)
        alike = [name for name in siblings if Path(name).suffix == path.suffix]
        near = nearest_name(path.name, siblings)
        remedy = f"did you mean {near!r}?" if near else ""
        if not near and alike:
            remedy = did_you_mean(path.name, alike)
        raise UsageError(f"script {word!r} does not exist", id="run.no-script", remedy=remedy)
    return path


def _files_beside(path: Path) -> list[str]:
    try:
        return sorted(child.name for child in path.parent.iterdir() if child.is_file())
    except OSError:
        return []


def _refuse_bare_word(word: str, cwd: Path) -> None:
    """A bare word is looked up on the nodes' PATH, where what lies here will not be. One without a
    suffix may be the name of a program all the same, if this machine has such a program.
    """
    named = cwd / word
    is_folder = named.is_dir()
    if not word or not (is_folder or named.is_file()):
        return
    if (is_folder or not named.suffix) and shutil.which(word):
        return
    remedy = f"./{word} runs it from the project"
    if is_folder:
        remedy = f"-m {word} runs a package, else name a file in it"
    elif word.endswith(".ipynb"):
        remedy = _of_notebook(word)
    elif not os.access(named, os.X_OK):
        remedy = f"python {word} runs it if it is Python; else chmod +x {word} and ./{word}"
    kind = "folder" if is_folder else "file"
    what = f"{word} is a {kind} here, but a word without a folder is looked up on the nodes' PATH"
    raise UsageError(what, id="run.no-script", remedy=remedy)


def _has_src_layout(folder: Path) -> bool:
    """Whether packages lie in ``src``, which ``pip install -e .`` makes importable here."""
    if not any((folder / name).is_file() for name in ("pyproject.toml", "setup.py", "setup.cfg")):
        return False
    return any((folder / "src").glob("*/__init__.py"))


def _of_notebook(word: str) -> str:
    return f"jupyter nbconvert --to script {word}, then give the .py file"


def _import_root(call: PythonCall, cwd: Path, folder: Path) -> str:
    """Where in the project a module is imported from, relative to ``folder``."""
    from orchestrator.adapters.catalog.modules import module_root

    installed = [folder / "src"] if _has_src_layout(folder) else []
    if call.flag != "-m":
        return "src" if installed else ""
    roots = [root for root in (cwd, folder, *installed) if root.is_relative_to(folder)]
    root = module_root(call.target, roots)
    return "" if root in (None, folder) else root.relative_to(folder).as_posix()
