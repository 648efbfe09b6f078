"""A local stand-in for the Hugging Face hub: it serves folders as repositories, and takes uploads of models."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]
LARGE = (".safetensors", ".bin", ".parquet")  # suffixes of files that the hub stores outside git, by their SHA-256
API = re.compile(r"/api/(?P<kind>models|datasets)/(?P<name>.+?)(?:/(?P<verb>revision|tree|paths-info)/(?P<rest>.+))?")
UPLOAD = re.compile(r"/api/models/(?P<name>.+?)/(?P<verb>preupload|commit)/main")
BATCH = re.compile(r"/(?P<name>.+?)\.git/info/lfs/objects/batch")
RESOLVE = re.compile(r"/(?P<kind>datasets/)?(?P<name>.+?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


class Repository(NamedTuple):
    """A commit of a repository.

    Attributes:
        commit: Hash of the commit.
        files: Contents of the files by name.
    """

    commit: str
    files: Files


class StandInHub:
    """A hub that serves requests while its context is active, and that can simulate network faults.

    Attributes:
        requests: Log of all requests, as ``METHOD /path``.
        sent: Number of times that a file's content was sent, by file name.
        break_off: Number of times that a file's transfer will break off in the middle, by file name.
        stall: Number of times that a file's transfer will pause for two seconds, by file name.
        altered: Names of files whose last byte is changed in transfer.
        refuses_uploads: True to answer uploads as the hub answers those without the right to write.
        blobs: Contents of large files that were uploaded, by SHA-256.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.sent: Counter[str] = Counter()
        self.break_off: Counter[str] = Counter()
        self.stall: Counter[str] = Counter()
        self.altered: set[str] = set()
        self.refuses_uploads = False
        self.blobs: dict[str, bytes] = {}
        self._commits: dict[tuple[str, str], list[Repository]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True

    def add(self, kind: str, name: str, folder: Path) -> str:
        """Add a commit with all files of a folder, make it the head of ``main``, and return its hash.

        Args:
            kind: Kind of the repository, ``models`` or ``datasets``.
            name: Name of the repository.
            folder: Folder with the files.
        """
        return self.commit(
            kind,
            name,
            {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()},
        )

    def commit(self, kind: str, name: str, files: Files) -> str:
        """Add a commit with the given files, make it the head of ``main``, and return its hash. See `add`."""
        description = repr([name, *((file, _blob_id(content)) for file, content in sorted(files.items()))])
        commit = hashlib.sha1(description.encode()).hexdigest()
        self._commits.setdefault((kind, name), []).append(Repository(commit, files))
        return commit

    @property
    def address(self) -> str:
        """Return the address of this hub."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """Return environment variables that make a process download from this hub only.

        Args:
            home: Folder for the downloads.
        """
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        }

    def find(self, kind: str, name: str, revision: str) -> Repository | str:
        """Return a commit of a repository, or the error code of the hub if there is none.

        Args:
            kind: Kind of the repository, ``models`` or ``datasets``.
            name: Name of the repository.
            revision: Hash of a commit, or ``main``.
        """
        commits = self._commits.get((kind, name))
        if commits is None:
            return "RepoNotFound"
        if revision == "main":
            return commits[-1]
        return next((commit for commit in commits if commit.commit == revision), "RevisionNotFound")

    def __enter__(self) -> StandInHub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """The HTTP request handler of the hub."""

    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        """Take the content of a large file."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.requests.append(f"PUT {self.path}")
        self.hub.blobs[hashlib.sha256(content).hexdigest()] = content
        self._json({})

    def log_message(self, *args: object) -> None:
        """Suppress the log output of the base class."""

    def _answer(self) -> None:
        """Log the request and answer it."""
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.hub.requests.append(f"{self.command} {url.path}")
        if self.command == "POST" and self._takes_upload(url.path, body):
            return
        if found := API.fullmatch(url.path):
            query = parse_qs(url.query or body)
            self._metadata(found["kind"], found["name"], found["verb"], found["rest"], query)
        elif found := RESOLVE.fullmatch(url.path):
            kind = (found["kind"] or "models").rstrip("/")
            self._file(kind, found["name"], unquote(found["revision"]), unquote(found["file"]))
        else:
            self._refuse("EntryNotFound")

    def _takes_upload(self, path: str, body: str) -> bool:
        """Answer one of the requests that make up an upload. Return False if the request is none of them."""
        upload, batch = UPLOAD.fullmatch(path), BATCH.fullmatch(path)
        if path == "/api/repos/create":
            if self.hub.refuses_uploads:
                self._refuse("RepoNotFound")
                return True
            created = json.loads(body)
            name = "/".join(part for part in (created.get("organization"), created["name"]) if part)
            self._json({"url": f"{self.hub.address}/{name}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif batch:
            objects = json.loads(body)["objects"]
            answers = [{**o, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{o['oid']}"}}} for o in objects]
            self._json({"objects": answers})
        elif upload and upload["verb"] == "preupload":
            modes = [(file["path"], file["path"].endswith(LARGE)) for file in json.loads(body)["files"]]
            self._json(
                {
                    "files": [
                        {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
                        for name, large in modes
                    ]
                }
            )
        elif upload:
            commit = self.hub.commit("models", upload["name"], self._uploaded(upload["name"], body))
            url = f"{self.hub.address}/{upload['name']}/commit/{commit}"
            self._json({"success": True, "commitUrl": url, "commitOid": commit})
        else:
            return False
        return True

    def _uploaded(self, name: str, body: str) -> Files:
        """Return the files of a repository after a commit, whose operations are the lines of the body."""
        before = self.hub.find("models", name, "main")
        files = {} if isinstance(before, str) else dict(before.files)
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        return files

    def _metadata(self, kind: str, name: str, verb: str | None, rest: str | None, query: dict[str, list[str]]) -> None:
        """Answer a request to the hub's API: a commit's description, a list of files, or descriptions of files."""
        revision, _, path = (rest or "main").partition("/")
        found = self.hub.find(kind, name, unquote(revision))
        if isinstance(found, str):
            return self._refuse(found)
        if verb in (None, "revision"):
            siblings = [{"rfilename": file} for file in found.files]
            return self._json({"id": name, "sha": found.commit, "siblings": siblings, "private": False, "tags": []})
        folders = {str(parent) for file in found.files for parent in Path(file).parents} - {"."}
        entries = [_entry(file, content) for file, content in found.files.items()]
        entries += [{"type": "directory", "path": folder, "oid": "0" * 40, "size": 0} for folder in sorted(folders)]
        if verb == "paths-info":
            return self._json([entry for entry in entries if entry["path"] in query["paths"]])
        path = unquote(path)
        inside = [entry for entry in entries if not path or entry["path"].startswith(f"{path}/")]
        if path and not inside:
            return self._refuse("EntryNotFound", found.commit)
        if query.get("recursive", ["false"])[0].lower() != "true":
            inside = [entry for entry in inside if "/" not in entry["path"][len(path) + bool(path) :]]
        return self._json(inside)

    def _file(self, kind: str, name: str, revision: str, file: str) -> None:
        """Answer a request for a file, or for a range of it that extends to its end."""
        found = self.hub.find(kind, name, revision)
        if isinstance(found, str):
            return self._refuse(found)
        if file not in found.files:
            return self._refuse("EntryNotFound", found.commit)
        content = found.files[file]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", found.commit)
        self.send_header("ETag", f'"{_blob_id(content)}"')
        if file.endswith(LARGE):
            self.send_header("X-Linked-ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(content)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            self._send(file, content[start:])
        return None

    def _send(self, file: str, content: bytes) -> None:
        """Send the content of a file with the faults that are set for it."""
        self.hub.sent[file] += 1
        if file in self.hub.altered:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if self.hub.break_off[file] > 0:
            self.hub.break_off[file] -= 1
            content, self.close_connection = content[: len(content) // 2], True
        middle = len(content) // 2
        self.wfile.write(content[:middle])
        if self.hub.stall[file] > 0:
            self.hub.stall[file] -= 1
            self.wfile.flush()
            time.sleep(2)
        self.wfile.write(content[middle:])

    def _json(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, code: str, commit: str | None = None) -> None:
        """Answer with an error code of the hub."""
        self.send_response(401 if code == "RepoNotFound" else 404)
        self.send_header("X-Error-Code", code)
        if commit is not None:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(file: str, content: bytes) -> dict[str, Any]:
    """Return the hub's description of a file."""
    entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": _blob_id(content)}
    if file.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


def _blob_id(content: bytes) -> str:
    """Return the hash that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
