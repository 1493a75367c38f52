"""The witness's program: `POST /add-checkpoint`, and `/healthz`; HTTP of the standard library.

Prints its vkey at the start: that is what goes into others' policies.
"""

import logging
import signal
import sys
import threading
import time
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from byline.errors import BylineError, StartFailed
from byline.notary.log_keys import witness_key
from byline.program import settings_of
from byline.transparency.policies import parse_policy
from byline.transparency.witnessing import SIZE_TYPE
from byline.witness.settings import WitnessSettings
from byline.witness.witness import Answer, Witness

log = logging.getLogger("byline.witness")

BODY_BYTES_MAX = 65_536
IDLE_SECONDS = 30.0


class Handler(BaseHTTPRequestHandler):
    """One connection to the witness."""

    protocol_version = "HTTP/1.1"  # connections are kept: a log comes back every second
    timeout = IDLE_SECONDS

    def __init__(self, witness: Witness, *connection: object) -> None:
        self._witness = witness
        super().__init__(*connection)  # type: ignore[arg-type]

    def do_POST(self) -> None:
        """`add-checkpoint`, and nothing else."""
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > BODY_BYTES_MAX:
            self.close_connection = True
            self._say(Answer(HTTPStatus.BAD_REQUEST, "the body's length is missing or too large"))
            return
        body = self.rfile.read(int(size))
        if self.path != "/add-checkpoint":
            self._say(Answer(HTTPStatus.NOT_FOUND, "there is only /add-checkpoint"))
            return
        text = body.decode(errors="replace")
        answer = self._witness.add_checkpoint(text, time_seconds=int(time.time()))
        if answer.status != HTTPStatus.OK:
            log.warning("not cosigned: %s %s", answer.status.value, answer.text.strip())
        self._say(answer)

    def do_GET(self) -> None:
        """`/healthz`."""
        alive = self.path == "/healthz"
        self._say(Answer(HTTPStatus.OK, "ok") if alive else Answer(HTTPStatus.NOT_FOUND, "no"))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """A cosigned head is no news."""

    def _say(self, answer: Answer) -> None:
        text = answer.text.removesuffix("\n") + "\n"
        kind = SIZE_TYPE if answer.is_size else "text/plain; charset=utf-8"
        body = text.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def witness_of(settings: WitnessSettings) -> Witness:
    """The witness that the settings ask for. Raises StartFailed, ProofRefused."""
    try:
        policy = parse_policy(settings.policy.read_text())
    except OSError as problem:
        raise StartFailed(f"the policy file {settings.policy}: {problem.strerror}") from problem
    if not policy.logs:
        raise StartFailed(f"the policy file {settings.policy} names no log to witness")
    key = witness_key(settings.folder, settings.name)
    log.info("witness %s", key.verifier.text())
    return Witness(key, policy.logs, settings.folder)


def serve(settings: WitnessSettings) -> None:
    """Answer until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    handler = partial(Handler, witness_of(settings))
    with ThreadingHTTPServer((settings.host, settings.port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="witness", daemon=True)
        thread.start()
        stop.wait()
        server.shutdown()
        thread.join()


def main() -> None:
    """The program."""
    settings = settings_of("witness", WitnessSettings)
    try:
        serve(settings)
    except BylineError as problem:
        sys.exit(f"the witness: {problem}")
    except OSError as problem:
        sys.exit(f"the witness: {settings.host}:{settings.port}: {problem.strerror}")


if __name__ == "__main__":
    main()
