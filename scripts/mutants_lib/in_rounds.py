"""Bugs in what averages nodes that train by themselves."""

from __future__ import annotations

from .mutant import Mutant

_STEP = "tests/rounds/test_outer_step.py"
_SERVICE = "tests/engine/sharing/test_diloco.py"
_MACHINE = "tests/core/sharing/test_round_machine.py"

IN_ROUNDS: tuple[Mutant, ...] = (
    Mutant(
        name="rows-do-not-weigh",
        promise="a node counts by the rows that it trained on",
        file="orchestrator/adapters/rounds/outer_optimizer.py",
        old="wanted += vector.weighted(start, end, weight)",
        new="wanted += vector.weighted(start, end, np.float32(1 / len(parts)))",
        tests=(f"{_STEP}::test_it_is_a_nesterov_step_with_the_weighted_average",),
    ),
    Mutant(
        name="rounding-is-lost",
        promise="what rounding takes from an update is in the next one",
        file="orchestrator/adapters/rounds/outer_optimizer.py",
        old="wanted += residual.read(start, end)",
        new="residual.read(start, end)",
        tests=(f"{_STEP}::test_small_changes_beside_large_ones_get_through_in_the_end",),
    ),
    Mutant(
        name="parts-are-not-checked",
        promise="a part that is not finite does not count",
        file="orchestrator/engine/sharing/diloco_service.py",
        old="await asyncio.to_thread(self._outer.check, target, terms.compression, terms.values)",
        new="await asyncio.sleep(0)",
        tests=(f"{_SERVICE}::test_a_part_that_is_wrong_does_not_count_and_its_node_is_named[nan]",),
    ),
    Mutant(
        name="gradients-are-averaged",
        promise="gradients over SSH are summed, as a collective would",
        file="orchestrator/core/sharing/rounds.py",
        old="return dict.fromkeys(rows, 1.0)",
        new="return dict.fromkeys(rows, 1.0 / len(rows))",
        tests=(f"{_SERVICE}::test_gradients_are_summed_to_the_bit_and_most_steps_are_not_told_of",),
    ),
    Mutant(
        name="a-takeover-begins-anew",
        promise="no round is lost or counted twice when the coordinator dies",
        file="orchestrator/core/sharing/round_machine.py",
        old="kept is not None and kept.attempt == attempt",
        new="kept is not None and not kept.attempt",
        tests=(f"{_SERVICE}::test_a_coordinator_that_takes_over_goes_on[closed]",),
    ),
    Mutant(
        name="a-round-waits-for-the-late",
        promise="a node that is late costs the others no more than their patience",
        file="orchestrator/core/sharing/round_machine.py",
        old="return waited_s > patience_s(",
        new="return waited_s > 100 * patience_s(",
        tests=(
            f"{_MACHINE}::test_a_round_waits_for_no_lost_node_and_for_none_beyond_its_patience",
        ),
    ),
    Mutant(
        name="a-late-part-counts-for-the-next-round",
        promise="a part counts in its own round, or not at all",
        file="orchestrator/core/sharing/round_machine.py",
        old="if number != training.kept.round + 1:",
        new="if number > training.kept.round + 1:",
        tests=(f"{_MACHINE}::test_a_late_part_of_a_closed_round_is_ignored",),
    ),
)
