"""A host for tests of downloads: a local HTTP server in a thread, which serves files in good ways and bad."""

from __future__ import annotations

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


class Host:
    """files: {path: bytes}. how: {path: what is done with it} (default: served, ranges too). asked: (path, Range).
    headers: those of the last request."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.how: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.headers: dict[str, str] = {}

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ranges(self, path: str) -> list[str | None]:
        return [range_ for asked, range_ in self.asked if asked == path]


def answer(handler: BaseHTTPRequestHandler, host: Host) -> None:
    """One answer, as `host.how` has it for the path."""
    path, range_ = handler.path, handler.headers.get("Range")
    host.asked.append((path, range_))
    host.headers = dict(handler.headers)
    how, body = host.how.get(path, "fine"), host.files.get(path, b"")
    first = int(range_[6:-1]) if range_ and how not in ("no ranges", "other range") else 0
    if how in ("404", "403", "406", "500"):
        return handler.send_error(int(how))
    if how == "login":
        handler.send_response(302)
        handler.send_header("Location", "/login")
        handler.end_headers()
        return None
    if path == "/login" or how in ("page", "page as bytes"):
        body, first = PAGE, 0
    if first and first >= len(body):
        return handler.send_error(416)
    part = b"" if how == "empty" else body[first:]
    handler.send_response(206 if first or how == "other range" else 200)
    kind = "text/html" if how == "page" or path == "/login" else "application/octet-stream"
    handler.send_header("Content-Type", kind)
    if first or how == "other range":
        handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
    if how != "endless" and how != "no length":
        handler.send_header("Content-Length", str(len(part)))
    handler.end_headers()
    if how == "endless":
        with contextlib.suppress(OSError):  # until nobody listens; a reader without a bound must not fill the disk
            for _ in range(100):
                handler.wfile.write(bytes(1 << 16))
        return None
    if how == "cut" or how == "cut once" and len(host.ranges(path)) == 1:
        part = part[: len(part) // 2]
    if how == "silent":
        return None
    if how == "stalls":
        time.sleep(3)
    handler.wfile.write(part)
    return None


@contextlib.contextmanager
def running():
    """A Host that answers while the block runs."""
    host = Host()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            with contextlib.suppress(ConnectionError):
                answer(self, host)
            self.close_connection = True

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    host.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
