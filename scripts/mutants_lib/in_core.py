"""Bugs in what is decided: the machine, the state and the verdict."""

from __future__ import annotations

from .mutant import Mutant

_CORE = "orchestrator/core"
_LEASES = "tests/core/sharing/test_leases.py"
_SAMPLES = "tests/core/sharing/test_sample_machine.py"
_MACHINE = "tests/core/run/test_machine.py"
_TAKEOVER = "tests/core/run/test_takeover.py"
_HANG = "tests/core/run/test_hang_decisions.py"

IN_CORE: tuple[Mutant, ...] = (
    Mutant(
        name="takeover-keeps-the-epoch",
        promise="whoever takes over fences the coordinator before off",
        file=f"{_CORE}/run/recording.py",
        old="        epoch=event.epoch,\n        resumed=True,\n",
        new="        resumed=True,\n",
        tests=(f"{_TAKEOVER}::test_ranks_that_a_lease_ended_go_on_in_another_attempt",),
    ),
    Mutant(
        name="takeover-forgets-what-is-launched",
        promise="resume does nothing again that was done",
        file=f"{_CORE}/run/recording.py",
        old="replace(node, connected=False, reached=None) for",
        new="replace(node, connected=False, reached=None, launched=False) for",
        tests=(f"{_TAKEOVER}::test_a_takeover_at_any_moment_leads_to_the_same_verdict",),
    ),
    Mutant(
        name="concluded-before-all-are-swept",
        promise="a run ends when every node is verified clean",
        file=f"{_CORE}/run/machine.py",
        old="if not state.nodes.tally_of(plan).undone:\n        unsure",
        new="if state.nodes.tally_of(plan).undone < len(plan.nodes):\n        unsure",
        tests=(f"{_MACHINE}::test_a_run_is_over_when_every_node_is_swept",),
    ),
    Mutant(
        name="lease-of-a-dead-worker-is-lost",
        promise="what a dead worker held goes to others",
        file=f"{_CORE}/sharing/leases.py",
        old="                given_up.append(group)\n            self._back.append(group)",
        new="                given_up.append(group)",
        tests=(f"{_LEASES}::test_a_death_costs_no_sample",),
    ),
    Mutant(
        name="answered-twice-counted-twice",
        promise="every sample counts exactly once",
        file=f"{_CORE}/sharing/ledger.py",
        old="        if marks & _DONE:\n            return self._repeat(index, digest)\n",
        new="",
        tests=(f"{_LEASES}::test_every_sample_is_counted_once_whatever_happens",),
    ),
    Mutant(
        name="other-output-taken-for-the-same",
        promise="outputs that differ are flagged",
        file=f"{_CORE}/sharing/ledger.py",
        old="same = self.digest(index) == digest",
        new="same = True",
        tests=(f"{_LEASES}::test_duplicates_and_conflicts_are_samples",),
    ),
    Mutant(
        name="even-leases",
        promise="unequal workers end together",
        file=f"{_CORE}/sharing/leases.py",
        old="    most = int((end - backlog) / each + ROUNDING)",
        new="    most = 1000",
        tests=(f"{_LEASES}::test_unequal_workers_end_together",),
    ),
    Mutant(
        name="stop-reaches-launched-nodes-only",
        promise="a stop reaches a node whose launch is under way",
        file=f"{_CORE}/run/machine.py",
        old="if (halted or _holds_up(state, name)) and node.concluded is None:",
        new="if halted and node.launched and node.concluded is None:",
        tests=(f"{_MACHINE}::test_a_stop_reaches_a_node_whose_launch_is_under_way",),
    ),
    Mutant(
        name="next-attempt-beside-the-last",
        promise="what an attempt may have left is ended before the next one",
        file=f"{_CORE}/run/node_state.py",
        old="return known and not self.stale",
        new="return known",
        tests=(f"{_TAKEOVER}::test_what_an_attempt_may_have_left_is_ended_before_the_next",),
    ),
    Mutant(
        name="lost-node-counts-as-clean",
        promise="what nobody verified is not clean",
        file=f"{_CORE}/run/state.py",
        old="return swept is not None and swept.clean",
        new="return swept is None or swept.clean",
        tests=(f"{_TAKEOVER}::test_what_an_attempt_may_have_left_is_ended_before_the_next",),
    ),
    Mutant(
        name="unknown-end-is-success",
        promise="an unknown outcome is never success",
        file=f"{_CORE}/verdict/failure_cause.py",
        old="return _broken_rank(state) or _unfinished_rank(state, state.plan)",
        new="return _broken_rank(state)",
        tests=(f"{_TAKEOVER}::test_a_rank_without_a_known_end_is_no_success",),
    ),
    Mutant(
        name="lapsed-lease-is-no-failure",
        promise="ranks that a lease ended did not finish",
        file=f"{_CORE}/verdict/failure_cause.py",
        old="        return _lease_lapsed(state), ExitCode.BUSY\n",
        new="        return None\n",
        tests=(f"{_TAKEOVER}::test_a_lease_that_ran_out_is_no_success_and_can_be_resumed",),
    ),
    Mutant(
        name="stopped-ranks-are-the-cause",
        promise="the first failure is named, not whom we stopped for it",
        file=f"{_CORE}/run/recording.py",
        old="failed = () if event.by_us or has_succeeded(event.outcome) else (event,)",
        new="failed = () if has_succeeded(event.outcome) else (event,)",
        tests=(f"{_MACHINE}::test_ranks_that_we_stopped_are_never_the_cause",),
    ),
    Mutant(
        name="first-heard-is-first-failed",
        promise="the first failure is the earliest, not the first that was heard of",
        file=f"{_CORE}/run/state.py",
        old="return tuple(sorted(own, key=lambda ending: ending.at))",
        new="return tuple(own)",
        tests=(
            f"{_MACHINE}::test_the_first_failing_rank_is_named_and_every_node_is_stopped_and_swept",
        ),
    ),
    Mutant(
        name="occupied-is-ignored",
        promise="of two runs that want the same GPUs the second is refused",
        file=f"{_CORE}/run/recording.py",
        old="return replace(state, occupied=event)",
        new="return replace(state, reserved=True)",
        tests=(f"{_TAKEOVER}::test_what_another_run_holds_refuses_the_run_with_75",),
    ),
    Mutant(
        name="missing-figure-is-zero",
        promise="a figure that was not reported passes no gate",
        file=f"{_CORE}/verdict/verdict.py",
        old="    if value is None:\n        return Verdict.NOT_RUN\n",
        new="    if value is None:\n        value = 0.0\n",
        tests=(f"{_MACHINE}::test_a_required_metric_gates_the_run",),
    ),
    Mutant(
        name="not-a-number-passes",
        promise="an invalid figure passes no gate",
        file=f"{_CORE}/verdict/verdict.py",
        old="if not math.isfinite(value):",
        new="if math.isinf(value):",
        tests=(f"{_MACHINE}::test_a_required_metric_gates_the_run",),
    ),
    Mutant(
        name="highest-rank-has-the-last-word",
        promise="of several ranks' final figures the lowest rank's counts",
        file=f"{_CORE}/run/recording.py",
        old="or (other is not None and other.rank < event.rank):",
        new="or (other is not None and other.rank > event.rank):",
        tests=(f"{_MACHINE}::test_of_a_figure_that_several_ranks_report_the_lowest_ranks_counts",),
    ),
    Mutant(
        name="reports-count-twice",
        promise="no step is counted twice",
        file=f"{_CORE}/run/recording.py",
        old="known = event.position and event.position <= state.positions.get(place, 0)",
        new="known = event.position and event.position == state.positions.get(place, 0)",
        tests=(f"{_TAKEOVER}::test_a_report_is_counted_once_by_its_position",),
    ),
    Mutant(
        name="second-interrupt-is-not-heard",
        promise="a second Ctrl-C kills now",
        file=f"{_CORE}/run/recording.py",
        old="return replace(old, kind=StopKind.KILL) if new.kind is StopKind.KILL else old",
        new="return old",
        tests=(f"{_MACHINE}::test_a_second_stop_request_kills_without_grace",),
    ),
    Mutant(
        name="hang-confirmed-by-some-nodes",
        promise="no run is ended for a hang before every node was looked at",
        file=f"{_CORE}/run/machine.py",
        old="if len(found) < len(running):",
        new="if not found:",
        tests=(f"{_HANG}::test_nothing_is_decided_before_every_node_was_looked_at",),
    ),
    Mutant(
        name="quoting-is-dropped",
        promise="a command's bytes reach the program unchanged",
        file=f"{_CORE}/base/command.py",
        old='return "exec " + shlex.join(argv)',
        new='return "exec " + " ".join(argv)',
        tests=(
            "tests/contracts/transport/test_contract.py::test_hostile_arguments_arrive_unchanged",
        ),
    ),
    Mutant(
        name="secrets-are-written-down",
        promise="secrets are on no disk",
        file=f"{_CORE}/base/codec.py",
        old="def _mask(_: Secret) -> str:\n    return MASK\n",
        new="def _mask(value: Secret) -> str:\n    return value.reveal()\n",
        tests=("tests/core/base/test_codec.py::test_secrets_are_masked",),
    ),
    Mutant(
        name="workers-that-ended-get-leases",
        promise="samples go to workers that can do them",
        file=f"{_CORE}/sharing/sample_machine.py",
        old="elif present and self._presences[line.worker].reachable:",
        new="elif present:",
        tests=(
            f"{_SAMPLES}::test_a_worker_that_ended_or_is_cut_off_gets_no_lease_whatever_it_still_says",
        ),
    ),
)
