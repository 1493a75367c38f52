"""Ports for one test's programs."""

import socket


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def free_ports(count: int) -> int:
    """The first of so many consecutive free loopback ports."""
    for first in range(18_000, 19_800, 7):
        try:
            probes = [socket.create_server(("127.0.0.1", first + each)) for each in range(count)]
        except OSError:
            continue
        for probe in probes:
            probe.close()
        return first
    raise RuntimeError(f"no {count} consecutive free ports")
