"""A project to eight hosts: ours against rsync to all of them at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench_lib.base.bed import Bed, need
from bench_lib.base.errors import BenchError
from bench_lib.base.measure import Command, Measurement, measure
from bench_lib.base.rounds import Case, Contender, Scenario
from bench_lib.base.stats import Quantity, Sample, Target

from .tree import SOURCES, Shape, make_tree, read_all

COUNT = 8
LIMIT_S = 600.0
KEPT_S = 600
COUNT_S = 120.0
OURS, RSYNC, FLOOR = "orchestrate sync", "rsync -az, 8 at once", "ssh HOST true, 8 at once"
KEPT_OURS, KEPT_RSYNC = "orchestrate sync, kept", "rsync -az, ControlPersist"
COLD, UNCHANGED, CHANGED = "cold", "unchanged", "one file changed"
MANY = 10_000
FEW_FILES = Shape(name="3,000 files", files=3_000, bytes=60_000_000)
MANY_FILES = Shape(name="50,000 small files", files=50_000, bytes=50_000_000, sigma=0.8)
NOTE = (
    "A git work tree with everything committed. Cold: the nodes have neither files nor our agent, "
    "and our coordinator has no index; the source is in the page cache. Changed: one file of the "
    "median size grew by a line. rsync leaves `.git` out, as ours does; every copy is checked "
    "after every measurement. `ssh HOST true` is what connecting alone costs on this machine. "
    "`kept` finds the connections of the warm-up, as rsync does with ControlPersist, and is "
    "begun by the warm process that the first command left."
)
NODE_FOLDER = ".orchestrate"
RSYNC_FOLDER = "project"


def sync(bed: Bed, shape: Shape) -> Scenario:
    """A tree: cold, unchanged, one file changed."""
    need("rsync", "ssh", "git")
    return _scenario(_Project(bed=bed, shape=shape))


@dataclass(slots=True, kw_only=True)
class _Project:
    """A tree here, and its copies on the hosts."""

    bed: Bed
    shape: Shape
    folder: Path = field(init=False)
    files: list[Path] = field(init=False)
    edited: Path = field(init=False)  # the file of the median size
    edits: int = 0

    def __post_init__(self) -> None:
        self.folder = self.bed.folder / f"tree-{self.shape.files}"
        self.folder.mkdir()
        self.files = make_tree(self.folder, self.shape)
        by_size = sorted(self.files, key=lambda file: (file.stat().st_size, file))
        self.edited = by_size[len(by_size) // 2]

    def edit(self) -> None:
        self.edits += 1
        with self.edited.open("ab") as file:
            file.write(b"# edit %d\n" % self.edits)

    def read(self) -> None:
        read_all(self.files)

    def ours(self, keep_s: int = 0) -> Command:
        words = ("sync", "--cluster", str(self.bed.inventory(COUNT)), "--json")
        return self.bed.orchestrate(*words, cwd=self.folder, keep_s=keep_s)

    def rsync(self, *more: str) -> list[Command]:
        shell = " ".join([*self.bed.ssh(), *more])
        source = f"{self.folder}/"
        options = ["-az", "--exclude", "/.git", "-e", shell, source]
        names = self.bed.names(COUNT)
        return [Command(argv=["rsync", *options, f"{name}:{RSYNC_FOLDER}/"]) for name in names]

    def forget_ours(self) -> None:
        self.bed.forget()
        self._remove(NODE_FOLDER)

    def forget_rsync(self) -> None:
        self._remove(RSYNC_FOLDER)

    def _remove(self, name: str) -> None:
        for host in self.bed.names(COUNT):
            shutil.rmtree(self.bed.hosts.home(host) / name, ignore_errors=True)

    def run_ours(self, keep_s: int = 0) -> Sample:
        done = measure([self.ours(keep_s)], timeout_s=LIMIT_S)
        digest = _digest(done)
        self._check(f"{NODE_FOLDER}/node/snapshots/{digest}")
        return Sample(wall_s=done.wall_s, cpu_s=done.cpu_s)

    def run_rsync(self, *more: str) -> Sample:
        done = measure(self.rsync(*more), timeout_s=LIMIT_S)
        self._check(RSYNC_FOLDER)
        return Sample(wall_s=done.wall_s, cpu_s=done.cpu_s)

    def settle(self) -> None:
        """Nothing is left to send for any contender."""
        self.run_ours()
        self.run_rsync()

    def run_kept_ours(self) -> Sample:
        return self.run_ours(KEPT_S)

    def run_kept_rsync(self) -> Sample:
        path = f"ControlPath={self.bed.folder}/%C"
        return self.run_rsync(
            "-o", "ControlMaster=auto", "-o", path, "-o", f"ControlPersist={KEPT_S}"
        )

    def run_floor(self) -> Sample:
        """No sync at all: what connecting costs."""
        ssh = self.bed.ssh()
        commands = [Command(argv=[*ssh, name, "true"]) for name in self.bed.names(COUNT)]
        done = measure(commands, timeout_s=LIMIT_S)
        return Sample(wall_s=done.wall_s, cpu_s=done.cpu_s)

    def _check(self, place: str) -> None:
        """Every host must hold all files, and the one that is edited as it is now."""
        wanted = self.edited.read_bytes()
        for name in self.bed.names(COUNT):
            copy = self.bed.hosts.home(name) / place
            count = self._count(name, place)
            if count != len(self.files):
                raise BenchError(f"{name}: {count} of {len(self.files)} files in {copy}")
            if (copy / self.edited.relative_to(self.folder)).read_bytes() != wanted:
                raise BenchError(f"{name}: {copy} does not hold what was sent")

    def _count(self, name: str, place: str) -> int:
        """The files as the host sees them: folders that snapshots share lead nowhere from here."""
        find = ["find", "-L", f"{place}/{SOURCES}", "-type", "f"]
        found = self.bed.hosts.exec(name, find, timeout=COUNT_S)
        return len(found.stdout.splitlines())


def _digest(done: Measurement) -> str:
    """The snapshot's name, from the last line of our output."""
    lines = done.output.splitlines()
    try:
        return str(json.loads(lines[-1])["digest"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"orchestrate sync printed no digest: {lines[-1:]}") from error


def _scenario(project: _Project) -> Scenario:
    name = project.shape.name
    changed = 0.6 if project.shape.files < MANY else 0.8
    return Scenario(
        name=f"sync {name}",
        title=f"Sync: {name}, {project.shape.bytes / 1e6:.0f} MB, to {COUNT} hosts",
        ours=OURS,
        cases=[_cold(project), _unchanged(project), _changed(project)],
        targets=[
            Target(case=COLD, quantity=Quantity.WALL, against=RSYNC, limit=0.8),
            _kept_target(UNCHANGED, RSYNC, 0.35),
            _kept_target(UNCHANGED, KEPT_RSYNC, 1.0),
            _kept_target(CHANGED, RSYNC, changed),
            *(
                Target(case=case, quantity=Quantity.CPU, against=RSYNC, limit=0.5)
                for case in (COLD, UNCHANGED, CHANGED)
            ),
        ],
        note=NOTE,
        profile=project.ours(),
    )


def _kept_target(case: str, against: str, limit: float) -> Target:
    """For the second command, which finds the connections of the first one."""
    return Target(case=case, quantity=Quantity.WALL, against=against, limit=limit, of=KEPT_OURS)


def _cold(project: _Project) -> Case:
    return Case(
        name=COLD,
        prepare=project.read,
        contenders=[
            Contender(name=OURS, run=project.run_ours, prepare=project.forget_ours),
            Contender(name=RSYNC, run=project.run_rsync, prepare=project.forget_rsync),
        ],
    )


def _unchanged(project: _Project) -> Case:
    return Case(
        name=UNCHANGED,
        prepare=project.settle,  # the case before edits a file for each contender in turn
        contenders=[
            Contender(name=OURS, run=project.run_ours),
            Contender(name=RSYNC, run=project.run_rsync),
            Contender(name=KEPT_OURS, run=project.run_kept_ours),
            Contender(name=KEPT_RSYNC, run=project.run_kept_rsync),
            Contender(name=FLOOR, run=project.run_floor),
        ],
    )


def _changed(project: _Project) -> Case:
    ways: dict[str, Callable[[], Sample]] = {
        OURS: project.run_ours,
        RSYNC: project.run_rsync,
        KEPT_OURS: project.run_kept_ours,
        KEPT_RSYNC: project.run_kept_rsync,
    }
    # An edit for each: what one brought is nothing new to another that shares its copies.
    return Case(
        name=CHANGED,
        contenders=[Contender(name=n, run=run, prepare=project.edit) for n, run in ways.items()],
    )
