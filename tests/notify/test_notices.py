"""Notices reach local servers; what is slow, fails or redirects costs no run anything; secrets stay
where they are.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from orchestrator.adapters.notify import deliver as delivering
from orchestrator.adapters.notify import sender as sending
from orchestrator.adapters.notify.deliver import NotDelivered, deliver
from orchestrator.adapters.notify.notice import Notice, Occasion
from orchestrator.adapters.notify.outbox import outbox_folder, post_notice, try_notice
from orchestrator.adapters.notify.sender import ATTEMPTS, NoticeSender
from orchestrator.adapters.store.layout import Layout
from orchestrator.cli.main import main
from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.inputs.nights.notify_file import load_notify_file
from tests.notify.servers import mail_server, trickling_server, webhook
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

SECRET = "s3cr3t-4711-token"
NOTICE = Notice(occasion=Occasion.FAILED, subject="run r1 failed", text="rank 3 was killed")


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return Layout(home)


def configure(layout: Layout, text: str) -> None:
    (layout.home / "notify.yaml").write_text(text)


def hook_file(name: str = "HOOK", on: str = "") -> str:
    return f"targets:\n- name: team\n  webhook: {{env: {name}}}\n{on}"


def send(layout: Layout, environ: dict[str, str]) -> tuple[int, list[str]]:
    said: list[str] = []
    sender = NoticeSender(layout=layout, environ=environ, say=said.append, sleep=lambda _: None)
    return sender.send_waiting(), said


def test_a_webhook_gets_the_notice(layout: Layout) -> None:
    configure(layout, hook_file())
    with webhook([200]) as hook:
        assert post_notice(layout, NOTICE, start_sender=False)
        left, said = send(layout, {"HOOK": f"{hook.url}/{SECRET}"})

    body = json.loads(hook.bodies[0])
    assert (left, said) == (0, [])
    assert body["subject"] == "run r1 failed"
    assert "rank 3 was killed" in body["text"]
    assert list(outbox_folder(layout).glob("*.json")) == []


def test_a_failing_webhook_is_tried_again_and_a_bounded_number_of_times(layout: Layout) -> None:
    configure(layout, hook_file())
    with webhook([500, 503, 200]) as hook:
        post_notice(layout, NOTICE, start_sender=False)
        assert send(layout, {"HOOK": hook.url})[0] == 0
        assert len(hook.bodies) == 3
    with webhook([500]) as hook:
        post_notice(layout, NOTICE, start_sender=False)
        left, said = send(layout, {"HOOK": hook.url})
        assert (left, len(hook.bodies)) == (1, ATTEMPTS)
    assert said[-1] == f"team: attempt {ATTEMPTS} of {ATTEMPTS}: HTTP 500"
    assert len(list(outbox_folder(layout).glob("*.json"))) == 1  # for the next sender


def test_a_redirect_is_not_followed(layout: Layout) -> None:
    """It would carry the notice to where no one sent it."""
    configure(layout, hook_file())
    with webhook([200]) as elsewhere, webhook([307], location=elsewhere.url) as hook:
        post_notice(layout, NOTICE, start_sender=False)
        left, said = send(layout, {"HOOK": hook.url})

    assert left == 1
    assert "redirects are not followed" in said[0]
    assert elsewhere.bodies == []


def test_a_slow_webhook_ends_with_its_time(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "TIMEOUT_S", 0.2)
    configure(layout, hook_file())
    with webhook([200], stalled=True) as hook:
        post_notice(layout, NOTICE, start_sender=False)
        left, said = send(layout, {"HOOK": hook.url})

    assert left == 1
    assert "TimeoutError" in said[0]


def test_a_server_that_never_ends_holds_up_no_other(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers a byte at a time, so that no time-out of a socket ends it."""
    monkeypatch.setattr(sending, "ATTEMPT_S", 0.3)
    with trickling_server() as endless, webhook([200]) as hook:
        targets = [("endless", "ENDLESS"), ("garbage", "GARBAGE"), ("team", "HOOK")]
        lines = "".join(f"- name: {n}\n  webhook: {{env: {v}}}\n" for n, v in targets)
        configure(layout, f"targets:\n{lines}")
        post_notice(layout, NOTICE, start_sender=False)
        urls = {"ENDLESS": f"{endless}/{SECRET}", "GARBAGE": f"{endless}/garbage"}
        left, said = send(layout, {**urls, "HOOK": hook.url})

    assert left == 1
    assert len(hook.bodies) == 1
    assert f"endless: attempt {ATTEMPTS} of {ATTEMPTS}: no end within 0.3 s" in said
    assert "garbage: attempt 1 of 4: BadStatusLine" in said
    (waiting,) = outbox_folder(layout).glob("*.json")
    assert json.loads(waiting.read_text())["sent"] == ["team"]


