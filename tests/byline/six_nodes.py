"""A cluster of six real servers, three primaries with a replica each, formed by its own commands.

As it should run with money in it: what is left of the cluster goes on when a primary is lost, and
a replica takes over within some seconds.
"""

import asyncio
import random
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from byline.posting.redis_client import Client, connect
from byline.redis_server import RedisServer, stop

PRIMARIES = 3
SLOTS = 16_384
PORTS = range(11_000, 20_000)
BUS = 10_000  # a node's own conversation is this many ports above its clients'
NODE_TIMEOUT_MS = 1_000
FORM_SECONDS_MAX = 30.0


@dataclass(slots=True)
class Node:
    """One server of the cluster, and its process while it runs."""

    server: RedisServer
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Start it again on what it had on its disk."""
        self.process = self.server.start()


@dataclass(slots=True)
class Cluster:
    """The running nodes: three primaries, then their replicas in the same order."""

    nodes: list[Node] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"cluster://{','.join(node.address for node in self.nodes)}/"

    def node_at(self, url: str) -> Node:
        """The node that listens at this `redis://` address."""
        return next(node for node in self.nodes if node.address in url)

    def replica_of(self, primary: Node) -> Node:
        """The replica that was given to this primary when the cluster was formed."""
        return self.nodes[self.nodes.index(primary) + PRIMARIES]


def cluster_ports(count: int) -> list[int]:
    """Ports below 20,000 that are free, and free again for the nodes' own conversation.

    Chosen by chance: a node that was killed must find its port free although other tests run.
    """
    tried = random.sample(PORTS, len(PORTS))
    found = [port for port in tried[:100] if is_free(port) and is_free(port + BUS)]
    assert len(found) >= count, "no free ports for a cluster"
    return found[:count]


def is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def node_server(folder: Path, port: int) -> RedisServer:
    settings = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": str(NODE_TIMEOUT_MS),
        "cluster-require-full-coverage": "no",  # the other primaries' ledgers go on
        "repl-diskless-sync-delay": "0",
    }
    return RedisServer(folder, port=port, maxmemory="200mb", settings=settings)


@asynccontextmanager
async def six_nodes(folder: Path) -> AsyncIterator[Cluster]:
    """A formed cluster that runs as long as the block."""
    cluster = Cluster()
    try:
        for port in cluster_ports(2 * PRIMARIES):
            server = node_server(folder / str(port), port)
            cluster.nodes.append(Node(server, server.start()))
        await _form(cluster.nodes)
        yield cluster
    finally:
        for node in cluster.nodes:
            stop(node.process)


async def _form(nodes: list[Node]) -> None:
    clients = [connect(node.server.url) for node in nodes]
    try:
        for number, client in enumerate(clients):
            await client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for number, client in enumerate(clients[:PRIMARIES]):
            first, end = (SLOTS * edge // PRIMARIES for edge in (number, number + 1))
            await client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
        for node in nodes[1:]:
            await clients[0].execute_command("CLUSTER MEET", "127.0.0.1", node.server.port)
        for client in clients:
            await until(partial(_knows, client, len(nodes)))
        for primary, replica in zip(clients[:PRIMARIES], clients[PRIMARIES:], strict=True):
            name = await primary.execute_command("CLUSTER MYID")
            await replica.execute_command("CLUSTER REPLICATE", name)
        for replica in clients[PRIMARIES:]:
            await until(partial(_follows, replica))
        for client in clients:
            await until(partial(_is_ok, client))
    finally:
        for client in clients:
            await client.aclose()


async def _knows(client: Client, count: int) -> bool:
    info = await client.execute_command("CLUSTER INFO")
    nodes = await client.execute_command("CLUSTER NODES")
    return int(info["cluster_known_nodes"]) == count and not any(
        "handshake" in node["flags"] for node in nodes.values()
    )


async def _follows(client: Client) -> bool:
    link: str | None = (await client.info("replication")).get("master_link_status")
    return link == "up"


async def _is_ok(client: Client) -> bool:
    state: str = (await client.execute_command("CLUSTER INFO"))["cluster_state"]
    return state == "ok"


async def until(
    claim: Callable[[], Awaitable[bool]], *, seconds_max: float = FORM_SECONDS_MAX
) -> None:
    """Wait until the claim is true; a test that waits in vain fails."""
    async with asyncio.timeout(seconds_max):
        while not await claim():
            await asyncio.sleep(0.02)
