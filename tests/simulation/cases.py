"""Plans that once broke an invariant: permanent cases, smallest first, named by what they found."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.coordinator import CrashPoint
from tests.simulation.faults import Fault
from tests.simulation.simulation import BUDGETS, SimulationPlan
from tests.simulation.supervisor import Script

UNLEASED = replace(BUDGETS, lease_s=None)

FOUND = {
    "a coordinator that took over acted under the old epoch": SimulationPlan(
        crashes=(CrashPoint("after a write", 12),)
    ),
    "a head could not let go of a port that its old agent had listened on": SimulationPlan(
        crashes=(CrashPoint("after a write", 10),)
    ),
    "a final figure was lost between series and journal": SimulationPlan(
        crashes=(CrashPoint("before a write", 15),)
    ),
    "another attempt met what the last one had left on a lost node": SimulationPlan(
        budgets=UNLEASED,
        script=Script(steps=200),
        faults=(Fault(at_s=1.0, kind="cut", node="b", for_s=60.0),),
        heal_s=40.0,
    ),
    "a link that broke while code travelled failed the run": SimulationPlan(
        faults=(Fault(at_s=0.1, kind="reset", node="a"),), heal_s=10.0, benign=True
    ),
    "an agent that died between offer and reach passed for a broken network": SimulationPlan(
        faults=(Fault(at_s=0.158, kind="kill-agent", node="a"),), heal_s=10.0, benign=True
    ),
    "a power cut took the epoch back": SimulationPlan(
        seed=1, crashes=(CrashPoint("before a write", 14),) * 2, silently=True
    ),
    "a power cut took the end of a log that nobody read again": SimulationPlan(
        crashes=(CrashPoint("before an action", 18),), silently=True
    ),
}
