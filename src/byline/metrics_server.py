"""The port on which a program without HTTP of its own shows /metrics and /healthz."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """A scrape is no news."""


@contextlib.contextmanager
def metrics_server(
    registry: CollectorRegistry,
    host: str,
    port: int,
    *,
    problem: Callable[[], str | None] = lambda: None,
) -> Iterator[int]:
    """Serve from a thread until the block ends; gives the port.

    `/healthz` answers 200, or 503 with the text of `problem` while there is one.
    """
    show: WSGIApplication = make_wsgi_app(registry)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            return show(environ, start_response)
        status, body = "404 Not Found", "not found"
        if environ["PATH_INFO"] == "/healthz":
            found = problem()
            status, body = ("200 OK", "ok") if found is None else ("503 Service Unavailable", found)
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{body}\n".encode()]

    with make_server(host, port, answer, handler_class=_QuietHandler) as server:
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
