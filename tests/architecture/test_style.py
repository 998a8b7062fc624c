"""Rules that every file keeps: what is never called, what is always written down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.source import (
    NODE_SIDE,
    PACKAGE,
    ROOT,
    Module,
    called_name,
    calls,
    files,
    modules,
    package_modules,
    programs,
    shell_scripts,
    texts,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
KILL_BY_NAME = re.compile(r"\b(pkill|killall)\b")
HOME_OF_A_PERSON = re.compile(r"/(?:home|Users)/(?!me\b|you\b|user\b|\$|\{|<)\w+/")
SHELL_CALLS = frozenset(
    "os.system os.popen subprocess.getoutput subprocess.getstatusoutput pty.spawn "
    "asyncio.create_subprocess_shell create_subprocess_shell".split()
)
MAX_FILE_LINES = 400
MAX_EQUAL_NAMES = 12
# What has its twin on the nodes, which import nothing of ours; and channels to an agent and to ssh.
EQUAL_CLASSES = {"ManifestChange", "Channel"}
MAX_FOLDER_FILES = 16  # beside __init__.py, which says what the folder is
MAX_FUNCTION_LINES = 60
BINARY_SUFFIXES = frozenset(
    {".gif", ".gz", ".jpg", ".pdf", ".pickle", ".png", ".pt", ".safetensors", ".whl", ".zip"}
)


def test_no_program_hands_a_string_to_a_shell() -> None:
    """Commands are argument vectors; quoting is not left to discipline."""
    wrong = [
        f"{module.at(call)} {ast.unparse(call.func)}"
        for module in programs()
        for call in calls(module)
        if called_name(call) in SHELL_CALLS or _asks_for_a_shell(call)
    ]

    assert wrong == []


def _asks_for_a_shell(call: ast.Call) -> bool:
    off = (False, None)
    return any(
        option.arg == "shell"
        and not (isinstance(option.value, ast.Constant) and option.value.value in off)
        for option in call.keywords
    )


def test_no_program_kills_by_name() -> None:
    """A process is identified before it is signalled, or other people's work dies with ours."""
    wrong = [
        module.at(text)
        for module in programs()
        for text in texts(module)
        if KILL_BY_NAME.search(str(text.value))
    ]
    wrong += [where for where, text in shell_scripts() if KILL_BY_NAME.search(text)]

    assert wrong == []


def test_no_bare_except() -> None:
    """Nothing swallows a cancellation or an interrupt by accident."""
    wrong = [
        module.at(node.body[0])
        for module in modules("orchestrator", "scripts", "workloads", "tests")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]

    assert wrong == []


def test_only_the_command_line_prints() -> None:
    """stdout is the command line's product; the node's side speaks its protocol there."""
    allowed = (PACKAGE / "cli", PACKAGE / "view", NODE_SIDE)
    wrong = [
        module.at(call)
        for module in package_modules()
        if not any(module.path.is_relative_to(folder) for folder in allowed)
        for call in calls(module)
        if called_name(call) == "print"
    ]

    assert wrong == []


def test_every_function_is_annotated() -> None:
    """Each parameter and each result has a type, private functions and nested ones too."""
    wrong = [
        f"{module.at(function)} {function.name}: {', '.join(missing)}"
        for module in modules("orchestrator", "scripts", "workloads", "tests")
        for function, missing in _unannotated(module)
    ]

    assert wrong == []


def _unannotated(module: Module) -> Iterator[tuple[Function, list[str]]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            every += [extra for extra in (node.args.vararg, node.args.kwarg) if extra]
            missing = [
                parameter.arg
                for parameter in every
                if parameter.annotation is None and parameter.arg not in ("self", "cls")
            ]
            if node.returns is None:
                missing.append("its result")
            if missing:
                yield node, missing


def test_every_module_says_what_it_is() -> None:
    """Modules start with a docstring; a package marker may be empty below tests only."""
    wrong = [
        module.where
        for module in modules("orchestrator", "scripts", "workloads", "tests")
        if ast.get_docstring(module.tree) is None and module.tree.body
    ]
    wrong += [
        module.where
        for module in package_modules()
        if ast.get_docstring(module.tree) is None and not module.tree.body
    ]

    assert wrong == []


def test_files_and_functions_stay_readable() -> None:
    """A file that outgrows the limit holds two meanings; a function, three."""
    long_files = [
        f"{module.where}: {lines} lines"
        for module in package_modules()
        if (lines := len(module.path.read_text().splitlines())) > MAX_FILE_LINES
    ]
    long_functions = [
        f"{module.at(node)} {node.name}: {lines} lines"
        for module in package_modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]

    assert long_files + long_functions == []


def test_folders_stay_small() -> None:
    """What does not fit on a screen is looked for by its name alone."""
    sizes: dict[str, int] = {}
    for module in package_modules():
        if module.path.name != "__init__.py":
            folder = module.where.rpartition("/")[0]
            sizes[folder] = sizes.get(folder, 0) + 1

    assert {folder: size for folder, size in sizes.items() if size > MAX_FOLDER_FILES} == {}


def test_few_files_have_the_name_of_another() -> None:
    """A name says what is in the file, without its folder; verbs are called as what they show."""
    names = [m.path.name for m in package_modules() if m.path.name != "__init__.py"]

    assert len({name for name in names if names.count(name) > 1}) <= MAX_EQUAL_NAMES


def test_no_class_has_the_name_of_another() -> None:
    """A reader who meets the name knows what is meant."""
    places: dict[str, set[str]] = {}
    for module in package_modules():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, set()).add(module.where)

    assert {name for name, files in places.items() if len(files) > 1} <= EQUAL_CLASSES


def test_no_file_knows_whose_machine_it_was_written_on() -> None:
    """Nothing names this checkout, or the home directory of a person."""
    here = f"{ROOT}/" if len(ROOT.parts) > 2 else None
    wrong = [
        path.relative_to(ROOT).as_posix()
        for path, text in _text_files()
        if HOME_OF_A_PERSON.search(text) or (here and here in text)
    ]

    assert wrong == []


def _text_files() -> Iterator[tuple[Path, str]]:
    for path in files():
        if path.suffix not in BINARY_SUFFIXES:
            yield path, path.read_text(encoding="utf-8")