def test_posting_does_not_wait_for_a_stalled_server(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that sends is another one; it delivers when the server answers at last."""
    configure(layout, hook_file())
    monkeypatch.chdir(layout.home)
    with webhook([200], stalled=True) as hook:
        monkeypatch.setenv("HOOK", f"{hook.url}/{SECRET}")
        try_notice(layout, NOTICE, pytest.fail)
        stalled = hook.bodies == [] or not hook.release.is_set()
        deadline = time.monotonic() + scaled(30)
        while not hook.bodies:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        lines = [
            path.read_bytes()
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if path.parent.exists()
        ]
        hook.release.set()
        while list(outbox_folder(layout).glob("*.json")):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    assert stalled
    assert not any(SECRET.encode() in line for line in lines)
    assert_no_secret(layout.home)


def assert_no_secret(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_mail_is_sent_with_its_password(layout: Layout, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{SECRET}\n")
    with mail_server() as box:
        configure(
            layout,
            "targets:\n- name: mail\n  smtp:\n"
            f"    {{host: 127.0.0.1, port: {box.port}, from: gpu@lab, to: [a@lab, b@lab],\n"
            f"     tls: none, user: gpu, password: {{file: {secret}}}}}\n",
        )
        post_notice(layout, NOTICE, start_sender=False)
        left, said = send(layout, {})

    assert (left, said) == (0, [])
    assert "Subject: run r1 failed" in box.message
    assert "rank 3 was killed" in box.message
    assert sum(command.lower().startswith("rcpt") for command in box.commands) == 2
    assert_no_secret(layout.home)


def test_a_mail_server_that_refuses_is_said_without_its_words(layout: Layout) -> None:
    with mail_server(refuse="MAIL") as box:
        configure(
            layout,
            "targets:\n- name: mail\n  smtp: "
            f"{{host: 127.0.0.1, port: {box.port}, from: gpu@lab, to: [a@lab], tls: none}}\n",
        )
        post_notice(layout, NOTICE, start_sender=False)
        left, said = send(layout, {})

    assert left == 1
    assert "SMTPSenderRefused" in said[0]


@pytest.mark.parametrize("answer, url", [([500], True), ([302], True), ([200], False)])
def test_no_error_repeats_a_secret(layout: Layout, answer: list[int], url: bool) -> None:
    configure(layout, hook_file())
    (target,) = load_notify_file(hook_file(), "notify.yaml")
    with webhook(answer) as hook:
        value = f"{hook.url}/{SECRET}" if url else f"not a url {SECRET}"
        with pytest.raises(NotDelivered) as caught:
            deliver(NOTICE, target, {"HOOK": value})

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_no_one_wants_is_not_kept(layout: Layout) -> None:
    assert not post_notice(layout, NOTICE)
    configure(layout, hook_file(on="  on: [regression]\n"))
    assert not post_notice(layout, NOTICE)
    assert not outbox_folder(layout).exists()


def test_a_bad_file_costs_a_warning_only(layout: Layout) -> None:
    configure(layout, "targets: 7\n")
    said: list[str] = []

    try_notice(layout, NOTICE, said.append)

    assert "notify.yaml:1:10" in said[0]


@pytest.mark.parametrize(
    "text, words",
    [
        ("targets:\n- {name: a}\n", "one of webhook, smtp and apprise"),
        ("targets:\n- {name: a, webhook: {}}\n", "write {env: NAME} or {file: PATH}"),
        ("targets:\n- {name: a, webhook: {env: A}, on: [never]}\n", "notify.yaml:2"),
        ("targets:\n- {name: a, webhok: {env: A}}\n", "webhook"),
        (f"targets:\n- {{name: a, webhook: 'http://h/{SECRET}'}}\n", "notify.yaml:2"),
    ],
)
def test_mistakes_in_the_file_have_their_place(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_notify_file(text, "notify.yaml")

    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_command_tries_every_target(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(layout, hook_file())
    with webhook([200]) as hook:
        monkeypatch.setitem(os.environ, "HOOK", f"{hook.url}/{SECRET}")
        assert main(["notify", "test"]) == 0
        assert main(["notify", "list"]) == 0

    said = capsys.readouterr().out
    assert "team: delivered" in said
    assert SECRET not in said


@pytest.mark.parametrize("text, why", [(None, "does not exist"), ("targets: []\n", "names none")])
def test_without_targets_a_test_is_refused(
    layout: Layout, text: str | None, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Silence would read as success; the file to write is named."""
    if text is not None:
        configure(layout, text)

    assert main(["notify", "test"]) == 2
    err = capsys.readouterr().err
    assert f"{layout.home}/notify.yaml: no targets" in err
    assert why in err
    assert main(["notify", "list"]) == 0
    out, err = capsys.readouterr()
    assert (out, "no targets" in err) == ("", True)
