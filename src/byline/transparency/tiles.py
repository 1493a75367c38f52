"""The log as static files: C2SP tlog-tiles. Names, widths and bytes of tiles and entry bundles.

A tile is 256 hashes of one level, every eighth level of the tree; a bundle is the data of the 256
leaves below it. What ends a tree of some size is a partial tile, named with its width.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from byline.transparency.tree import HASH_BYTES, NodeAt, nodes_over

HEIGHT = 8
WIDTH = 1 << HEIGHT
ENTRIES = "entries"  # the level of bundles
LEAF_BYTES_MAX = 65_535  # its length goes before it in two bytes
TILES_REMEMBERED = 256  # 8 KiB each, and as much for the nodes within


def tile_path(level: int | str, index: int, width: int = WIDTH) -> str:
    """Where a tile lies: `tile/0/x001/x234/067`, with `.p/<width>` behind it if it is partial."""
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03}")
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(groups)}{partial}"


def tiles_between(old: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Level, index and width of each tile that a tree of `size` has and one of `old` had not."""
    level = 0
    while size:
        for index in range(old // WIDTH, -(-size // WIDTH)):
            width = min(size - index * WIDTH, WIDTH)
            if width != min(max(old - index * WIDTH, 0), WIDTH):
                yield level, index, width
        old, size, level = old // WIDTH, size // WIDTH, level + 1


def bundle_bytes(leaves: Sequence[bytes]) -> bytes:
    """An entry bundle: each leaf's data, with its length before it."""
    return b"".join(len(leaf).to_bytes(2) + leaf for leaf in leaves)


def leaves_of(bundle: bytes) -> list[bytes]:
    """The leaves' data in a bundle. Raises ValueError where a length lies."""
    leaves, at = [], 0
    while at < len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2])
        if len(bundle) < max(end, at + 2):
            raise ValueError("the entry bundle ends within a leaf")
        leaves.append(bundle[at + 2 : end])
        at = end
    return leaves


def hashes_of(tile: bytes) -> list[bytes]:
    """The hashes in a tile."""
    return [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]


def nodes_in_tiles(size: int, read: Callable[[str], bytes | None]) -> NodeAt:
    """The tree of `size` leaves whose tiles `read` gives by their path (None: there is none).

    A partial tile may have been replaced by the full one since. Raises ValueError for a tile that
    is missing or too short.
    """

    def tile(level: int, index: int) -> bytes:
        width = min((size >> (HEIGHT * level)) - index * WIDTH, WIDTH)
        found = read(tile_path(level, index, width))
        if found is None and width < WIDTH:
            found = read(tile_path(level, index))
        if found is None or len(found) < width * HASH_BYTES:
            raise ValueError(f"the log lacks {tile_path(level, index, width)}")
        return found[: width * HASH_BYTES]

    @lru_cache(maxsize=TILES_REMEMBERED)
    def within(level: int, index: int) -> NodeAt:
        return nodes_over(hashes_of(tile(level, index)))

    def node(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, HEIGHT)
        tile_index, below = divmod(index, WIDTH >> height)
        return within(tile_level, tile_index)(height, below)

    return node
