"""From Enter to the first line of every rank, in containers of a rootless podman and without."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .base.bed import ROOT, Bed, need, run_tool
from .base.measure import Command, Expected, measure
from .base.rounds import Case, Contender, Scenario
from .base.stats import Quantity, Sample, Target
from .control_plane.launch import LIMIT_S, LINE, PROGRAM, SCRIPT

USER = "worker"
HOSTS, RANKS = 3, 1
LIMIT = 1.3
OURS, BARE = "orchestrate run --container", "orchestrate run"
MOUNTED = f"{OURS}, with a mount and an option"
IMAGE = "localhost/orchestrate:bench"
# Parts of the standard library that no rank imports, and that are most of its bytes.
UNUSED = frozenset("config-3.11 ensurepip idlelib lib2to3 pydoc_data site-packages test".split())
NOTE = (
    "The same hosts, Python and script, `--launcher direct`, one rank on each of three hosts. The "
    "image, this machine's Python with its bytecode, is there and was used before: what is "
    "measured is asking podman for it, and the start of the ranks' containers. All hosts share "
    "this machine's cores, so that three containers are started side by side on them."
)


def contained_launch(bed: Bed, images: Path) -> Scenario:
    """``images``: a folder that the hosts share; the image is made in it."""
    need("podman", "crun")
    sys.path.insert(0, str(ROOT))
    from tests.fixtures.oci_image import write_image

    images.chmod(0o755)
    write_image(images / "image.tar", IMAGE, _python_files(bed.python))
    for name in bed.names(HOSTS):
        pull = [*bed.ssh(), name, f"podman pull --quiet oci-archive:{images}/image.tar"]
        run_tool(pull, timeout_s=LIMIT_S)
    whole = bed.inventory(HOSTS)
    whole.write_text(whole.read_text().replace(bed.python, str(_program(bed.python))))
    project = bed.folder / "project"
    project.mkdir()
    (project / SCRIPT).write_text(PROGRAM)
    mounted = _with_a_mount(whole)
    asked = {OURS: (whole, IMAGE), MOUNTED: (mounted, IMAGE), BARE: (whole, "none")}
    contenders = [
        Contender(name=name, run=partial(_run, bed, inventory, project, image))
        for name, (inventory, image) in asked.items()
    ]
    case = Case(name=f"{HOSTS} hosts x {RANKS} rank", contenders=contenders)
    return Scenario(
        name="containers",
        title="Containers: from Enter to the first line of every rank",
        ours=OURS,
        cases=[case],
        targets=[Target(case=case.name, quantity=Quantity.WALL, against=BARE, limit=LIMIT)],
        note=NOTE,
    )


def _with_a_mount(inventory: Path) -> Path:
    """The same nodes, with a mount and an option for their containers."""
    declared = "  container: {mounts: ['/var/tmp:/scratch'], options: ['--cap-add=SYS_PTRACE']}\n"
    mounted = inventory.with_name("mounted.yaml")
    mounted.write_text(inventory.read_text().replace("defaults:\n", f"defaults:\n{declared}", 1))
    return mounted


def _program(python: str) -> Path:
    """The interpreter behind a virtual environment's."""
    return Path(
        run_tool([python, "-c", "import os, sys; print(os.path.realpath(sys.executable))"]).strip()
    )


def _python_files(python: str) -> dict[str, bytes]:
    """The interpreter with its standard library and what it is linked to, where they are here."""
    program = _program(python)
    code = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    standard = Path(run_tool([str(program), "-c", code]).strip())
    linked = run_tool(["ldd", str(program), *map(str, standard.glob("lib-dynload/*.so"))])
    libraries = {Path(word) for word in linked.split() if word.startswith("/") and word[-1] != ":"}
    used = (p for p in standard.rglob("*") if not UNUSED & set(p.relative_to(standard).parts))
    modules = [p for p in used if p.suffix in {".py", ".so"} and p.is_file()]
    found = {str(p).lstrip("/"): p.read_bytes() for p in (program, *libraries, *modules)}
    return found | _bytecode(program, [path for path in modules if path.suffix == ".py"])


def _bytecode(program: Path, sources: Sequence[Path]) -> dict[str, bytes]:
    """Of the sources, where the interpreter looks for it: what runs on the hosts themselves has
    bytecode, and so have images in which pip or conda installed something. Times of files are not
    kept in images, so that it is found by what it says of itself.
    """
    with tempfile.TemporaryDirectory() as scratch:
        names = Path(scratch, "names")
        names.write_text("".join(f"{source}\n" for source in sources))
        argv = ["env", f"PYTHONPYCACHEPREFIX={scratch}", str(program), "-m", "compileall", "-qq"]
        run_tool([*argv, "--invalidation-mode=unchecked-hash", "-i", str(names)])
        made = [path for path in Path(scratch).rglob("*.pyc") if path.is_file()]
        return {
            str(p.relative_to(scratch).parent / "__pycache__" / p.name): p.read_bytes()
            for p in made
        }


def _run(bed: Bed, inventory: Path, project: Path, image: str) -> Sample:
    words = ["run", "--cluster", str(inventory), "--launcher", "direct", "--no-fabric-probe"]
    words += ["--ranks-per-node", str(RANKS), "--follow", "--container", image, "--", SCRIPT]
    command = Command(
        argv=[bed.python, "-m", "orchestrator", *words], env=bed.env, cwd=project, merged=True
    )
    expected = Expected(pattern=LINE, count=HOSTS * RANKS)
    done = measure([command], timeout_s=LIMIT_S, expected=expected)
    return Sample(wall_s=done.shown_s, cpu_s=done.cpu_s)
