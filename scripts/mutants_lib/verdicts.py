"""Trying mutants: first whether their tests are sound without them, then whether they notice."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from itertools import repeat
from pathlib import Path

from .mutant import Mutant, StaleMutant
from .tree import copy_checkout
from .trial import Trial, adopt_orphans, run_tests

SOUND_S = 600.0
MUTANT_S = 90.0
TOLD_LINES = 40


class Fate(StrEnum):
    """Only CAUGHT is good. UNSOUND: its tests fail, or do not run, without it. BROKEN: it does not
    load, so that nothing was tested.
    """

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    UNSOUND = "UNSOUND"
    BROKEN = "BROKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``by``: the test that caught it, or what is wrong with the mutant; ``output``: the end of
    what pytest printed, unless it was caught.
    """

    mutant: Mutant
    fate: Fate
    by: str = ""
    seconds: float = 0.0
    output: str = ""


def try_all(mutants: Sequence[Mutant], scratch: Path, jobs: int) -> Generator[Verdict, None, None]:
    """A verdict for each of ``mutants``, in their order. Closed early, it ends what runs."""
    copy_checkout(scratch / "base")
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(jobs, mp_context=fork, initializer=adopt_orphans) as pool:
        try:
            yield from _verdicts(mutants, scratch, jobs, pool)
        except BaseException:
            for child in multiprocessing.active_children():
                if child.pid is not None:
                    os.kill(child.pid, signal.SIGINT)
            raise


def _verdicts(
    mutants: Sequence[Mutant], scratch: Path, jobs: int, pool: ProcessPoolExecutor
) -> Iterator[Verdict]:
    base = scratch / "base"
    selections = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    parts = [selections[start::jobs] for start in range(min(jobs, len(selections)))]
    places = [scratch / f"sound-{number}" for number in range(len(parts))]
    found = pool.map(_unsound, parts, repeat(base), places)
    unsound = {selection: said for part in found for selection, said in part.items()}
    places = [scratch / str(number) for number in range(len(mutants))]
    yield from pool.map(_try, mutants, repeat(base), places, repeat(unsound))


def _unsound(selections: Sequence[str], base: Path, place: Path) -> dict[str, str]:
    """Those of ``selections`` that fail, or run nothing, in the checkout as it is, and what pytest
    said.
    """
    place.mkdir()
    trial = run_tests(base, place, selections, limit_s=SOUND_S, first_only=False)
    if trial.phases or len(selections) == 1:
        told = _end_of(trial)
        return {selection: told for selection in selections if not trial.is_sound(selection)}
    # One that names nothing keeps pytest from running the others.
    alone = [_unsound([one], base, place / str(i)) for i, one in enumerate(selections)]
    return {selection: said for part in alone for selection, said in part.items()}


def _end_of(trial: Trial) -> str:
    return "\n".join(trial.output.splitlines()[-TOLD_LINES:])


def _try(mutant: Mutant, base: Path, place: Path, unsound: Mapping[str, str]) -> Verdict:
    for test in mutant.tests:
        if test in unsound:
            why = f"fails or runs nothing without it: {test}"
            return Verdict(mutant=mutant, fate=Fate.UNSOUND, by=why, output=unsound[test])
    shutil.copytree(base, place / "tree", symlinks=True)
    try:
        mutant.apply(place / "tree")
        trial = run_tests(place / "tree", place, mutant.tests, limit_s=MUTANT_S, first_only=True)
    except (StaleMutant, SyntaxError) as error:
        return Verdict(mutant=mutant, fate=Fate.BROKEN, by=str(error))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return judge(mutant, trial)


def judge(mutant: Mutant, trial: Trial) -> Verdict:
    """What the trial says of the mutant."""
    failed = [phase for phase in trial.phases if phase.outcome == "failed"]
    tests = [phase.test for phase in failed if phase.phase == "call" and phase.loads]
    ran = any(trial.ran(selection) for selection in mutant.tests)
    begun = any(phase.phase == "setup" and phase.outcome == "passed" for phase in trial.phases)
    if not all(phase.loads for phase in failed):
        fate, by = Fate.BROKEN, f"does not load: {failed[0].test}"
    elif tests:
        fate, by = Fate.CAUGHT, tests[0]
    elif trial.timed_out and begun:
        fate, by = Fate.CAUGHT, f"{trial.phases[-1].test} (did not end within {MUTANT_S:g} s)"
    elif not ran:
        fate, by = Fate.BROKEN, "no test ran"
    else:
        fate, by = Fate.SURVIVED, ", ".join(mutant.tests)
    told = "" if fate is Fate.CAUGHT else _end_of(trial)
    return Verdict(mutant=mutant, fate=fate, by=by, seconds=trial.seconds, output=told)
