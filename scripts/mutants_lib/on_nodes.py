"""Bugs on the nodes: the agent, its locks and leases, the supervisor."""

from __future__ import annotations

from .mutant import Mutant

_NODE = "orchestrator/node_agent"
_TESTS = "tests/contracts/agent"
_LEASE = f"{_TESTS}/base/test_lease.py"

ON_NODES: tuple[Mutant, ...] = (
    Mutant(
        name="older-epochs-may-renew",
        promise="an older coordinator can do nothing more",
        file=f"{_NODE}/attempt/run_operations.py",
        old="    with lease.claimed_run(run, epoch):\n",
        new="    with lease.locked(run):\n",
        tests=(f"{_LEASE}::test_an_older_epoch_is_fenced",),
    ),
    Mutant(
        name="sweep-does-not-fence",
        promise="after a sweep, a launch that comes too late starts nothing",
        file=f"{_NODE}/attempt/run_operations.py",
        old="    with lease.claimed_run(run, lease.check_epoch(request)):\n        yield\n",
        new="    with lease.locked(run):\n        yield\n",
        tests=(f"{_TESTS}/attempt/test_fence.py::test_a_late_launch_is_refused",),
    ),
    Mutant(
        name="one-empty-scan-is-clean",
        promise="clean means two empty scans",
        file=f"{_NODE}/process/processes.py",
        old="if empty == 2 or",
        new="if empty == 1 or",
        tests=(f"{_TESTS}/process/test_records.py::test_one_empty_scan_is_not_enough",),
    ),
    Mutant(
        name="start-times-are-not-compared",
        promise="a process is told from a later one with its pid",
        file=f"{_NODE}/process/processes.py",
        old="return found is not None and found.start_time == start_time and",
        new="return found is not None and",
        tests=(f"{_TESTS}/process/test_records.py::test_a_reused_pid_is_left_alone",),
    ),
    Mutant(
        name="sweep-finds-children-only",
        promise="processes that escaped their parents are found",
        file=f"{_NODE}/process/processes.py",
        old='wanted = f"{MARKER}={share}/".encode()',
        new='wanted = f"{MARKER}={share}//".encode()',
        tests=(f"{_TESTS}/process/test_marked.py",),
    ),
    Mutant(
        name="lease-on-the-wall-clock",
        promise="no lease depends on the wall clock",
        file=f"{_NODE}/base/lease_file.py",
        old="return time.clock_gettime(time.CLOCK_BOOTTIME)",
        new="return time.time()",
        tests=(f"{_TESTS}/process/test_records.py::test_a_lease_does_not_hear_of_the_wall_clock",),
    ),
    Mutant(
        name="supervisor-ignores-the-lease",
        promise="without a coordinator, ranks end by themselves",
        file=f"{_NODE}/attempt/supervisor.py",
        old="if running and not self.why and self.lease.expired:",
        new="if running and self.why and self.lease.expired:",
        tests=(f"{_LEASE}::test_without_renewal_the_ranks_are_stopped_and_the_spool_stays",),
    ),
    Mutant(
        name="trials-are-not-fenced",
        promise="what a sweep left clean stays clean",
        file=f"{_NODE}/attempt/trial_process.py",
        old="        with lease.claimed_run(run, claim):\n",
        new="        with lease.locked(run):\n",
        tests=(
            f"{_TESTS}/attempt/test_trial_process.py::test_a_sweep_finds_it_and_keeps_later_ones_out",
        ),
    ),
    Mutant(
        name="launch-is-not-idempotent",
        promise="an attempt is launched once, however often it is asked for",
        file=f"{_NODE}/attempt/launch.py",
        old="        if known:\n            return",
        new="        if known and not known.alive:\n            return",
        tests=(f"{_TESTS}/attempt/test_supervisor.py::test_launch_happens_once",),
    ),
    Mutant(
        name="ranks-inherit-the-locks",
        promise="whoever dies lets go of its locks",
        file=f"{_NODE}/attempt/supervisor.py",
        old='for fd in (3, *spec["held"]):',
        new="for fd in (3,):",
        tests=(f"{_TESTS}/process/test_locks.py::test_ranks_do_not_hold_the_locks",),
    ),
    Mutant(
        name="some-locks-are-kept",
        promise="locks are taken all or none",
        file=f"{_NODE}/attempt/reservations.py",
        old="        except BaseException:\n            _close(new.values())\n            raise\n",
        new="        except BaseException:\n            raise\n",
        tests=(f"{_TESTS}/process/test_locks.py::test_the_second_learns_who_has_it",),
    ),
    Mutant(
        name="torn-report-lines-are-sent",
        promise="reports arrive in whole lines",
        file=f"{_NODE}/attempt/watch.py",
        old="            if whole_lines and len(data) < CHUNK_BYTES:\n",
        new="            if whole_lines and len(data) < 0:\n",
        tests=(f"{_TESTS}/attempt/test_watch.py::test_reports_arrive_in_whole_lines",),
    ),
    Mutant(
        name="outputs-follow-links",
        promise="a node offers nothing from outside its output folder",
        file=f"{_NODE}/attempt/outputs.py",
        old="OPEN = os.O_RDONLY | os.O_NOFOLLOW |",
        new="OPEN = os.O_RDONLY |",
        tests=("tests/security/test_offers.py::test_what_is_no_plain_file_stays",),
    ),
)
