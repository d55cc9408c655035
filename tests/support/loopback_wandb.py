"""A stand-in for the W&B server on 127.0.0.1, for tests of the online path.

It speaks as much of the protocol as wandb 0.31 uses for ``init``, ``log``, ``finish``, ``wandb sync`` and
``Api().runs``, keeps everything in memory, and can be told to misbehave.
"""

import base64
import gzip
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

ENTITY = "local"
KEY = "k" * 40
HANG_SECONDS = 60
NOW = "2026-01-01T00:00:00Z"
RUN_QUERIES = (
    "Run",
    "RunHistoryKeys",
    "RunFullHistory",
    "RunSampledHistory",
    "RunParquetHistory",
    "HistoryPage",
    "SampledHistoryPage",
)

Fault = Literal["drop", "hang"] | int
Json = dict[str, Any]


@dataclass
class ReceivedRun:
    """What the server was told about one run."""

    id: str
    project: str
    name: str = ""
    group: str | None = None
    job_type: str | None = None
    host: str | None = None
    tags: list[str] = field(default_factory=list)
    state: str = "running"
    exit_code: int | None = None
    raw_config: Json = field(default_factory=dict)
    raw_summary: Json = field(default_factory=dict)
    rows_by_offset: dict[int, Json] = field(default_factory=dict)

    @property
    def config(self) -> Json:
        return {key: item["value"] for key, item in self.raw_config.items() if key != "_wandb"}

    @property
    def summary(self) -> Json:
        return _without_bookkeeping(self.raw_summary)

    @property
    def history(self) -> list[Json]:
        return [_without_bookkeeping(row) for _, row in sorted(self.rows_by_offset.items())]


