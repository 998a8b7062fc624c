"""An API server as far as a run needs one: discovery, objects, reviews of access, exec.

What it answers has the form that Kubernetes 1.32 gives it; what becomes of objects is decided in
``cluster.py``.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.kubernetes.cluster.kubectl_program import require_kubectl
from tests.kubernetes.cluster.websocket import PROTOCOL, Channels, accept_key

# By group and version: resource -> kind.
RESOURCES: Mapping[str, Mapping[str, str]] = {
    "v1": {"pods": "Pod", "events": "Event", "services": "Service"},
    "batch/v1": {"jobs": "Job"},
    "authorization.k8s.io/v1": {"selfsubjectaccessreviews": "SelfSubjectAccessReview"},
    "jobset.x-k8s.io/v1alpha2": {"jobsets": "JobSet"},
    "kueue.x-k8s.io/v1beta1": {"workloads": "Workload"},
}
OBJECT = re.compile(
    r"/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<part>[a-z]+))?)?\Z"
)
VERBS = {"GET": "get", "POST": "create", "DELETE": "delete"}

MAX_HEAD = 1024 * 1024
Objects = dict[str, dict[str, dict[str, Any]]]


class ApiError(Exception):
    """An answer that is no object: HTTP's code, Kubernetes' reason, and a text."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class ApiServer:
    """Objects by resource and name, in one namespace. ``denied``: (verb, resource) that the user
    may not; ``absent``: groups that are not installed. A test without kubectl is skipped.
    """

    def __init__(self) -> None:
        require_kubectl()
        self.lock = threading.RLock()
        self.objects: Objects = {
            "pods": {},
            "jobs": {},
            "jobsets": {},
            "events": {},
            "workloads": {},
        }
        self.denied: set[tuple[str, str]] = set()
        self.absent: set[str] = set()
        self.failing = 0  # so many lists of pods are refused, as by a server that is restarted
        self.asked: list[tuple[str, str]] = []
        self.on_created: Callable[[str, dict[str, Any]], None] = lambda *_: None
        self.on_deleted: Callable[[str, str], None] = lambda *_: None
        self.on_exec: Callable[[str, list[str], bool, Channels], None] = lambda *_: None
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        self._server = server
        threading.Thread(target=server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], body: bytes) -> Any:
        """The answer to anything but exec. Raises :class:`ApiError`."""
        if (found := self._discover(path)) is not None:
            return found
        match = OBJECT.match(path)
        if match is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        resource, name = match["resource"], match["name"]
        if resource == "namespaces":  # kubectl asks whether it was the namespace that is not there
            return {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}
        if resource not in self.objects and resource != "selfsubjectaccessreviews":
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        verb = "list" if method == "GET" and not name else VERBS[method]
        self.check(verb, resource)
        with self.lock:
            if resource == "selfsubjectaccessreviews":
                return self._review(json.loads(body))
            if method == "POST":
                return self._create(resource, json.loads(body))
            if not name:
                return self._list(resource, query)
            if name not in self.objects[resource]:
                kind = f"{resource}.{path.split('/')[2]}" if path.startswith("/apis") else resource
                raise ApiError(404, "NotFound", f'{kind} "{name}" not found')
            found = json.loads(json.dumps(self.objects[resource][name]))
        if method == "DELETE":
            self.on_deleted(resource, name)
        return found

    def check(self, verb: str, resource: str) -> None:
        self.asked.append((verb, resource))
        if (verb, resource) == ("list", "pods") and self.failing:
            self.failing -= 1
            raise ApiError(503, "ServiceUnavailable", "the server is currently unable to answer")
        if (verb, resource) in self.denied:
            what = f'{resource} is forbidden: User "tester" cannot {verb} resource "{resource}"'
            raise ApiError(403, "Forbidden", what)

    def _groups(self) -> dict[str, Mapping[str, str]]:
        return {g: r for g, r in RESOURCES.items() if g.split("/")[0] not in self.absent}

    def _discover(self, path: str) -> Any:
        groups = self._groups()
        if path == "/version":
            return {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            named = [group for group in groups if "/" in group]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": list(map(_group, named))}
        version = path.removeprefix("/apis/").removeprefix("/api/")
        if version not in groups:
            return None
        listed = [
            {
                "name": name,
                "singularName": kind.lower(),
                "kind": kind,
                "namespaced": kind != "SelfSubjectAccessReview",
                "verbs": ["create", "delete", "get", "list"],
            }
            for name, kind in groups[version].items()
        ]
        return {"kind": "APIResourceList", "groupVersion": version, "resources": listed}

    def _review(self, review: dict[str, Any]) -> dict[str, Any]:
        asked = review["spec"]["resourceAttributes"]
        part = asked.get("subresource")
        resource = f"{asked['resource']}/{part}" if part else asked["resource"]
        allowed = (asked["verb"], resource) not in self.denied
        return {**review, "status": {"allowed": allowed}}

    def _create(self, resource: str, made: dict[str, Any]) -> dict[str, Any]:
        name = made["metadata"]["name"]
        if name in self.objects[resource]:
            raise ApiError(409, "AlreadyExists", f'{resource} "{name}" already exists')
        made["metadata"] |= {"uid": f"uid-of-{name}", "creationTimestamp": "2026-12-01T00:00:00Z"}
        self.objects[resource][name] = made
        self.on_created(resource, made)
        return made

    def _list(self, resource: str, query: Mapping[str, list[str]]) -> dict[str, Any]:
        wanted = dict(
            term.split("=", 1)
            for terms in query.get("labelSelector", [])
            for term in terms.split(",")
        )
        found = [
            each
            for each in self.objects[resource].values()
            if wanted.items() <= each["metadata"].get("labels", {}).items()
        ]
        version, kinds = next((v, k) for v, k in RESOURCES.items() if resource in k)
        return {
            "kind": f"{kinds[resource]}List",
            "apiVersion": version,
            "metadata": {},
            "items": found,
        }


def _group(version: str) -> dict[str, Any]:
    name, _, number = version.partition("/")
    preferred = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [preferred], "preferredVersion": preferred}


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            """The base class takes no more than 64 KiB of the first line; Go's server 1 MiB."""
            self.raw_requestline = self.rfile.readline(MAX_HEAD)
            if not self.raw_requestline:
                self.close_connection = True
            elif self.parse_request():
                self._serve()
                self.wfile.flush()

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query, keep_blank_values=True)
            path = unquote(parts.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                match = OBJECT.match(path)
                if match is not None and match["part"] == "exec":
                    self._execute(match["name"], query)
                    return
                self._send(
                    200 if self.command != "POST" else 201,
                    server.answer(self.command, path, query, body),
                )
            except ApiError as error:
                self._send(error.code, _status(error))

        def _send(self, code: int, answer: Any) -> None:
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _execute(self, name: str, query: Mapping[str, list[str]]) -> None:
            server.check("create", "pods/exec")
            if name not in server.objects["pods"]:
                raise ApiError(404, "NotFound", f'pods "{name}" not found')
            if PROTOCOL not in self.headers.get("Sec-WebSocket-Protocol", ""):
                raise ApiError(400, "BadRequest", "only WebSockets are understood here")
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", accept_key(self.headers["Sec-WebSocket-Key"]))
            self.send_header("Sec-WebSocket-Protocol", PROTOCOL)
            self.end_headers()
            self.close_connection = True
            stdin = query.get("stdin") == ["true"]
            server.on_exec(name, query["command"], stdin, Channels(self.connection))

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _status(error: ApiError) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": error.message,
        "reason": error.reason,
        "code": error.code,
    }
