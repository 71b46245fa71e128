"""Servers on this machine that stand in for a package index and for the Hugging Face Hub."""

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serve(answer):
    """Serve `answer(handler, path)` for GET and HEAD on a free port of this machine; yields the address."""

    # HTTP/1.0, BaseHTTPRequestHandler's default: no connection outlives the server.
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            with contextlib.suppress(ConnectionError):  # the client was killed, as some tests want
                answer(self, unquote(urlparse(self.path).path))

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.ended = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def reply(handler, status, body=b"", **headers):
    handler.send_response(status)
    headers = {"Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(body)


def package_index(wheels, deliver):
    """A simple package index (PEP 503) of the wheels in the folder `wheels`. `deliver(handler, body)` sends a
    wheel's bytes: cut short, altered or never all of them, as a test wants it."""

    def answer(handler, path):
        kind, name = path.strip("/").split("/", 1)
        if kind == "simple":
            files = [w.name for w in Path(wheels).glob("*.whl") if w.name.startswith(name.replace("-", "_"))]
            links = "".join(f'<a href="/files/{file}">{file}</a>' for file in files)
            reply(
                handler, 200 if files else 404, f"<!DOCTYPE html>{links}".encode(), Content_Type="text/html"
            )
        else:
            deliver(handler, (Path(wheels) / name).read_bytes())

    return serve(answer)


def stalling(handler, body):
    """Promise all the bytes, deliver a quarter and then nothing more for as long as the server stands."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 4])
    handler.server.ended.wait()


def cut_short(handler, body):
    """Promise all the bytes, deliver half and hang up."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])


def altered(handler, body):
    """Deliver as many bytes as promised, one of them another."""
    reply(handler, 200, body[:1000] + bytes([body[1000] ^ 1]) + body[1001:])


def hub(repositories, gated, asked):
    """The part of the Hub's protocol that downloads use. `repositories` maps a name to a folder of files;
    names in `gated` ask for permission; the paths of all requests are appended to `asked`."""

    def answer(handler, path):
        asked.append(path)
        name, rest = _split(path, [*repositories, *gated])
        if name is None:
            return reply(
                handler, 404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found"
            )
        if name in gated:
            return reply(
                handler, 403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="Access is restricted"
            )
        files = {file.name: file for file in sorted(Path(repositories[name]).iterdir())}
        if rest.startswith("revision/"):
            info = {"id": name, "sha": _COMMIT, "siblings": [{"rfilename": file} for file in files]}
            return reply(handler, 200, json.dumps(info).encode(), Content_Type="application/json")
        if rest.startswith("tree/"):
            tree = [
                {"type": "file", "path": file, "size": place.stat().st_size, "oid": _etag(place)}
                for file, place in files.items()
            ]
            return reply(handler, 200, json.dumps(tree).encode(), Content_Type="application/json")
        file = rest.rpartition("/")[2]
        if file not in files:
            return reply(handler, 404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        return reply(
            handler, 200, files[file].read_bytes(), X_Repo_Commit=_COMMIT, ETag=f'"{_etag(files[file])}"'
        )

    return serve(answer)


def _split(path, names):
    path = path.removeprefix("/api/models").strip("/")
    for name in names:
        if path == name or path.startswith(name + "/"):
            return name, path.removeprefix(name).strip("/")
    return None, path


def _etag(file):
    return hashlib.sha1(file.read_bytes()).hexdigest()
