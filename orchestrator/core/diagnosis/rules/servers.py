"""Names and servers that a program talks to."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import Advice, Confidence, Domain, Role, Rule, sign

RULES = (
    Rule(
        id="NET-DNS-001",
        title="A name does not resolve",
        domain=Domain.FABRIC,
        cause="{who} cannot resolve the name {peer}",
        remedy="getent hosts NAME on that node: DNS, /etc/hosts, and whether it has a way out at "
        "all",
        advice=Advice.RETRY,
        weight=64,
        signs=(
            sign(
                "ailed to resolve",
                r"(?:Failed to resolve|failed to resolve host(?:name)?) '?(?P<peer>[\w.-]{1,120})",
            ),
            sign("gaierror: [Errno -"),
            sign("getaddrinfo", r"getaddrinfo(?: failed|\(\)|:)"),
            sign(
                "ould not resolve host",
                r"[Cc]ould not resolve host: (?P<peer>[\w.-]{1,120})",
            ),
            sign(
                "Name or service not known",
                r"host='(?P<peer>[\w.-]{1,120})'.{0,300}Name or serv",
            ),
            sign("Temporary failure in name resolution"),
        ),
        defaults={"peer": "of a server"},
        references=("Linux: getaddrinfo",),
    ),
    Rule(
        id="NET-HTTP-001",
        title="A server cannot be reached",
        domain=Domain.FABRIC,
        cause="{who} cannot reach {peer}",
        remedy="curl -v https://HOST/ on that node; HTTPS_PROXY and NO_PROXY; a firewall, or a "
        "node "
        "without a way out",
        advice=Advice.RETRY,
        weight=56,
        signs=(
            sign(
                "ConnectionPool(host=",
                r"ConnectionPool\(host='(?P<peer>[\w.-]{1,120})', port=\d{1,5}\): (?:Max retries"
                r"|Read timed out)",
            ),
            sign("can't be reached at", r"can't be reached at (?P<peer>https?://[\w.:-]{1,120})"),
            sign(
                "Could not connect to the endpoint URL",
                r"endpoint URL: \"(?P<peer>[^\"]{1,120})",
            ),
        ),
        defaults={"peer": "a server"},
        references=("HTTP",),
    ),
    Rule(
        id="NET-TLS-001",
        title="A certificate is not trusted",
        domain=Domain.HOST,
        cause="{who} does not trust the certificate of a server ({detail})",
        remedy="the proxy's or site's root certificate: --env SSL_CERT_FILE=FILE and "
        "REQUESTS_CA_BUNDLE=FILE; the clock of the node",
        confidence=Confidence.CERTAIN,
        weight=82,
        signs=(
            sign("CERTIFICATE_VERIFY_FAILED", r"(?P<detail>CERTIFICATE_VERIFY_FAILED)"),
            sign("certificate has expired", r"(?P<detail>certificate has expired)"),
            sign("x509: certificate", r"(?P<detail>x509: certificate .{1,60})"),
        ),
        defaults={"detail": "not trusted"},
        references=("OpenSSL",),
    ),
    Rule(
        id="NET-REFUSED-001",
        title="A server refuses connections",
        domain=Domain.LAUNCH,
        cause="{who} was refused a connection{peer}: the server is not started, or has ended",
        remedy="ss -ltn on the server's node; the log of the server, if it ended first",
        role=Role.VAGUE,
        advice=Advice.RETRY,
        weight=42,
        signs=(
            sign("ConnectionRefusedError", r"^ConnectionRefusedError\b"),
            sign(
                "ConnectError: ",
                r"Connect(?:ion)?Error: .{0,80}(?:Connection refused|All connection attempts "
                r"failed)",
            ),
        ),
        defaults={"peer": ""},
        consequence="were refused a connection",
        references=("Linux: ECONNREFUSED",),
    ),
)
