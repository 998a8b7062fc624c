"""Names and servers that a program talks to."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

_HTTP = (
    r"site-packages/(?:datasets|huggingface_hub|requests|urllib3|aiohttp|httpx|httpcore|fsspec|s3fs"
    r"|gcsfs|botocore|streaming|modelscope)/"
)
_DATES = ": the clock of that node is wrong, or the dates of the certificate have passed"

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
                r"(?:Failed to resolve '|[Ff]ailed to resolve host(?:name)? '?)"
                r"(?P<peer>[\w.-]{1,120})",
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
            # By the class, where a library for HTTP or data raised it.
            sign(
                "Error: ",
                r"^(?:[\w.]{1,80}\.)?(?:ConnectionError|ServerDisconnectedError|ConnectTimeoutError"
                r"|ClientConnectorError|ClientPayloadError|ChunkedEncodingError|IncompleteReadError"
                r"|RemoteProtocolError|ReadError|ConnectError|ProtocolError|EndpointConnectionError"
                r"): ",
                frames=_HTTP,
            ),
            sign("imeout", r"^(?:[\w.]{1,80}\.)?(?:ReadTimeout|ConnectTimeout)\b", frames=_HTTP),
        ),
        defaults={"peer": "a server"},
        references=("HTTP",),
    ),
    Rule(
        id="NET-TLS-001",
        title="A certificate is not trusted",
        domain=Domain.HOST,
        cause="{who} does not trust the certificate of a server ({detail}){why}",
        remedy="the proxy's or site's root certificate: --env SSL_CERT_FILE=FILE and "
        "REQUESTS_CA_BUNDLE=FILE; the clock of the node",
        confidence=Confidence.CERTAIN,
        weight=82,
        signs=(
            sign(
                "ertificate is not yet valid",
                r"(?P<detail>[Cc]ertificate is not yet valid)",
                why=_DATES,
            ),
            sign("ertificate has expired", r"(?P<detail>[Cc]ertificate has expired)", why=_DATES),
            sign(
                "expired or is not yet valid",
                r"(?P<detail>expired or is not yet valid)",
                why=_DATES,
            ),
            sign("CERTIFICATE_VERIFY_FAILED", r"(?P<detail>CERTIFICATE_VERIFY_FAILED)"),
            sign("x509: certificate", r"(?P<detail>x509: certificate .{1,60})"),
        ),
        defaults={"detail": "not trusted", "why": ""},
        # Of the library's summary this is the reason.
        explains=("HF-NET-001",),
        references=("OpenSSL",),
    ),
    Rule(
        id="NET-LICENCE-001",
        title="A licence server gives no licence",
        domain=Domain.LAUNCH,
        cause="{who} got no licence from its licence server ({detail})",
        remedy="lmutil lmstat -a (FlexNet) or rlmutil rlmstat -a (RLM): who holds the licences, "
        "until when they are valid, and whether the server answers",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=83,
        signs=(
            sign(
                "icensed number of users already reached",
                r"(?P<detail>[Ll]icensed number of users already reached)",
            ),
            sign(
                "icensing error",
                r"(?P<detail>(?:FlexNet|FLEXnet|FLEXlm|FlexLM|RLM) [Ll]icensing error: ?-\d{1,4}"
                r"(?:[,.]\d{1,6}){0,2})",
            ),
            sign("All licenses in use", r"(?P<detail>All licenses in use)"),
            sign("license server", r"(?P<detail>[Cc]annot connect to license server(?: system)?)"),
            sign(
                "license server",
                r"(?P<detail>(?:Error communicating|[Cc]ommunications? error) with license server)",
            ),
        ),
        defaults={"detail": "refused"},
        references=("FlexNet", "RLM"),
    ),
    Rule(
        id="NET-PROXY-001",
        title="An HTTP proxy refuses the connection",
        domain=Domain.FABRIC,
        cause="{who} went through the HTTP proxy {peer}, which refused the connection ({detail})",
        remedy="--env no_proxy with the nodes' names and addresses (and NO_PROXY), or without "
        "http_proxy and https_proxy; a server outside must be allowed in the proxy",
        confidence=Confidence.CERTAIN,
        weight=83,
        signs=(
            sign(
                "HTTP proxy returned response code",
                r"(?:ipv[46]:(?P<peer>[\da-fA-F.:]{3,60}): )?(?P<detail>HTTP proxy returned "
                r"response "
                r"code \d{3})",
            ),
            sign(
                "Tunnel connection failed",
                r"(?P<detail>Tunnel connection failed: \d{3}[\w ]{0,40})",
            ),
        ),
        defaults={"peer": "of its environment", "detail": "no reason given"},
        references=("gRPC: http_proxy", "urllib3: ProxyError"),
    ),
    Rule(
        id="NET-REFUSED-001",
        title="A server refuses connections",
        domain=Domain.LAUNCH,
        cause="{who} was refused a connection by {peer}: the server is not started, or has ended",
        remedy="ss -ltn on the server's node; the log of the server, if it ended first",
        role=LogRole.VAGUE,
        advice=Advice.RETRY,
        weight=42,
        signs=(
            sign("ConnectionRefusedError", r"^ConnectionRefusedError\b"),
            sign(
                "Connection refused",
                r"[Ff]ail(?:ed)? to connect.{0,80}?(?P<peer>[\w.-]{1,120}:\d{1,5})\b.{0,80}"
                r"Connection refused",
            ),
            sign(
                '"Connection refused"',
                r"\"target_address\":\"(?:ipv[46]:)?(?P<peer>[^\"]{3,80})",
            ),
            sign(
                "ConnectError: ",
                r"Connect(?:ion)?Error: .{0,80}(?:Connection refused|All connection attempts "
                r"failed)",
            ),
        ),
        defaults={"peer": "a server"},
        consequence="were refused a connection",
        references=("Linux: ECONNREFUSED",),
    ),
    Rule(
        id="NET-CONN-001",
        title="A server does not answer",
        domain=Domain.LAUNCH,
        cause="{who} could not connect to {peer}: the server is not started, has ended, or a "
        "firewall is between",
        remedy="ss -ltn on the server's node; nc -vz HOST PORT from this one",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=40,
        signs=(
            sign("UnavailableError", r"errors_impl\.UnavailableError\b"),
            sign(
                "failed to connect to all addresses",
                r"failed to connect to all addresses"
                r"(?:.{0,200}?ipv[46]:(?P<peer>[\da-fA-F.:\[\]%]{7,60}))?",
            ),
            sign(
                "ailed to connect to ",
                r"[Ff]ailed to connect to (?P<peer>(?:\d{1,3}(?:\.\d{1,3}){3}|[\w.-]{1,120}):"
                r"\d{2,5})\b",
            ),
        ),
        defaults={"peer": "a server"},
        consequence="could not connect to a server",
        references=("gRPC", "llama.cpp"),
    ),
)
