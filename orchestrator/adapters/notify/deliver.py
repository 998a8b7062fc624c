"""One notice to one target: bounded in time, redirects refused, secrets opened here alone."""

from __future__ import annotations

import http.client
import json
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import EmailMessage
from pathlib import Path

from orchestrator.adapters.extras import install_command
from orchestrator.adapters.notify.notice import Notice
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.parsing.inputs.nights.notify_file import NotifySecret, NotifyTarget, SmtpTarget

TIMEOUT_S = 10.0
MAX_SECRET_BYTES = 8192
SMTP_PORTS = {"none": 25, "starttls": 587, "tls": 465}
ACCEPTED = range(200, 300)


class NotDelivered(OrchestrateError):
    """A target did not take a notice. The reason holds neither URL nor password."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the notice, and what the URL grants, to where no one sent it."""

    def redirect_request(self, *_: object) -> None:
        return None


def deliver(notice: Notice, target: NotifyTarget, environ: Mapping[str, str]) -> None:
    """Send ``notice`` once. Raises :class:`NotDelivered`."""
    try:
        if target.webhook is not None:
            _post(notice, read_secret(target.webhook, environ))
        elif target.smtp is not None:
            _mail(notice, target.smtp, environ)
        elif target.apprise is not None:
            _apprise(notice, read_secret(target.apprise, environ))
    except (OSError, ValueError, http.client.HTTPException) as error:
        # The text of these errors may repeat a URL, a header or an answer: only their kind is said.
        raise NotDelivered(type(error).__name__, id="notify.failed") from None


def read_secret(secret: NotifySecret, environ: Mapping[str, str]) -> str:
    """The secret's value. Raises :class:`NotDelivered`, which names the place alone."""
    if secret.env:
        value = environ.get(secret.env, "")
        where = f"variable {secret.env}"
    else:
        path = Path(secret.file).expanduser()
        where = f"file {secret.file}"
        try:
            with path.open("rb") as file:
                value = file.read(MAX_SECRET_BYTES).decode("utf-8", "replace").strip()
        except OSError as error:
            what = f"{where} cannot be read: {type(error).__name__}"
            raise NotDelivered(what, id="notify.secret") from None
    if not value:
        raise NotDelivered(f"{where} is empty", id="notify.secret")
    return value


def _post(notice: Notice, url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise NotDelivered("the webhook is no http(s) URL", id="notify.webhook")
    body = {
        "text": f"{notice.subject}\n{notice.text}",  # what chat services show
        "subject": notice.subject,
        "occasion": notice.occasion.value,
        "run_id": notice.run_id,
    }
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
        error.close()
    if status not in ACCEPTED:
        what = "redirects are not followed" if 300 <= status < 400 else f"HTTP {status}"
        raise NotDelivered(what, id="notify.webhook")


def _mail(notice: Notice, smtp: SmtpTarget, environ: Mapping[str, str]) -> None:
    message = EmailMessage()
    message["Subject"], message["From"] = notice.subject, smtp.from_
    message["To"] = ", ".join(smtp.to)
    message.set_content(notice.text)
    password = read_secret(smtp.password, environ) if smtp.password is not None else ""
    port = smtp.port or SMTP_PORTS[smtp.tls]
    context = ssl.create_default_context()
    if smtp.tls == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(smtp.host, port, timeout=TIMEOUT_S, context=context)
    else:
        server = smtplib.SMTP(smtp.host, port, timeout=TIMEOUT_S)
    with server:
        if smtp.tls == "starttls":
            server.starttls(context=context)
        if smtp.user:
            server.login(smtp.user, password)
        server.send_message(message)


def _apprise(notice: Notice, url: str) -> None:
    try:
        import apprise
    except ImportError as error:
        remedy = install_command("notify")
        raise NotDelivered("apprise is not here", id="notify.apprise", remedy=remedy) from error
    target = apprise.Apprise()
    if not target.add(url) or not target.notify(title=notice.subject, body=notice.text):
        raise NotDelivered("apprise did not deliver it", id="notify.apprise")
