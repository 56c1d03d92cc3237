"""A Hugging Face Hub in this process: the part of its protocol that huggingface_hub uses for models, and its failures.

`with HubServer() as hub:` serves `hub.repos`, a dict of `Repo` by id. `hub.use(monkeypatch, home)` points the library
in this process at it, `hub.environment(home)` a subprocess. Downloads and uploads go over plain HTTP (no Xet), unless
downloads are told of a store of that kind.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pt", ".png")
"""Files that the Hub's default .gitattributes keep in Git LFS, where the hash is a sha256."""

TOKEN = "hf_local"


@dataclass
class Repo:
    """A model repository: its files by path at each commit, and the commit of each branch or tag."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit(self.files)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Make `files` the whole content of a branch and return the new commit's hash."""
        sha = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[sha], self.refs[branch] = dict(files), sha
        self.files = self.commits[self.refs["main"]]
        return sha


@dataclass
class HubServer:
    """The server; its faults can be set at any time.

    status: answer every request with this code (429, 503, ...).
    drop: close the connection half-way through this many large files.
    truncate: send only this many bytes of large files, as if they were whole.
    corrupt: send other bytes of the right length for large files.
    hold: send half of each large file, and the rest when this is set; after ten seconds at the latest.
    store: the address of a Xet store, and the hash that each large file has there by its path; there it is to be had.
    requests: what was asked, as "METHOD path", with the Range header's value where there was one.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    status: int | None = None
    drop: int = 0
    truncate: int | None = None
    corrupt: bool = False
    hold: Event | None = None
    store: tuple[str, dict[str, str]] | None = None
    requests: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)

    def __enter__(self) -> "HubServer":
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: Path, **extra: str) -> dict[str, str]:
        """The variables that point huggingface_hub, imported after they are set, at this server."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **extra,
        }

    def use(self, monkeypatch, home: Path, token: str | None = None) -> None:
        """Point huggingface_hub in this process at this server, with its cache and login under `home`."""
        from huggingface_hub import constants

        values = {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_OFFLINE": False,
        }
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        if token:
            monkeypatch.setenv("HF_TOKEN", token)

    def count(self, method: str) -> int:
        """How many requests of this method have been made."""
        return Counter(request.split()[0] for request in self.requests)[method]


