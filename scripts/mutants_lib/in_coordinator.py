"""Bugs in the coordinator's process: the engine, its files, its links, its screens."""

from __future__ import annotations

from .mutant import Mutant

_ENGINE = "orchestrator/engine"
_STORE = "orchestrator/adapters/store"
_TRANSPORT = "orchestrator/adapters/transport"
_SEEDS = "tests/simulation/test_seeds.py"
_CRASHES = "tests/simulation/test_crashes.py"
_SYNCED = "tests/simulation/test_synced.py"
_JOURNAL = "tests/store/test_journal.py"
_UNTRUSTED = "tests/engine/node/test_untrusted.py"
_VIEWS = "tests/view/test_views.py"
_RESUME = "tests/cli/test_resume_here.py"
_PAGE_ACCESS = "tests/web/test_access.py"
_HOST_KEYS = "tests/contracts/transport/test_connecting.py"

IN_COORDINATOR: tuple[Mutant, ...] = (
    Mutant(
        name="resume-takes-the-same-epoch",
        promise="whoever takes over fences the coordinator before off",
        file=f"{_ENGINE}/run.py",
        old="epoch = recorded.state.epoch + EPOCH_STEP",
        new="epoch = recorded.state.epoch",
        tests=(f"{_SEEDS}::test_random_faults[0]",),
    ),
    Mutant(
        name="launch-before-the-journal-is-synced",
        promise="whoever takes over after a power cut knows of every launch",
        file=f"{_ENGINE}/run.py",
        old="if irreversible or self._state.epoch != self._synced_epoch:",
        new="if self._state.epoch != self._synced_epoch:",
        tests=(_SYNCED,),
    ),
    Mutant(
        name="epoch-before-the-journal-is-synced",
        promise="no two coordinators have the same epoch, not even after a power cut",
        file=f"{_ENGINE}/run.py",
        old="if irreversible or self._state.epoch != self._synced_epoch:",
        new="if irreversible:",
        tests=(_SYNCED,),
    ),
    Mutant(
        name="written-after-it-was-done",
        promise="the journal is written before anybody acts",
        file=f"{_ENGINE}/run.py",
        old="        self._write([step for step in steps if step.news], now)\n",
        new="        news = [step for step in steps if step.news]\n"
        "        asyncio.get_running_loop().call_later(0.2, self._write, news, now)\n",
        tests=(
            f"{_CRASHES}::test_a_crash_anywhere_changes_nothing[two nodes-before a write-killed]",
        ),
    ),
    Mutant(
        name="resume-forgets-how-far-it-read",
        promise="no point of a series is kept twice",
        file=f"{_ENGINE}/support/replay.py",
        old="return replace(state, positions=PersistentMap({**read, **further}))",
        new="return state",
        tests=(
            f"{_CRASHES}::test_a_crash_anywhere_changes_nothing[two nodes-before a write-killed]",
        ),
    ),
    Mutant(
        name="logs-appended-blindly",
        promise="no log byte is lost or doubled",
        file=f"{_ENGINE}/node/log_stream.py",
        old="rest = memoryview(data)[end - offset :]",
        new="rest = memoryview(data)",
        tests=(f"{_UNTRUSTED}::test_a_stream_in_pieces_is_the_stream",),
    ),
    Mutant(
        name="collected-before-the-logs-are-here",
        promise="no log byte is lost or doubled",
        file=f"{_ENGINE}/node/follower.py",
        old="        await watch.watcher.drained()\n",
        new="",
        tests=(f"{_SEEDS}::test_random_faults[0]",),
    ),
    Mutant(
        name="stop-passes-a-launch-under-way",
        promise="a stop reaches a node whose launch is under way",
        file=f"{_ENGINE}/node/node_launch.py",
        old="        async with self._launching:\n            try:\n",
        new="        if True:\n            try:\n",
        tests=("tests/engine/node/test_handle.py",),
    ),
    Mutant(
        name="reservations-are-kept",
        promise="whoever waits for a lock holds none",
        file=f"{_ENGINE}/node/reserve_all.py",
        old="if errors or occupied:",
        new="if errors:",
        tests=("tests/engine/node/test_reserve_all.py",),
    ),
    Mutant(
        name="lease-is-never-renewed",
        promise="ranks go on for as long as their coordinator lives",
        file=f"{_ENGINE}/node/lease_renewal.py",
        old="            await asyncio.sleep(every_s)\n",
        new="            await asyncio.sleep(every_s * 100)\n",
        tests=(f"{_SEEDS}::test_random_faults[0]",),
    ),
    Mutant(
        name="digests-are-not-compared",
        promise="artifacts arrive as they were, or not at all",
        file=f"{_ENGINE}/node/collect_outputs.py",
        old="if digest != output.sha256:",
        new="if not digest:",
        tests=("tests/security/test_offers.py::test_what_was_announced_must_come",),
    ),
    Mutant(
        name="outputs-may-leave-their-folder",
        promise="nothing from a node is written outside the run's folder",
        file="orchestrator/parsing/replies/output_listing.py",
        old='part in {"", ".", ".."}',
        new='part in {"", "."}',
        tests=(f"{_UNTRUSTED}::test_a_listing_that_lies_is_refused",),
    ),
    Mutant(
        name="broken-links-count-as-silence",
        promise="ranks that make progress are never ended for a hang",
        file=f"{_ENGINE}/progress_watchdog.py",
        old="if node in broken:",
        new="if not broken:",
        tests=(
            "tests/engine/run/test_progress_watchdog.py::test_a_broken_link_is_not_silence_of_the_ranks",
        ),
    ),
    Mutant(
        name="broken-ssh-is-a-broken-link",
        promise="a link between nodes is broken only if its ends say so",
        file=f"{_ENGINE}/network/link_watchdog.py",
        old="for name, node in nodes.items() if not node.broken}",
        new="for name, node in nodes.items()}",
        tests=(
            "tests/engine/network/test_link_watchdog.py::test_a_node_that_we_cannot_ask_tells_nothing_of_its_links",
        ),
    ),
    Mutant(
        name="progress-does-not-save-a-run-with-a-broken-link",
        promise="ranks that make progress are never ended for a broken link",
        file=f"{_ENGINE}/network/link_watchdog.py",
        old="if min(s, quiet_s) >= limit_s}",
        new="if s >= limit_s}",
        tests=(
            "tests/engine/network/test_link_watchdog.py::test_ranks_that_go_on_do_not_need_the_link",
        ),
    ),
    Mutant(
        name="sigterm-just-ends",
        promise="SIGTERM leaves no process of the run",
        file=f"{_ENGINE}/support/interrupts.py",
        old="STOPPING = (signal.SIGINT, signal.SIGTERM)",
        new="STOPPING = (signal.SIGINT,)",
        tests=("tests/engine/run/test_interrupts.py::test_a_signal_as_soon_as_the_run_exists",),
    ),
    Mutant(
        name="two-coordinators",
        promise="a run has one coordinator",
        file=f"{_STORE}/claim.py",
        old="    except BlockingIOError:\n        return False\n",
        new="    except BlockingIOError:\n        return True\n",
        tests=("tests/store/test_claim.py::test_a_second_coordinator_is_told_who_is_first",),
    ),
    Mutant(
        name="a-pid-is-enough",
        promise="a process is told from a later one with its pid",
        file=f"{_STORE}/liveness.py",
        old="return Liveness.ALIVE if _start_time(identity.pid) == identity.started else",
        new="return Liveness.ALIVE if _start_time(identity.pid) is not None else",
        tests=("tests/store/test_runs.py::test_liveness_follows_the_process_not_the_pid",),
    ),
    Mutant(
        name="torn-line-stays",
        promise="a journal survives a torn last line",
        file=f"{_STORE}/journal.py",
        old="        os.ftruncate(self._fd, self._end)\n        os.fsync(self._fd)\n",
        new="        os.fsync(self._fd)\n",
        tests=(f"{_JOURNAL}::test_any_torn_tail_is_dropped_and_overwritten",),
    ),
    Mutant(
        name="replay-skips-an-entry",
        promise="a journal replays to the same state, or not at all",
        file=f"{_STORE}/journal.py",
        old="if entry.seq != self.seq:",
        new="if entry.seq < self.seq:",
        tests=(f"{_JOURNAL}::test_damage_before_the_end_is_an_error",),
    ),
    Mutant(
        name="files-appear-half-written",
        promise="a file is the old one or the new one, never half of it",
        file=f"{_STORE}/atomic_files.py",
        old="    fd, name = tempfile.mkstemp(",
        new="    path.write_bytes(content[:1])\n    fd, name = tempfile.mkstemp(",
        tests=("tests/store/test_runs.py::test_write_atomic_replaces_all_or_nothing",),
    ),
    Mutant(
        name="resume-of-what-is-over",
        promise="resume of a finished run changes nothing",
        file="orchestrator/cli/commands/runs/resume.py",
        old="if result is not None and not _is_resumable(result, retry=retry):",
        new="if result is None and retry:",
        tests=(f"{_RESUME}::test_a_failed_run_goes_on_only_when_asked_to",),
    ),
    Mutant(
        name="changed-code-goes-on",
        promise="a run goes on with other code only if that is accepted",
        file="orchestrator/cli/commands/runs/resume.py",
        old="if changes and not accept_change:",
        new="if len(changes) > SHOWN_CHANGES and not accept_change:",
        tests=(f"{_RESUME}::test_a_changed_inventory_is_refused_unless_accepted",),
    ),
    Mutant(
        name="any-host-key-will-do",
        promise="host keys are always checked",
        file=f"{_TRANSPORT}/asyncssh/async_ssh_connect.py",
        old='return {"known_hosts": tuple([*_parse_keys(group)] for group in keys)}',
        new='return {"known_hosts": None}',
        tests=(f"{_HOST_KEYS}::test_unknown_host_keys_are_refused",),
    ),
    Mutant(
        name="screens-can-be-steered",
        promise="nothing that a node says steers a terminal",
        file="orchestrator/parsing/replies/display_text.py",
        old='return re.sub(_CONTROLS, "", re.sub(_ESCAPES, "", text.replace("\\n", " ")))',
        new='return text.replace("\\n", " ")',
        tests=("tests/security/test_screens.py::test_commands_about_runs",),
    ),
    Mutant(
        name="a-missed-gate-is-not-shown",
        promise="a figure that fails its gate is never left out of the summary",
        file="orchestrator/view/result/summary.py",
        old="if metric.verdict not in {Verdict.UNGATED, Verdict.PASS}:",
        new="if metric.verdict not in Verdict:",
        tests=(f"{_VIEWS}::test_a_summary_has_the_verdict_first_and_no_figures_of_single_nodes",),
    ),
    Mutant(
        name="page-answers-to-any-name",
        promise="no website reads the page through a name that it points here",
        file="orchestrator/adapters/web/access.py",
        old='if not _is_called_rightly(request.headers.get("host", ""), settings):',
        new='if not request.headers.get("host", ""):',
        tests=(f"{_PAGE_ACCESS}::test_other_names_are_refused",),
    ),
    Mutant(
        name="page-asks-only-others-for-the-token",
        promise="with a token nothing is shown without it, on this machine too",
        file="orchestrator/adapters/web/access.py",
        old="if not settings.token:",
        new="if not settings.token or is_loopback(request.peer):",
        tests=(f"{_PAGE_ACCESS}::test_a_token_is_asked_of_everybody",),
    ),
)
