"""A server on this machine that answers as the Hugging Face hub does where a file is fetched."""

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest

COMMIT = "5" * 40
_PLACE = re.compile(r"/spaces/Cidaut/DeMoE/resolve/(main|[0-9a-f]{40})/DeMoE\.pt")

_MODEL = re.compile(r"/([^/]+/[^/]+)/resolve/(main|[0-9a-f]{40})/([^/]+)")


@dataclass
class Hub:
    """How the server behaves, and what it was asked."""

    body: bytes
    url: str = ""
    commit: str | None = COMMIT
    etag: str | None = None  # in place of the SHA-256 of the body
    ranges: bool = True  # whether it understands Range
    statuses: dict[str, int] = field(default_factory=dict)  # by method, where it is not 200
    end: int | None = None  # bytes of the file that it can send before the connection breaks
    breaks: int = 10**9  # how many connections break, if `end` is set
    models: dict[str, bytes] = field(default_factory=dict)  # further files, OWNER/NAME/FILE
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        """HEAD and GET, in the order in which they came."""
        return [method for method, _, _ in self.asked]


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        rest, hub = self._answer(), self.server.hub
        if rest and hub.end is not None and hub.breaks:
            hub.breaks -= 1
            rest = rest[: max(0, hub.end - (len(hub.body) - len(rest)))]
        with contextlib.suppress(ConnectionError):  # the client may stop first
            self.wfile.write(rest)

    def _answer(self) -> bytes:
        """Send the headers, and return what has to follow on GET."""
        hub: Hub = self.server.hub
        wanted = self.headers["Range"]
        hub.asked.append((self.command, self.path, wanted))
        if token := self.headers["Authorization"]:
            hub.tokens.append(token)
        body = hub.body if _PLACE.fullmatch(self.path) else None
        if found := _MODEL.fullmatch(self.path):
            body = hub.models.get(f"{found[1]}/{found[3]}")
        if status := hub.statuses.get(self.command, 404 if body is None else 0):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return b""
        assert body is not None
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and hub.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            whole = len(body)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", f'"{hub.etag or hashlib.sha256(body).hexdigest()}"')
        # The file is offered by Xet, too, as it is on the hub.
        self.send_header("X-Xet-Hash", "6" * 64)
        self.send_header("X-Xet-Refresh-Route", f"{hub.url}/api/spaces/Cidaut/DeMoE/xet")
        if hub.commit:
            self.send_header("X-Repo-Commit", hub.commit)
        self.end_headers()
        return body[start:]

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def serving(body: bytes) -> Iterator[Hub]:
    """Serve a body as the file DeMoE.pt of the space Cidaut/DeMoE."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = Hub(body, f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.hub
    finally:
        huggingface_hub.close_session()
        server.shutdown()
        server.server_close()
        thread.join()


def go_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make huggingface_hub ask this address, as HF_ENDPOINT would if set before it was imported."""
    constants = huggingface_hub.constants
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # With telemetry, it once a day asks for the names of programs that might have started it.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    huggingface_hub.close_session()  # the next one heeds NO_PROXY
