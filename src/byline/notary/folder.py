"""The published folder: tiles, bundles and the tree head, each file whole or not there.

A file is written aside, synced and renamed. The head goes last: a reader who has it finds every
tile that it needs.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from byline.errors import LogMismatch
from byline.transparency.heads import TreeHead, parse_head
from byline.transparency.tiles import (
    ENTRIES,
    WIDTH,
    bundle_bytes,
    hashes_of,
    nodes_in_tiles,
    tile_path,
    tiles_between,
)
from byline.transparency.tree import (
    EMPTY_ROOT,
    HASH_BYTES,
    NodeAt,
    consistency,
    is_consistent,
    leaf_hash,
    nodes_over,
    root_of,
)

CHECKPOINT = "checkpoint"
KEYS = "key.vkey"
RECEIPT_KEYS = "receipts.vkey"


class LogFolder:
    """One log's static files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes | None:
        """A file's bytes; None if there is none."""
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def checkpoint(self) -> str | None:
        """The published tree head, if there is one."""
        found = self.read(CHECKPOINT)
        return None if found is None else found.decode()

    def head(self, origin: str) -> TreeHead:
        """The published head, or the empty log's. LogMismatch if it is another log's."""
        checkpoint = self.checkpoint()
        if checkpoint is None:
            return TreeHead(origin, 0, EMPTY_ROOT)
        head, _ = parse_head(checkpoint)
        if head.origin != origin:
            raise LogMismatch(f"the log published in {self.root} is '{head.origin}'")
        return head

    def nodes(self, size: int) -> NodeAt:
        """The tree of this size, out of the tiles."""
        return nodes_in_tiles(size, self.read)

    def write(self, path: str, data: bytes) -> None:
        """Write a file aside, sync it, rename it into place."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.aside")
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(target)

    def write_bundle(self, index: int, leaves: list[bytes]) -> None:
        """Write the entry bundle of these leaves, and the tile of their hashes."""
        self.write(tile_path(ENTRIES, index, len(leaves)), bundle_bytes(leaves))
        tile = b"".join(map(leaf_hash, leaves))
        self.write(tile_path(0, index, len(leaves)), tile)

    def write_upper_tiles(self, old: int, size: int) -> None:
        """Write the tiles above the lowest that a tree of `size` has and one of `old` had not."""
        for level, index, width in tiles_between(old, size):
            if level:
                first = index * WIDTH
                tile = b"".join(self._root_of_tile(level - 1, first + at) for at in range(width))
                self.write(tile_path(level, index, width), tile)

    def head_of(self, old: TreeHead, size: int) -> TreeHead:
        """The head over `size` leaves, as the tiles give it. LogMismatch if it forks from `old`.

        A tile that was damaged on the disk would otherwise be signed.
        """
        try:
            node = self.nodes(size)
            root, path = root_of(size, node), consistency(old.size, size, node)
        except (ValueError, IndexError) as problem:
            raise LogMismatch(f"the log in {self.root} is damaged: {problem}") from problem
        if not is_consistent(old.size, size, old.root, root, path):
            raise LogMismatch(
                f"the tiles in {self.root} don't continue the published head of {old.size}: "
                "nothing is signed. Move all its files but `checkpoint` aside: they are made again"
            )
        return TreeHead(old.origin, size, root)

    def has_tiles(self, size: int) -> bool:
        """Are the tiles there that a tree of this size is proven and continued by?"""
        try:
            root_of(size, self.nodes(size))
        except (ValueError, IndexError):
            return False
        return True

    def sync_folders(self, old: int, size: int) -> None:
        """Make the names of new files durable: the head must not outlive a tile."""
        new = [tile_path(*tile) for tile in tiles_between(old, size)]
        bundles = [tile_path(ENTRIES, index, w) for level, index, w in tiles_between(old, size)
                   if level == 0]  # fmt: skip
        folders = {folder for path in new + bundles for folder in (self.root / path).parents}
        for folder in {each for each in folders if each.is_relative_to(self.root)}:
            _sync(folder)

    def publish(self, checkpoint: str) -> None:
        """Replace the tree head."""
        self.write(CHECKPOINT, checkpoint.encode())
        _sync(self.root)

    def publish_keys(self, vkeys: Iterable[str], name: str = KEYS) -> None:
        """Write public keys, the newest last, unless they are there."""
        text = "".join(f"{vkey}\n" for vkey in vkeys).encode()
        if self.read(name) != text:
            self.write(name, text)

    def drop_partial(self, old: int, size: int) -> None:
        """Delete partial tiles whose full one is published: it answers for them."""
        for level, index, _ in list(tiles_between(old, size)):
            count = size >> (8 * level)
            for each in (index, index - 1):
                if 0 <= each < count // WIDTH:
                    self._drop(level, each)

    def _drop(self, level: int, index: int) -> None:
        for name in (level, ENTRIES) if level == 0 else (level,):
            partial = self.root / f"{tile_path(name, index)}.p"
            if partial.exists():
                shutil.rmtree(partial)

    def _root_of_tile(self, level: int, index: int) -> bytes:
        tile = self.read(tile_path(level, index))
        if tile is None or len(tile) != WIDTH * HASH_BYTES:
            raise LogMismatch(f"the log in {self.root} lacks {tile_path(level, index)}")
        return root_of(WIDTH, nodes_over(hashes_of(tile)))


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
