"""Who may ask what: decided from the request alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.web import access
from orchestrator.adapters.web.settings import (
    TOKEN_VARIABLE,
    PageSettings,
    is_loopback,
    page_settings,
    read_token,
)
from orchestrator.core.base.errors import UsageError

TOKEN = "correct horse battery staple"
OPEN = PageSettings()
CLOSED = PageSettings(host="192.0.2.7", token=TOKEN, names=frozenset({"runs.example"}))


def request(
    path: str = "/", *, method: str = "GET", peer: str = "127.0.0.1", **headers: str
) -> access.Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return access.Request(
        method=method, path=path, peer=peer, headers={"host": "localhost", **named}
    )


def status(asked: access.Request, settings: PageSettings) -> int:
    refusal = access.refuse(asked, settings)
    return refusal.status if refusal is not None else 200


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8765", "127.0.0.1:8765", "[::1]:8765", "192.0.2.7", "runs.example"],
)
def test_own_names_are_answered(host: str) -> None:
    assert status(request(host=host, authorization=f"Bearer {TOKEN}"), CLOSED) == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "[evil]",
        "127.0.0.1.evil.example:80",
        "@",
        "127.0.0.1:80.evil.example",
        "localhost:abc",
        "[::1]x",
        "127.0.0.1:80:80",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    """What a page of another site sends whose name was pointed at this address."""
    assert status(request(host=host), OPEN) == 421


@given(st.text(max_size=40))
def test_no_host_header_breaks_the_check(host: str) -> None:
    assert status(request(host=host), OPEN) in {200, 421}


@pytest.mark.parametrize("peer", ["192.0.2.9", "", "not an address", "::ffff:192.0.2.9"])
def test_without_a_token_only_this_machine_reads(peer: str) -> None:
    assert status(request(peer=peer), OPEN) == 403


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine_reads(peer: str) -> None:
    assert status(request(peer=peer), OPEN) == 200


def test_a_token_is_asked_of_everybody() -> None:
    """Also of this machine: other users, and a proxy's clients, come from there."""
    assert status(request(), CLOSED) == 401
    assert status(request(authorization="Bearer wrong"), CLOSED) == 401
    assert status(request(authorization=f"bearer {TOKEN}"), CLOSED) == 200
    assert status(request("/login"), CLOSED) == 200
    assert status(request("/runs/login"), CLOSED) == 401


def test_the_cookie_stands_for_the_token_and_does_not_hold_it() -> None:
    session = access.session_of(CLOSED)

    assert status(request(cookie=f"{access.COOKIE}={session}; other=1"), CLOSED) == 200
    assert status(request(cookie=f"{access.COOKIE}={session[:-1]}0x"), CLOSED) == 401
    assert status(request(cookie='\x00=;;="\\'), CLOSED) == 401
    assert TOKEN not in session
    assert session != access.session_of(PageSettings(token=TOKEN + "."))


@given(st.text(max_size=60))
def test_no_other_text_is_the_token(offered: str) -> None:
    assert access.is_token(offered, CLOSED) == (offered == TOKEN)
    assert not access.is_token(offered, OPEN)
    assert not access.is_form_key(offered, CLOSED, "/runs/a/stop")


@pytest.mark.parametrize(
    "origin, expected",
    [("http://localhost", 200), ("http://evil.example", 403), ("null", 403), ("", 403)],
)
def test_a_form_of_another_site_is_refused(origin: str, expected: int) -> None:
    asked = request("/login", method="POST", origin=origin)

    assert status(asked, CLOSED) == expected


def test_a_form_key_is_of_one_action() -> None:
    key = access.form_key(CLOSED, "/runs/a/stop")

    assert access.is_form_key(key, CLOSED, "/runs/a/stop")
    assert not access.is_form_key(key, CLOSED, "/runs/b/stop")


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:80", "192.0.2.7:80", "gpu01:80"])
def test_no_other_machine_reads_without_a_token(listen: str) -> None:
    with pytest.raises(UsageError, match="no token is set"):
        page_settings(listen, "", (), allow_stop=False)

    assert page_settings(listen, TOKEN, (), allow_stop=False).token == TOKEN


def test_stopping_needs_a_token() -> None:
    with pytest.raises(UsageError, match="needs a token"):
        page_settings("127.0.0.1:0", "", (), allow_stop=True)


@pytest.mark.parametrize(
    "listen", ["", "8765", "localhost", ":80", "h:65536", "h:-1", "h:8x", "h:٣"]
)
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(UsageError, match="not HOST:PORT"):
        page_settings(listen, TOKEN, (), allow_stop=False)


def test_a_token_comes_from_a_private_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)

    assert read_token(file, {}) == TOKEN
    assert read_token(None, {TOKEN_VARIABLE: TOKEN}) == TOKEN
    assert read_token(None, {}) == ""
    assert TOKEN not in repr(CLOSED)


@pytest.mark.parametrize(
    "content, mode", [("short", 0o600), ("", 0o600), (TOKEN, 0o640), ("a\nb" * 9, 0o600)]
)
def test_a_token_that_others_know_or_guess_is_refused(
    tmp_path: Path, content: str, mode: int
) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    file.chmod(mode)

    with pytest.raises(UsageError) as refused:
        read_token(file, os.environ)

    assert not content or content not in str(refused.value)


def test_loopback_is_no_guess() -> None:
    assert not is_loopback("127.0.0.1.evil.example")
    assert not is_loopback("localhost.evil.example")
