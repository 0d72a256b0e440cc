"""Servers that speak in a gateway's place."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def impostor(status: HTTPStatus, body: bytes, *, packed: str = "") -> Iterator[str]:
    """Start one that gives the same answer to everything; give its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            if packed:
                self.send_header("content-encoding", packed)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 (the same)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
