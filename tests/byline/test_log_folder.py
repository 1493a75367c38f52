"""The published folder: whole at every head, over tile boundaries, at whatever steps it grows."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from byline.errors import LogMismatch
from byline.notary.folder import CHECKPOINT, LogFolder
from byline.transparency.heads import TreeHead, parse_head, signed_head
from byline.transparency.notes import SIGNATURE, SigningKey
from byline.transparency.tiles import (
    ENTRIES,
    WIDTH,
    leaves_of,
    nodes_in_tiles,
    tile_path,
    tiles_between,
)
from byline.transparency.tree import inclusion, is_included, leaf_hash, nodes_over, root_of

KEY = SigningKey("log.example", SIGNATURE, b"k" * 32)
LEAVES = [str(n).encode() for n in range(66_000)]
MEMORY = nodes_over([leaf_hash(leaf) for leaf in LEAVES])


def grow(folder: LogFolder, old: TreeHead, size: int) -> TreeHead:
    for index in range(old.size // WIDTH, -(-size // WIDTH)):
        folder.write_bundle(index, LEAVES[index * WIDTH : min((index + 1) * WIDTH, size)])
    folder.write_upper_tiles(old.size, size)
    folder.sync_folders(old.size, size)
    head = folder.head_of(old, size)
    folder.publish(signed_head(head, [KEY]))
    folder.drop_partial(old.size, size)
    return head


def test_a_log_that_grows_over_every_boundary_is_whole_at_each_head(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path)
    head = folder.head(KEY.name)
    for size in (1, 200, 255, 256, 257, 700, 1_024, 65_535, 65_536, 66_000):
        head = grow(folder, head, size)
        assert head == folder.head(KEY.name) == TreeHead(KEY.name, size, root_of(size, MEMORY))
        for level, index, width in tiles_between(0, size):
            assert folder.read(tile_path(level, index, width)) is not None
        for index in {0, size // 2, size - 1}:
            path = inclusion(index, size, folder.nodes(size))
            assert is_included(leaf_hash(LEAVES[index]), index, size, path, head.root)
    assert leaves_of(folder.read(tile_path(ENTRIES, 255)) or b"") == LEAVES[255 * WIDTH : 65_536]


def test_any_web_server_serves_it(tmp_path: Path) -> None:
    """Head and tiles as static files, of which a reader proves a leaf: no program of ours."""
    head = grow(LogFolder(tmp_path), LogFolder(tmp_path).head(KEY.name), 700)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()

        def read(path: str) -> bytes | None:
            try:
                with urlopen(f"http://127.0.0.1:{server.server_port}/{path}", timeout=5) as answer:
                    return bytes(answer.read())
            except HTTPError as missing:
                missing.close()
                return None

        assert parse_head((read(CHECKPOINT) or b"").decode())[0] == head
        path = inclusion(300, head.size, nodes_in_tiles(head.size, read))
        leaf = leaves_of(read(tile_path(ENTRIES, 1)) or b"")[300 - WIDTH]
        server.shutdown()
    assert is_included(leaf_hash(leaf), 300, head.size, path, head.root)


def test_partial_tiles_are_kept_until_the_full_one_answers_for_them(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path)
    head = grow(folder, folder.head(KEY.name), 200)
    head = grow(folder, head, 250)
    names = [tile_path(level, 0, width) for level in (0, ENTRIES) for width in (200, 250)]
    assert all(folder.read(name) for name in names)
    grow(folder, head, 300)
    assert not any(folder.read(name) for name in names)
    assert not [
        path for path in tmp_path.rglob("*.p") if path.name == "000.p" and "0" in path.parts
    ]


@pytest.mark.parametrize("path", [tile_path(0, 0), tile_path(0, 1)])
def test_no_head_is_made_of_a_damaged_tile(tmp_path: Path, path: str) -> None:
    folder = LogFolder(tmp_path)
    head = grow(folder, folder.head(KEY.name), 800)
    tile = folder.read(path)
    assert tile is not None
    for damaged in (bytes([tile[0] ^ 1]) + tile[1:], tile[:-1], None):
        if damaged is None:
            (tmp_path / path).unlink()
        else:
            folder.write(path, damaged)
        with pytest.raises(LogMismatch):
            grow(folder, head, 1_100)
    assert folder.head(KEY.name) == head


def test_the_folder_of_another_log_is_not_continued(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path)
    grow(folder, folder.head(KEY.name), 3)
    with pytest.raises(LogMismatch, match=r"is .log\.example."):
        folder.head("other.example")
