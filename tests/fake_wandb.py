"""A small local stand-in for the W&B API, for tests with the real client.

It keeps what the client sends, answers what ``wandb.Api`` and ``wandb_workspaces`` ask, and can
misbehave on demand. Checked with wandb 0.31.0 and wandb-workspaces 0.4.13::

    with FakeWandb() as server:
        subprocess.run([...], env={**os.environ, **server.environment()})
        run = server.runs["fake", "project", "run-id"]
        run.config, run.history, run.summary, run.group, run.state

``server.faults["graphql:UpsertBucket"] = "500"`` makes the endpoints that match a pattern fail.
The endpoints are ``graphql:OPERATION``, ``file_stream``, ``blob:PUT``, ``blob:GET`` and
``telemetry``. ``server.stop()`` closes the port and every connection, and ``server.start()``
opens the same port again with the same records.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fnmatch
import json
import operator
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

Json = dict[str, Any]
Fault = str  # an HTTP status, "hang" (never an answer) or "drop" (the connection is closed)
NOW = "2025-01-01T00:00:00"
HISTORY, SUMMARY = "wandb-history.jsonl", "wandb-summary.json"


def _id(*parts: object) -> str:
    """An id of the form that the client expects: base64, with nothing to pad."""
    text = ":".join(map(str, parts))
    return base64.b64encode((text + " " * (-len(text) % 3)).encode()).decode()


def _project(entity: str, project: str) -> Json:
    names = {"name": project, "entityName": entity, "entity": {"id": _id(entity), "name": entity}}
    ids = {"id": _id("Project:v1", project, entity), "internalId": _id("ProjectInternalId:1")}
    rest = {"createdAt": NOW, "isBenchmark": False, "readOnly": False}
    return {**names, **ids, **rest, **dict.fromkeys(("user", "description", "access", "views"))}


def _connection(nodes: Iterable[Json]) -> Json:
    edges = [{"node": node, "cursor": str(index)} for index, node in enumerate(nodes)]
    page = {"endCursor": None, "hasNextPage": False}
    return {"totalCount": len(edges), "edges": edges, "pageInfo": page}


@dataclass
class Run:
    """What the server knows of one run; its name is what ``wandb.init`` calls the id."""

    entity: str
    project: str
    name: str
    fields: Json = field(default_factory=dict)  # the variables of its UpsertBucket mutations
    streams: dict[str, dict[int, str]] = field(default_factory=dict)  # file -> offset -> line
    state: str = "running"

    @property
    def config(self) -> Json:
        raw = json.loads(self.fields.get("config") or "{}")
        return {key: entry["value"] for key, entry in raw.items() if key != "_wandb"}

    @property
    def group(self) -> str | None:
        return self.fields.get("groupName")

    @property
    def job_type(self) -> str | None:
        return self.fields.get("jobType")

    @property
    def tags(self) -> list[str]:
        return list(self.fields.get("tags") or [])

    @property
    def history(self) -> list[Json]:
        return [json.loads(line) for line in self.lines(HISTORY)]

    @property
    def summary(self) -> Json:
        changed = json.loads(self.fields.get("summaryMetrics") or "{}")
        return {**json.loads((self.lines(SUMMARY) or ["{}"])[-1]), **changed}

    def lines(self, file: str) -> list[str]:
        return [line for _, line in sorted(self.streams.get(file, {}).items())]

    def node(self) -> Json:
        """The run as GraphQL shows it."""
        rows = self.history
        steps = [row["_step"] for row in rows if "_step" in row]
        keys: dict[str, Json] = {key: {"typeCounts": []} for row in rows for key in row}
        count = {"history": HISTORY, "events": "wandb-events.jsonl", "log": "output.log"}
        counts = {f"{k}LineCount": len(self.lines(file)) for k, file in count.items()}
        tails = {f"{k}Tail": json.dumps(self.lines(count[k])[-1:]) for k in ("history", "events")}
        return {
            **dict.fromkeys(("sweepName", "commit", "description", "notes")),
            **counts,
            **tails,
            "id": _id("Run:v1", self.name, self.project, self.entity),
            "projectId": "1",
            "project": _project(self.entity, self.project),
            "name": self.name,
            "displayName": self.fields.get("displayName") or self.name,
            "tags": self.tags,
            "state": self.state,
            "config": self.fields.get("config") or "{}",
            "wandbConfig": '{"t": 1}',
            "group": self.group,
            "jobType": self.job_type,
            "readOnly": False,
            "createdAt": NOW,
            "heartbeatAt": NOW,
            "systemMetrics": "{}",
            "summaryMetrics": json.dumps(self.summary),
            "user": {"name": "Fake", "username": "fake"},
            "historyKeys": {"lastStep": max(steps, default=-1), "sets": [], "keys": keys},
        }


@dataclass
class Artifact:
    """One version of an artifact."""

    id: str
    fields: Json  # the input of its CreateArtifact mutation
    version: int
    state: str = "PENDING"

    @property
    def name(self) -> str:
        return str(self.fields["artifactCollectionName"])

    @property
    def type(self) -> str:
        return str(self.fields["artifactTypeName"])

    @property
    def run(self) -> tuple[str, str, str]:
        return self.fields["entityName"], self.fields["projectName"], self.fields["runName"]

    @property
    def aliases(self) -> list[str]:
        given = [alias["alias"] for alias in self.fields.get("aliases") or []]
        return [*given, f"v{self.version}"]

    def node(self) -> Json:
        """The artifact as GraphQL shows it."""
        typename = {"__typename": "ArtifactSequence"}
        collection = {**typename, "name": self.name, "project": _project(*self.run[:2])}
        aliases = [
            {"id": _id(self.id, alias), "alias": alias, "artifactCollection": collection} for alias in self.aliases
        ]
        return {
            "id": self.id,
            "artifactSequence": collection,
            "versionIndex": self.version,
            "artifactType": {"name": self.type},
            "description": self.fields.get("description"),
            "metadata": self.fields.get("metadata") or "{}",
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": self.state,
            "size": 0,
            "digest": self.fields["digest"],
            "digestAlgorithm": self.fields.get("digestAlgorithm") or "MANIFEST_MD5",
            "commitHash": "0",
            "fileCount": 1,
            "createdAt": NOW,
            "updatedAt": NOW,
            "aliases": aliases,
        }


def _dig(tree: Any, path: str) -> Any:
    for part in path.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$gt": lambda value, other: value is not None and value > other,
    "$gte": lambda value, other: value is not None and value >= other,
    "$lt": lambda value, other: value is not None and value < other,
    "$lte": lambda value, other: value is not None and value <= other,
    "$in": lambda value, other: any(v in other for v in (value if isinstance(value, list) else [value])),
    "$nin": lambda value, other: value not in other,
}


def matches(run: Run, filters: Json) -> bool:
    """Whether a run passes a filter in the Mongo-like language of ``Api().runs``."""
    for key, want in filters.items():
        if key in ("$and", "$or"):
            if not (all if key == "$and" else any)(matches(run, part) for part in want):
                return False
            continue
        head, _, tail = key.partition(".")
        if head == "config":
            value = _dig(run.config, tail.removesuffix(".value"))
        else:
            value = _dig(run.summary, tail) if head == "summary_metrics" else run.node().get(key)
        tests = want if isinstance(want, dict) else {"$eq": want}
        if not all(_COMPARE[name](value, other) for name, other in tests.items()):
            return False
    return True


class FakeWandb:
    """The server: its records, and how to misbehave."""

    def __init__(self, port: int = 0, entity: str = "fake") -> None:
        self.port = port
        self.entity = entity
        self.runs: dict[tuple[str, str, str], Run] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.views: dict[str, Json] = {}  # saved workspace views and reports, by id
        self.projects: set[tuple[str, str]] = set()  # the projects which exist
        self.blobs: dict[str, bytes] = {}  # what was uploaded, by its path
        self.requests: list[str] = []  # the endpoint of each request
        self.unknown: list[str] = []  # what it had no answer for: a gap in this server
        self.faults: dict[str, Fault] = {}  # a pattern of endpoints -> how they fail
        self.stop_after: int | None = None  # stops in the middle of this request, by number
        # A run started again under its id, without resume: the client writes its rows from the
        # line count which the server names. W&B documents that the rows are overwritten.
        self.resync: Literal["overwrite", "append"] = "overwrite"
        self.lock = threading.RLock()
        self.connections: set[socket.socket] = set()
        self.closing = threading.Event()
        self._resuming: set[tuple[str, str, str]] = set()
        self._server: ThreadingHTTPServer | None = None

    # --- starting and stopping

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """What a client needs in its environment to talk to this server."""
        proxy = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "a" * 40, **proxy}

    def start(self) -> FakeWandb:
        self.closing.clear()
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self.closing.set()
        server.shutdown()
        server.server_close()
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):  # the client closed it
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> FakeWandb:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- what tests read

    def files(self, run: Run) -> dict[str, bytes]:
        """The files of a run, by name."""
        return self._under(f"run/{run.entity}/{run.project}/{run.name}/")

    def artifact_files(self, artifact: Artifact) -> dict[str, bytes]:
        """The files of an artifact, by name."""
        return self._under(f"artifact/{artifact.id}/")

    def logged(self, run: Run) -> list[Artifact]:
        """The artifacts which a run logged and committed."""
        key = (run.entity, run.project, run.name)
        return [a for a in self.artifacts.values() if a.run == key and a.state == "COMMITTED"]

    def dump(self) -> Json:
        """The records, in a form that JSON can hold."""
        sizes = {key: len(data) for key, data in self.blobs.items()}
        runs = [vars(r) | {"config": r.config, "history": r.history} for r in self.runs.values()]
        artifacts = [vars(artifact) for artifact in self.artifacts.values()]
        lists = {"requests": self.requests, "unknown": self.unknown}
        views = list(self.views.values())
        return {"runs": runs, "artifacts": artifacts, "views": views, "blobs": sizes, **lists}

    def _under(self, prefix: str) -> dict[str, bytes]:
        return {k[len(prefix) :]: v for k, v in self.blobs.items() if k.startswith(prefix)}

    def _blob(self, key: str) -> str:
        return f"{self.url}/blob/{quote(key)}"

    # --- the file stream: history, summary, console, and the end of a run

    def file_stream(self, entity: str, project: str, name: str, body: Json) -> Json:
        run = self.runs[entity, project, name]
        for file, chunk in (body.get("files") or {}).items():
            stream = run.streams.setdefault(file, {})
            stream.update(enumerate(chunk["content"], start=chunk["offset"]))
        if body.get("complete"):
            run.state = "failed" if body.get("exitcode") else "finished"
        return {"exitcode": None, "limits": {}}

    # --- GraphQL: one method for each operation

    def graphql(self, operation: str, variables: Json) -> Json:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation).lower()
        method = getattr(self, f"_op_{name}", None)
        if method is None:
            raise LookupError("the fake server has no such operation")
        return {"data": method(variables)}

    def _find_project(self, entity: str, project: str) -> Json | None:
        return _project(entity, project) if (entity, project) in self.projects else None

    def _in_project(self, v: Json, **answer: Any) -> Json:
        """The answer about a project, or that there is none."""
        project = self._find_project(v["entity"], v["project"])
        return {"project": project and {**project, **answer}}

    def _run(self, v: Json) -> Run | None:
        name = v.get("run") or v.get("runName") or v.get("name")
        return self.runs.get((v["entity"], v["project"], str(name)))

    def _in_run(self, v: Json, **answer: Any) -> Json:
        """The answer about a run, or that there is none."""
        run = self._run(v)
        return self._in_project(v, run=run and {**run.node(), **answer})

    # writing, as wandb-core does

    def _op_viewer(self, v: Json) -> Json:
        names = {"name": "Fake", "username": "fake", "entity": self.entity, "email": "a@b.c"}
        lists = {"teams": _connection([{"name": self.entity}]), "apiKeys": _connection([])}
        rest = {"admin": False, "flags": "{}", "deletedAt": None}
        return {"viewer": {"id": _id("User", 1), **names, **lists, **rest}}

    _op_get_default_entity = _op_viewer

    def _op_server_features_query(self, v: Json) -> Json:
        return {"serverInfo": {"features": []}}

    def _op_organization_core_weave_organization_id(self, v: Json) -> Json:
        return {"entity": {"organization": None}}

    def _op_upsert_bucket(self, v: Json) -> Json:
        known = next((run for run in self.runs.values() if v.get("id") == run.node()["id"]), None)
        if known is not None and "name" not in v:  # wandb.Api changes a run
            known.fields.update({name: value for name, value in v.items() if value is not None})
            return {"upsertBucket": {"bucket": known.node(), "inserted": False}}
        key = (v.get("entity") or self.entity, v.get("project") or "uncategorized", v["name"])
        inserted = key not in self.runs
        run = self.runs.setdefault(key, Run(*key))
        self.projects.add(key[:2])
        run.fields.update({name: value for name, value in v.items() if value is not None})
        bucket = run.node()
        if v.get("host") or v.get("program"):  # the start of a run, or of a sync of one
            run.state = "running"
            if key not in self._resuming and self.resync == "overwrite":
                bucket["historyLineCount"] = 0
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _op_run_resume_status(self, v: Json) -> Json:
        self._resuming.add((v["entity"], v["project"], v["name"]))
        run = self._run(v)
        return {"model": self._in_project(v, bucket=run and run.node())["project"]}

    def _op_create_run_files(self, v: Json) -> Json:
        prefix = f"run/{v['entity']}/{v['project']}/{v['run']}/"
        files = [{"name": name, "uploadUrl": self._blob(prefix + name)} for name in v["files"]]
        return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}

    def _versions(self, entity: str, project: str, name: str) -> list[Artifact]:
        found = self.artifacts.values()
        return [a for a in found if (*a.run[:2], a.name) == (entity, project, name)]

    def _op_create_artifact(self, v: Json) -> Json:
        new = Artifact(_id("Artifact", len(self.artifacts)), v["input"], 0)
        before = self._versions(*new.run[:2], new.name)
        new.version = len(before)
        same = [a for a in before if a.fields["digest"] == new.fields["digest"]]
        artifact = same[0] if same else new  # the same contents are the same version
        self.artifacts.setdefault(artifact.id, artifact)
        latest = {"latestArtifact": {"id": before[-1].id} if before else None}
        answer = {"id": artifact.id, "state": artifact.state, "artifactSequence": latest}
        return {"createArtifact": {"artifact": answer}}

    def _op_create_artifact_manifest(self, v: Json) -> Json:
        manifest = v["artifactID"]  # one manifest for each artifact: the same id will do
        file = {"id": manifest, "uploadUrl": self._blob(f"manifest/{manifest}")}
        answer = {"id": manifest, "file": {**file, "uploadHeaders": []}}
        return {"createArtifactManifest": {"artifactManifest": answer}}

    def _op_create_artifact_files(self, v: Json) -> Json:
        nodes = []
        for file in v["input"]["artifactFiles"]:
            key = f"artifact/{file['artifactID']}/{file['name']}"
            upload = {"storagePath": key, "uploadUrl": self._blob(key), "uploadHeaders": []}
            nodes.append({**upload, "artifact": {"id": file["artifactID"]}})
        return {"createArtifactFiles": {"files": _connection(nodes)}}

    def _op_commit_artifact(self, v: Json) -> Json:
        artifact = self.artifacts[v["artifactID"]]
        artifact.state = "COMMITTED"
        return {"commitArtifact": {"artifact": artifact.node()}}

    # reading, as wandb.Api does

    def _op_get_project(self, v: Json) -> Json:
        return {"project": self._find_project(v["entity"], v["name"])}

    def _op_get_projects(self, v: Json) -> Json:
        here = [key for key in sorted(self.projects) if key[0] == v["entity"]]
        return {"models": _connection(_project(*key) for key in here)}

    def _op_runs(self, v: Json) -> Json:
        filters = json.loads(v.get("filters") or "{}")
        here = [r for key, r in self.runs.items() if key[:2] == (v["entity"], v["project"])]
        found = [run for run in here if matches(run, filters)]
        if (v.get("order") or "").startswith("-"):
            found.reverse()
        start = int(v["cursor"]) + 1 if v.get("cursor") else 0
        stop = start + int(v.get("perPage") or 50)
        page = _connection(run.node() for run in found)
        page["edges"] = page["edges"][start:stop]
        page["pageInfo"] = {"endCursor": str(stop - 1), "hasNextPage": stop < len(found)}
        return self._in_project(v, runCount=len(found), runs=page)

    def _op_run(self, v: Json) -> Json:
        return self._in_run(v)

    _op_run_history_keys = _op_run

    def _op_run_full_history(self, v: Json) -> Json:
        run = self._run(v)
        lines = run.lines(HISTORY)[: v.get("samples") or 500] if run else []
        return self._in_run(v, history=lines, events=run.lines("wandb-events.jsonl") if run else [])

    def _sample(self, v: Json, spec: Json) -> list[Json]:
        keys, low, high = spec["keys"], spec.get("minStep", 0), spec.get("maxStep", 1 << 62)
        run = self._run(v)
        rows = [row for row in (run.history if run else []) if low <= row["_step"] < high]
        return [{k: row[k] for k in keys} for row in rows if all(k in row for k in keys)]

    def _op_run_sampled_history(self, v: Json) -> Json:
        return self._in_run(v, sampledHistory=[self._sample(v, json.loads(s)) for s in v["specs"]])

    def _op_sampled_history_page(self, v: Json) -> Json:
        return self._in_run(v, sampledHistory=[self._sample(v, json.loads(v["spec"]))])

    def _op_run_parquet_history(self, v: Json) -> Json:
        return self._in_run(v, parquetHistory={"parquetUrls": [], "liveData": None})

    def _op_history_page(self, v: Json) -> Json:
        run = self._run(v)
        rows = [r for r in (run.history if run else []) if v["minStep"] <= r["_step"] < v["maxStep"]]
        return self._in_run(v, history=[json.dumps(row) for row in rows])

    def _op_run_files(self, v: Json) -> Json:
        run = self._run(v)
        nodes = []
        for name, data in (self.files(run) if run else {}).items():
            if not v.get("fileNames") or name in v["fileNames"]:
                url = self._blob(f"run/{v['entity']}/{v['project']}/{v['name']}/{name}")
                texts = {"id": _id(name), "name": name, "url": url, "directUrl": url}
                nodes.append({**texts, "mimetype": "", "updatedAt": NOW, "md5": "", "sizeBytes": len(data)})
        return self._in_run(v, fileCount=len(nodes), files=_connection(nodes))

    def _op_run_output_artifacts(self, v: Json) -> Json:
        run = self._run(v)
        logged = self.logged(run) if run else []
        return self._in_run(v, artifacts=_connection(artifact.node() for artifact in logged))

    def _version(self, v: Json, name: str, alias: str) -> Artifact | None:
        found = self._versions(v["entity"], v["project"], name)
        return next((a for a in reversed(found) if (alias or "latest") in a.aliases), None)

    def _op_artifact_type(self, v: Json) -> Json:
        name, _, alias = v["name"].partition(":")
        artifact = self._version(v, name, alias)
        return self._in_project(v, artifact=artifact and artifact.node())

    def _op_artifact_membership_by_name(self, v: Json) -> Json:
        name, _, alias = v["name"].partition(":")
        artifact = self._version(v, name, alias)
        node = artifact.node() if artifact else {}
        membership = {key: node.get(key) for key in ("id", "versionIndex", "createdAt", "aliases")}
        membership |= {"artifactCollection": node.get("artifactSequence"), "artifact": node}
        return self._in_project(v, artifactCollectionMembership=artifact and membership)

    def _op_fetch_artifact_manifest(self, v: Json) -> Json:
        file = {"directUrl": self._blob(f"manifest/{v['id']}")}
        return {"artifact": {"currentManifest": {"file": file}}}

    def _op_get_artifact_membership_file_urls(self, v: Json) -> Json:
        artifact = self._version(v, v["collection"], v["alias"])
        names = self.artifact_files(artifact) if artifact else {}
        prefix = f"artifact/{artifact.id}/" if artifact else ""
        nodes = [{"name": name, "directUrl": self._blob(prefix + name)} for name in names]
        membership = artifact and {"files": _connection(nodes)}
        collection = {"__typename": "ArtifactSequence", "artifactMembership": membership}
        return self._in_project(v, artifactCollection=collection)

    # saved workspace views and reports, as wandb-workspaces does

    def _op_project_internal_id(self, v: Json) -> Json:
        return {"project": self._find_project(v["entityName"], v["projectName"])}

    def _op_create_project(self, v: Json) -> Json:
        key = (v["input"]["entityName"], v["input"]["name"])
        self.projects.add(key)
        return {"result": {"project": _project(*key), "model": _project(*key), "inserted": True}}

    def _op_upsert_view2(self, v: Json) -> Json:
        inserted = not v.get("id")
        view_id = v.get("id") or _id("View:v1", len(self.views) + 1)
        if inserted:
            project = _project(v["entityName"], v["projectName"])
            self.views[view_id] = {"id": view_id, "project": project, "createdAt": NOW}
        keys = ("name", "displayName", "description", "type", "spec")
        view = self.views[view_id]  # an id that is not there is an error
        view |= {key: v[key] for key in keys} | {"updatedAt": NOW, "user": {"username": "fake"}}
        return {"upsertView": {"view": view, "inserted": inserted}}

    _op_upsert_view = _op_upsert_view2

    def _op_project_views(self, v: Json) -> Json:
        want = (v["entity"], v["project"], v.get("viewType") or "runs")
        nodes = [
            view
            for view in self.views.values()
            if (view["project"]["entityName"], view["project"]["name"], view["type"]) == want
            and v.get("viewName") in (None, view["name"])
        ]
        return self._in_project(v, allViews=_connection(nodes))

    def _op_view(self, v: Json) -> Json:
        return self._op_project_views({**v, "entity": v["entityName"], "project": v["name"]})

    def _op_specific_report(self, v: Json) -> Json:
        return {"view": self.views.get(v["reportId"])}


class _Handler(BaseHTTPRequestHandler):
    fake: FakeWandb
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with self.fake.lock:
            self.fake.connections.add(self.connection)
        try:
            super().handle()
        except OSError:
            pass  # the client, or `stop`, closed the connection
        finally:
            with self.fake.lock:
                self.fake.connections.discard(self.connection)

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _misbehaves(self, endpoint: str) -> bool:
        """Record the request, and fail it if it is to fail."""
        fake = self.fake
        with fake.lock:
            fake.requests.append(endpoint)
            stop = fake.stop_after is not None and len(fake.requests) >= fake.stop_after
            fake.stop_after = None if stop else fake.stop_after
            hits = [f for pattern, f in fake.faults.items() if fnmatch.fnmatch(endpoint, pattern)]
        if stop:
            threading.Thread(target=fake.stop, daemon=True).start()
        fault = "hang" if stop else next(iter(hits), None)
        if fault == "hang":
            fake.closing.wait()
        if fault in ("hang", "drop"):
            self.close_connection = True
        elif fault is not None:
            message = {"errors": [{"message": f"the fake server answers {fault}"}]}
            self._reply(int(fault), json.dumps(message).encode())
        return fault is not None

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        operation, endpoint = "", f"other:{self.command} {path}"
        stream = re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path)
        if path == "/graphql":
            found = re.search(r"\b(?:query|mutation)\s+(\w+)", json.loads(body)["query"])
            operation = found[1] if found else "?"
            endpoint = f"graphql:{operation}"
        elif stream:
            endpoint = "file_stream"
        elif path.startswith("/blob/"):
            endpoint = f"blob:{self.command}"
        elif path.startswith("/sdk/otel/"):
            endpoint = "telemetry"  # of the client about itself
        if self._misbehaves(endpoint):
            return
        try:
            with self.fake.lock:
                status, answer = self._answer(operation, stream, path, body)
        except Exception as error:  # a wrong request, or a gap in this server: show it
            self.fake.unknown.append(f"{endpoint}: {error!r}")
            message = {"errors": [{"message": f"{endpoint}: {error!r}"}]}
            status, answer = (200 if operation else 404), json.dumps(message).encode()
        self._reply(status, answer)

    def _answer(self, operation: str, stream: re.Match[str] | None, path: str, body: bytes) -> tuple[int, bytes]:
        fake, key = self.fake, path.removeprefix("/blob/")
        if operation:
            variables = json.loads(body).get("variables") or {}
            return 200, json.dumps(fake.graphql(operation, variables)).encode()
        if stream:
            return 200, json.dumps(fake.file_stream(stream[1], stream[2], stream[3], json.loads(body))).encode()
        if key != path and self.command == "PUT":
            fake.blobs[key] = body
            return 200, b"{}"
        if key != path:
            return 200, fake.blobs[key]
        if path.startswith("/sdk/otel/"):
            return 200, b"{}"
        raise LookupError("the fake server has no such path")

    do_GET = do_POST = do_PUT = _serve  # noqa: N815


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a fake W&B API until interrupted.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], metavar="PATTERN=FAULT")
    parser.add_argument("--stop-after", type=int, metavar="N", help="close at the Nth request")
    parser.add_argument("--dump", type=Path, help="where to write the records at the end")
    options = parser.parse_args()
    server = FakeWandb(options.port)
    server.faults = dict(text.rsplit("=", 1) for text in options.fault)
    server.stop_after = options.stop_after
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with server:
        print(server.url, flush=True)
        signal.sigwait(signals)
    if options.dump:
        options.dump.write_text(json.dumps(server.dump(), indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
