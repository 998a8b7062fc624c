"""``notify.yaml``: who is notified, of what, and where the secrets are.

targets:
  - name: team
    webhook: {env: TEAM_WEBHOOK}            # or {file: PATH}; a URL is a secret
    on: [failed, degraded, regression, missing]
  - name: mail
    smtp: {host: mail.lab, from: gpu@lab, to: [team@lab], tls: starttls,
           user: gpu, password: {file: ~/.mail-password}}
  - name: chat
    apprise: {env: CHAT_URL}                # needs the extra `notify`
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

from pydantic import Field

from orchestrator.parsing.inputs.validation import Strict, validate_document
from orchestrator.parsing.inputs.yaml_source import (
    Document,
    InputProblem,
    parse_yaml,
    refuse_input,
)

OccasionName = Literal["finished", "failed", "degraded", "regression", "missing"]
MAX_TARGETS = 20


class NotifySecret(Strict):
    """Where a secret is read: a variable or a file. It is never written down here."""

    env: str = ""
    file: str = ""


class SmtpTarget(Strict):
    """A mail server. ``tls``: ``starttls``, ``tls`` from the first byte, or ``none``."""

    host: str = Field(min_length=1)
    port: int = Field(0, ge=0, le=65535)
    from_: str = Field(alias="from", min_length=3)
    to: list[str] = Field(min_length=1, max_length=50)
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: NotifySecret | None = None


class NotifyTarget(Strict):
    """One of webhook, smtp and apprise, and the occasions it is for."""

    name: str = Field(min_length=1, max_length=60)
    webhook: NotifySecret | None = None
    smtp: SmtpTarget | None = None
    apprise: NotifySecret | None = None
    on: list[OccasionName] = Field(default_factory=lambda: list(get_args(OccasionName)))

    @property
    def secrets(self) -> list[NotifySecret]:
        password = self.smtp.password if self.smtp else None
        return [each for each in (self.webhook, self.apprise, password) if each is not None]


class NotifyFile(Strict):
    """The file."""

    targets: list[NotifyTarget] = Field(default_factory=list, max_length=MAX_TARGETS)


def load_notify_file(data: str | bytes, source: str) -> tuple[NotifyTarget, ...]:
    """The targets. Raises :class:`UsageError` with file:line:column; values are never repeated."""
    document = parse_yaml(data, source)
    _refuse_written_secrets(document)
    entry = validate_document(NotifyFile, document)
    problems = []
    for number, target in enumerate(entry.targets):
        place = document.place(["targets", number])
        if sum(each is not None for each in (target.webhook, target.smtp, target.apprise)) != 1:
            remedy = "give each target one of webhook, smtp and apprise"
            problems.append(InputProblem(place, "not one way to notify", remedy))
        if any(bool(each.env) == bool(each.file) for each in target.secrets):
            what, remedy = "a secret is read from one place", "write {env: NAME} or {file: PATH}"
            problems.append(InputProblem(place, what, remedy))
    if problems:
        refuse_input(problems, source)
    return tuple(entry.targets)


def _refuse_written_secrets(document: Document) -> None:
    """Before anything else looks at them: other messages would repeat what is written there."""
    data = document.root.plain()
    targets = data.get("targets") if isinstance(data, dict) else None
    remedy = "write {env: NAME} or {file: PATH}"
    problems = [
        InputProblem(document.place(("targets", number, *path)), "a secret in the file", remedy)
        for number, target in enumerate(targets if isinstance(targets, list) else ())
        for path in _written_secrets(target)
    ]
    if problems:
        refuse_input(problems, document.source)


def _written_secrets(target: Any) -> Iterator[tuple[str, ...]]:
    if not isinstance(target, dict):
        return
    for key in ("webhook", "apprise"):
        if target.get(key) is not None and not isinstance(target[key], dict):
            yield (key,)
    smtp = target.get("smtp")
    password = smtp.get("password") if isinstance(smtp, dict) else None
    if password is not None and not isinstance(password, dict):
        yield ("smtp", "password")
