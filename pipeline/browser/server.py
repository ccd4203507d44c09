"""A server of the page's files on the loopback interface."""

import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from pipeline.browser.site import POLICY, Content
from pipeline.errors import InputError, reason

HOST = "127.0.0.1"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".txt": "text/plain; charset=utf-8",
}
"""MIME types, which every server of the files must send: browsers refuse modules of another."""
HEADERS = {
    # frame-ancestors has no effect in the page's own <meta>.
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}


class Server(ThreadingHTTPServer):
    """Serves `files`, by their names, to programs of this computer. Raises InputError."""

    daemon_threads = True

    def __init__(self, files: Mapping[str, Content], port: int) -> None:
        self.files = files
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise InputError(f"port {port} can't be used ({reason(error)}); give --port") from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away while it is sent a file is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    """Answers GET, for the names of the files and nothing else; other methods get status 501."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        # A page of another site may let its own name point here (DNS rebinding).
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            return self._refuse(HTTPStatus.FORBIDDEN)
        name = unquote(self.path.partition("?")[0]).removeprefix("/") or "index.html"
        content = self.server.files.get(name)
        if content is None:
            return self._refuse(HTTPStatus.NOT_FOUND)
        data = content if isinstance(content, bytes) else content.read_bytes()
        return self._send(HTTPStatus.OK, data, TYPES[PurePosixPath(name).suffix])

    def _refuse(self, status: HTTPStatus) -> None:
        self._send(status, status.phrase.encode(), TYPES[".txt"])

    def _send(self, status: HTTPStatus, data: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Requests are not printed."""