class Refusal(Exception):
    """An error answer: status, the Hub's error code, and a message."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Tests read `hub.requests` instead."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = self.headers.get("Range")
        self.hub.requests.append(f"{self.command} {path}" + (f" {asked}" if asked else ""))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.hub.status:
                raise Refusal(self.hub.status, "", "told to fail")
            for methods, pattern, answer in ROUTES:
                if self.command in methods and (match := re.fullmatch(pattern, path)):
                    return answer(self, **match.groupdict())
            raise Refusal(404, "", f"no route for {self.command} {path}")
        except Refusal as refusal:
            status, code, message = refusal.args
            headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
            return self.send(json.dumps({"error": message}).encode(), status, headers)

    do_HEAD = do_POST = do_PUT = do_GET

    def send(
        self, data: bytes, status: int = 200, headers: dict[str, str] | None = None, hold: Event | None = None
    ) -> None:
        self.send_response(status)
        # Closed each time, so that after `stop` no connection is left.
        headers = {"Content-Length": str(len(data)), "Connection": "close", **(headers or {})}
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with suppress(ConnectionError):  # whoever asked may have heard enough
            if hold:
                self.wfile.write(data[: len(data) // 2])
                hold.wait(10)
                data = data[len(data) // 2 :]
            self.wfile.write(data)

    def json(self, value: object) -> None:
        self.send(json.dumps(value).encode())

    @property
    def known(self) -> bool:
        """Whether the request carries the one valid token."""
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def authorize(self) -> None:
        if not self.known:
            raise Refusal(401, "", "Invalid username or password.")

    def repo(self, repo: str) -> Repo:
        found = self.hub.repos.get(repo)
        if found is None or (found.private and not self.known):  # the Hub does not tell strangers which of the two
            raise Refusal(404 if self.known else 401, "RepoNotFound", "Repository not found")
        return found

    def commit(self, repo: str, revision: str | None) -> tuple[str, dict[str, bytes]]:
        found = self.repo(repo)
        sha = found.refs.get(revision or "main", revision)
        if sha not in found.commits:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, found.commits[sha]

    # Reading ----------------------------------------------------------------------------------------------------------

    def info(self, repo: str, revision: str | None = None) -> None:
        sha, files = self.commit(repo, revision)
        siblings = []
        for path, data in sorted(files.items()):
            entry = {"rfilename": path, "size": len(data), "blobId": blob_id(data)}
            if path.endswith(LARGE):
                entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
            siblings.append(entry if "blobs=true" in self.path.lower() else {"rfilename": path})
        found = self.hub.repos[repo]
        self.json(
            {
                "_id": "0" * 24,
                "id": repo,
                "modelId": repo,
                "sha": sha,
                "private": found.private,
                "gated": "auto" if found.gated else False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": siblings,
            }
        )

    def tree(self, repo: str, revision: str) -> None:
        self.json([entry(path, data) for path, data in sorted(self.commit(repo, revision)[1].items())])

    def resolve(self, repo: str, revision: str, path: str) -> None:
        sha, files = self.commit(repo, revision)
        if self.hub.repos[repo].gated and not self.known:
            raise Refusal(401, "GatedRepo", f"Access to model {repo} is restricted.")
        if path not in files:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        data, headers = files[path], {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if not path.endswith(LARGE):
            return self.send(data, headers={**headers, "ETag": f'"{blob_id(data)}"'})
        digest = sha256(data)
        self.hub.objects[digest] = data
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
        # A second host name, as the Hub's content network has: the library must not send it the token.
        location = f"http://localhost:{self.server.server_port}/objects/{digest}"
        if self.hub.store:
            linked |= {"X-Xet-Hash": self.hub.store[1][path], "X-Xet-Refresh-Route": f"{self.hub.url}/api/token"}
        return self.send(b"", 302, {**headers, **linked, "ETag": f'"{digest}"', "Location": location})

    def xet_token(self) -> None:
        names = {
            "X-Xet-Cas-Url": self.hub.store[0],
            "X-Xet-Access-Token": "xet",
            "X-Xet-Token-Expiration": "9999999999",
        }
        self.send(b"{}", headers=names)

    def download(self, digest: str) -> None:
        data, status, headers = self.hub.objects[digest], 200, {"ETag": f'"{digest}"'}
        if self.hub.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if self.hub.truncate is not None:
            data = data[: self.hub.truncate]
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, total = int(asked[1]), len(data)
            data, status = data[start:], 206
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        if self.hub.drop > 0:
            self.hub.drop -= 1
            headers["Content-Length"], data = str(len(data)), data[: len(data) // 2]
        self.send(data, status, headers, self.hub.hold)

    # Writing ----------------------------------------------------------------------------------------------------------

    def whoami(self) -> None:
        self.authorize()
        self.json({"type": "user", "name": "owner", "orgs": [], "auth": {"type": "access_token"}})

    def create(self) -> None:
        self.authorize()
        asked = json.loads(self.body)
        repo = f"{asked.get('organization') or 'owner'}/{asked['name']}"
        if repo in self.hub.repos:
            error = {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"}
            return self.send(json.dumps(error).encode(), 409)
        self.hub.repos[repo] = Repo(private=bool(asked.get("private")) or asked.get("visibility") == "private")
        return self.json({"url": f"{self.hub.url}/{repo}", "name": repo, "id": "0" * 24})

    def validate_yaml(self) -> None:
        self.json({"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        self.authorize()
        files = self.commit(repo, revision)[1]
        modes = []
        for file in json.loads(self.body)["files"]:
            large, present = file["path"].endswith(LARGE), files.get(file["path"])
            oid = None if present is None else (sha256 if large else blob_id)(present)
            mode = "lfs" if large else "regular"
            modes.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.json({"files": modes})

    def batch(self, repo: str) -> None:
        self.authorize()
        self.repo(repo)
        objects = []
        for item in json.loads(self.body)["objects"]:
            upload = {"href": f"{self.hub.url}/objects/{item['oid']}", "header": {}}
            objects.append({**item, **({} if item["oid"] in self.hub.objects else {"actions": {"upload": upload}})})
        self.json({"transfer": "basic", "objects": objects})

    def upload(self, digest: str) -> None:
        if sha256(self.body) != digest:
            raise Refusal(400, "", "The content does not match its sha256.")
        self.hub.objects[digest] = self.body
        self.send(b"")

    def push(self, repo: str, revision: str) -> None:
        self.authorize()
        files = dict(self.commit(repo, revision)[1])
        for line in self.body.splitlines():
            key, value = (operation := json.loads(line))["key"], operation["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        sha = self.hub.repos[repo].commit(files, revision)
        self.json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{sha}"})


def sha256(data: bytes) -> str:
    """Git LFS's name for a file."""
    return hashlib.sha256(data).hexdigest()


def blob_id(data: bytes) -> str:
    """Git's name for a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def entry(path: str, data: bytes) -> dict[str, object]:
    """A file in a tree listing."""
    large = {"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 134}} if path.endswith(LARGE) else {}
    return {"type": "file", "path": path, "size": len(data), "oid": blob_id(data), **large}


REPO = r"(?P<repo>[^/]+/[^/]+)"
ROUTES = (
    (("GET",), f"/api/models/{REPO}", _Handler.info),
    (("GET",), f"/api/models/{REPO}/revision/(?P<revision>.+)", _Handler.info),
    (("GET",), f"/api/models/{REPO}/tree/(?P<revision>[^/]+)", _Handler.tree),
    (("GET", "HEAD"), f"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    (("GET", "HEAD"), r"/objects/(?P<digest>\w+)", _Handler.download),
    (("GET",), "/api/token", _Handler.xet_token),
    (("GET",), "/api/whoami-v2", _Handler.whoami),
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", _Handler.validate_yaml),
    (("POST",), f"/api/models/{REPO}/preupload/(?P<revision>.+)", _Handler.preupload),
    (("POST",), f"/{REPO}\\.git/info/lfs/objects/batch", _Handler.batch),
    (("PUT",), r"/objects/(?P<digest>\w+)", _Handler.upload),
    (("POST",), f"/api/models/{REPO}/commit/(?P<revision>.+)", _Handler.push),
)