class LoopbackWandb:
    """The server, listening while the ``with`` block lasts.

    ``fault`` may be set at any time: "drop" closes each connection, "hang" never answers, a number is the
    HTTP status of every answer. Requests with another key than ``KEY`` get 401.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.runs: dict[str, ReceivedRun] = {}
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, bytes]] = []
        self.unknown: list[str] = []
        self._lock = threading.RLock()
        self._released = threading.Event()
        self._http = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.die()

    def die(self) -> None:
        """Stop listening and cut every connection, as a crashed server does."""
        self.fault = "drop"
        self._released.set()
        self._http.shutdown()
        self._http.server_close()

    def environment(self) -> dict[str, str]:
        """The variables that point wandb to this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def run_of(self, trial_id: str) -> ReceivedRun:
        """The only run that this trial has."""
        [run] = [run for run in self.runs.values() if run.config.get("trial_id") == trial_id]
        return run

    def hang(self) -> None:
        """Wait as a server that does not answer, but no longer than the server lives."""
        self._released.wait(HANG_SECONDS)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """The HTTP status and body for one request."""
        with self._lock:
            self.requests.append((method, path, body))
            if path == "/graphql":
                query = json.loads(body)
                return 200, json.dumps({"data": self._graphql(query)}).encode()
            if found := re.match(rf"/files/{ENTITY}/([^/]+)/([^/]+)/file_stream", path):
                self._file_stream(self._run(found[2], found[1]), json.loads(body))
                return 200, b"{}"
            if path.startswith("/storage/") and method == "PUT":
                self.files[path.removeprefix("/storage/")] = body
                return 200, b"{}"
            self.unknown.append(f"{method} {path}")
            return 404, b"{}"

    def _run(self, run_id: str, project: str) -> ReceivedRun:
        return self.runs.setdefault(run_id, ReceivedRun(run_id, project))

    def _file_stream(self, run: ReceivedRun, message: Json) -> None:
        for name, part in (message.get("files") or {}).items():
            for place, line in enumerate(part.get("content", []), start=part.get("offset", 0)):
                if name == "wandb-history.jsonl":
                    run.rows_by_offset[place] = json.loads(line)
                elif name == "wandb-summary.json":
                    run.raw_summary = json.loads(line)
        if message.get("complete"):
            run.exit_code = message.get("exitcode")
            run.state = "failed" if run.exit_code else "finished"

    def _graphql(self, query: Json) -> Json:
        found = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
        operation = found[1] if found else ""
        variables = query.get("variables") or {}
        project = variables.get("project") or ""
        match operation:
            case "Viewer" | "GetViewer" | "GetDefaultEntity":
                return {"viewer": _viewer()}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "UpsertBucket":
                return {"upsertBucket": self._upsert(variables)}
            case "RunResumeStatus":
                run = self.runs.get(variables["name"])
                return {"model": {**_project(project), "bucket": run and _bucket(run)}}
            case "DeleteRun":
                del self.runs[variables["id"].removeprefix("bucket-")]
                return {"deleteRun": {"clientMutationId": None}}
            case "CreateRunFiles":
                return {"createRunFiles": self._upload_places(variables)}
            case "Runs":
                return {"project": {**_project(project), **self._page_of_runs(variables)}}
            case name if name in RUN_QUERIES:
                return {"project": {**_project(project), "run": self._whole_run(variables)}}
        self.unknown.append(operation)
        return {}

    def _upsert(self, variables: Json) -> Json:
        inserted = variables["name"] not in self.runs
        run = self._run(variables["name"], variables.get("project") or "")
        told = {"displayName": "name", "groupName": "group", "jobType": "job_type", "tags": "tags"}
        for theirs, ours in {**told, "host": "host", "state": "state"}.items():
            if variables.get(theirs) is not None:
                setattr(run, ours, variables[theirs])
        if variables.get("config"):
            run.raw_config = json.loads(variables["config"])
        if variables.get("summaryMetrics"):
            run.raw_summary = json.loads(variables["summaryMetrics"])
        return {"bucket": _bucket(run), "inserted": inserted}

    def _upload_places(self, variables: Json) -> Json:
        run = variables.get("run") or variables.get("runName") or variables.get("name")
        names = variables.get("files") or []
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{run}/{name}"} for name in names]
        return {"runID": str(run), "uploadHeaders": [], "files": files}

    def _page_of_runs(self, variables: Json) -> Json:
        wanted = json.loads(variables.get("filters") or "{}")
        assert wanted.keys() <= {"group"}, f"the stub filters by group only, not {wanted}"
        runs = [run for run in self.runs.values() if run.project == variables["project"]]
        runs = [run for run in runs if run.group == wanted.get("group", run.group)]
        start, size = int(variables.get("cursor") or 0), variables.get("perPage") or 50
        edges = [{"node": _bucket(run), "cursor": ""} for run in runs[start : start + size]]
        more = {"endCursor": str(start + size), "hasNextPage": start + size < len(runs)}
        return {"runCount": len(runs), "runs": {"edges": edges, "pageInfo": more}}

    def _whole_run(self, variables: Json) -> Json | None:
        run = self.runs.get(variables.get("name") or variables.get("runName") or variables.get("run") or "")
        if run is None:
            return None
        specs = [json.loads(spec) for spec in variables.get("specs") or [variables.get("spec", "{}")]]
        bounds = {**variables, **specs[0]}
        steps = range(bounds.get("minStep", 0), bounds.get("maxStep", sys.maxsize))
        rows = [row for _, row in sorted(run.rows_by_offset.items()) if row["_step"] in steps]
        sampled = [
            [{key: row[key] for key in keys} for row in rows if row.keys() >= set(keys)]
            for keys in (spec.get("keys", []) for spec in specs)
        ]
        return {
            **_bucket(run),
            "history": [json.dumps(row) for row in rows],
            "sampledHistory": sampled,
            "parquetHistory": {"parquetUrls": [], "liveData": rows},
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away; report the rest."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _handler(server: LoopbackWandb) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            fault = server.fault
            if fault == "hang":
                server.hang()
            if fault in ("drop", "hang"):
                self.close_connection = True
                self.connection.close()
            elif isinstance(fault, int):
                self._send(fault, b'{"error": "injected"}')
            elif not self.path.startswith("/storage/") and self._key() != KEY:
                self._send(401, b'{"errors": [{"message": "invalid api key"}]}')
            else:
                self._send(*server.answer(self.command, self.path.partition("?")[0], body))

        do_GET = do_POST = do_PUT = do_HEAD = _respond

        def _key(self) -> str:
            scheme, _, value = self.headers.get("Authorization", "").partition(" ")
            return base64.b64decode(value).decode().partition(":")[2] if scheme == "Basic" else value

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler


def _without_bookkeeping(values: Json) -> Json:
    return {key: value for key, value in values.items() if not key.startswith("_")}


def _viewer() -> Json:
    return {
        "id": "viewer",
        "entity": ENTITY,
        "username": "tester",
        "name": "tester",
        "email": "tester@example.invalid",
        "admin": False,
        "flags": "{}",
        "teams": {"edges": []},
        "apiKeys": {"edges": []},
    }


def _project(name: str) -> Json:
    entity = {"id": ENTITY, "name": ENTITY}
    return {
        "id": name,
        "internalId": "1",
        "name": name,
        "entityName": ENTITY,
        "entity": entity,
        "readOnly": False,
    }


def _bucket(run: ReceivedRun) -> Json:
    rows = [row for _, row in sorted(run.rows_by_offset.items())]
    counts = {key: {"typeCounts": [{"type": "number", "count": 1}]} for row in rows for key in row}
    return {
        "id": f"bucket-{run.id}",
        "name": run.id,
        "displayName": run.name,
        "project": _project(run.project),
        "projectId": "1",
        "config": json.dumps(run.raw_config),
        "summaryMetrics": json.dumps(run.raw_summary),
        "systemMetrics": "{}",
        "wandbConfig": "{}",
        "state": run.state,
        "group": run.group,
        "jobType": run.job_type,
        "tags": run.tags,
        "createdAt": NOW,
        "heartbeatAt": NOW,
        "historyLineCount": len(rows),
        "eventsLineCount": 0,
        "logLineCount": 0,
        "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
        "eventsTail": "[]",
        "historyKeys": {"sets": [], "keys": counts, "lastStep": rows[-1]["_step"] if rows else -1},
        "user": _viewer(),
        "readOnly": False,
        "stopped": False,
        "fileCount": 0,
    }
