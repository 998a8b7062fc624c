"""Versions of Python modules under another interpreter, without importing any of them."""

from __future__ import annotations

import json
import os
import subprocess

from orchestrator.node_agent.base.agent_errors import no_answer_reason
from orchestrator.node_agent.base.login import login_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 30.0
# Asked for beside modules: the interpreter, and where it looks for them.
SEARCH_PATH = "sys.path"
MAX_OUTPUT_BYTES = 64 * 1024
NONCE = "orchestrate-modules:"
# Runs under the ranks' interpreter, hence as text. A module without metadata has the version "".
# Only where nothing is installed under a module's own name, importlib.metadata is asked whose the
# module is: its import takes longer than all the rest. json, re and importlib.util would double it.
# The version of sys is the interpreter's.
SCRIPT = """
import os, sys

PLAIN = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ /._-+:")

def plain(name):
    parts = name.lower().replace("_", "-").replace(".", "-").split("-")
    return "-".join(filter(None, parts))

def quoted(text):
    return '"%s"' % "".join(c if c in PLAIN else escaped(c) for c in text)

def escaped(c):
    units = c.encode("utf-16-be", "surrogatepass").hex()
    return "".join("\\\\u" + units[i : i + 4] for i in range(0, len(units), 4))

def known(name):
    if name in sys.modules:
        return True
    if "." in name:
        from importlib.util import find_spec
        return find_spec(name) is not None
    return any(f.find_spec(name, None) for f in sys.meta_path if hasattr(f, "find_spec"))

def files(name):
    for folder in sys.path:
        for entry in os.listdir(folder) if os.path.isdir(folder) else []:
            title, kind = os.path.splitext(entry)
            if kind == ".dist-info" and plain(title.split("-")[0]) == plain(name):
                yield os.path.join(folder, entry, "METADATA")

def stated(name):
    for path in files(name):
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.startswith("Version:"):
                    return line.partition(":")[2].strip()

def version(name):
    if told := stated(name):
        return told
    from importlib import metadata
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return metadata.version(metadata.packages_distributions()[name][0])

found = {}
for name in sys.argv[1:]:
    if name == "sys.path":
        used = [os.path.realpath(sys.executable), *sys.path]
        found[name] = os.pathsep.join(filter(os.path.exists, used))
        continue
    if "-" in name:  # the name of a distribution, which no module can have
        try:
            if told := stated(name):
                found[name] = told
        except Exception:
            pass
        continue
    try:
        if not known(name):
            continue
    except Exception:
        continue
    found[name] = "%d.%d" % sys.version_info[:2] if name == "sys" else ""
    if name in sys.builtin_module_names:
        continue  # nobody's: to ask every installed package whose it is takes a tenth of a second
    try:
        found[name] = version(name)
    except Exception:
        pass
pairs = ",".join(quoted(name) + ":" + quoted(version or "") for name, version in found.items())
print("orchestrate-modules:{" + pairs + "}")
"""


def find_modules(
    interpreter: list[str] | None,
    modules: list[str],
    notes: list[str],
    env: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Module -> version, for those that ``interpreter`` (an argument vector) can find. ``env``: in
    place of the login's environment.
    """
    if not interpreter:
        return {}
    argv = [os.path.expanduser(interpreter[0]), *interpreter[1:], "-c", SCRIPT, *modules]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env=login_environment() if env is None else env,
            cwd="/",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        notes.append(f"interpreter {interpreter[0]}: {no_answer_reason(error)}")
        return {}
    found = parse_modules(done.stdout[:MAX_OUTPUT_BYTES].decode(errors="replace"))
    if found is None:
        said = done.stderr[-500:].decode(errors="replace").strip()
        notes.append(f"interpreter {interpreter[0]} ended with {done.returncode}: {said}")
    return found or {}


def parse_modules(text: str) -> dict[str, str] | None:
    """The answer in the script's output; what start-up files print around it does not matter."""
    for line in reversed(text.splitlines()):
        if line.startswith(NONCE):
            found = json.loads(line[len(NONCE) :])
            return {str(name): str(version or "") for name, version in found.items()}
    return None
