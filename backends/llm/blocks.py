"""KV blocks: held by running sequences, cached for their prefix, or free."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

BLOCK_TOKENS = 16


class BlockPool:
    """`size` blocks of 16 tokens: held by sequences, cached for their prefix, or free.

    A full block has a name. Sequences with equal prefixes hold the same named blocks. A named block
    that no sequence holds stays in the prefix cache until its memory is needed. The least recently
    used block is evicted first, and of one sequence the last block before the first. Source: vLLM's
    design document "Automatic Prefix Caching" (`BlockPool`, `free_block_queue`). Two differences:
    free blocks without a name are always taken before cached ones, and a sequence that fills a
    block whose name is known gives its copy back (vLLM keeps the copy until the sequence ends).
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.evictions = 0
        self._free = size
        self._held: dict[Hashable, int] = {}
        self._cached: OrderedDict[Hashable, None] = OrderedDict()

    def __len__(self) -> int:
        """Count the named blocks, which a prompt may match."""
        return len(self._held) + len(self._cached)

    @property
    def available(self) -> int:
        """Blocks that can be taken; negative after a resize below what sequences hold."""
        return self._free + len(self._cached)

    @property
    def usage(self) -> float:
        """The share of the blocks that sequences hold, 0 to 1."""
        return min(1.0, max(0.0, 1.0 - self.available / self.size))

    def match(self, names: Sequence[Hashable]) -> int:
        """Count the leading blocks that are in the pool."""
        for hits, name in enumerate(names):
            if name not in self._held and name not in self._cached:
                return hits
        return len(names)

    def count_cached(self, names: Sequence[Hashable]) -> int:
        """Count the cached blocks that no sequence uses."""
        return sum(name in self._cached for name in names)

    def hold(self, names: Sequence[Hashable]) -> None:
        """Hold blocks that `match` counted."""
        for name in names:
            self._held[name] = self._held.get(name, 0) + 1
            self._cached.pop(name, None)

    def take(self, count: int) -> None:
        """Take blocks without a name; cached blocks are evicted when no free one is left."""
        self._free -= count
        self._evict()

    def give_name(self, name: Hashable) -> None:
        """Name a held block that is full now."""
        if name in self._held:
            self._held[name] += 1
            self._free += 1
        elif name in self._cached:
            del self._cached[name]
            self._held[name] = 1
            self._free += 1
        else:
            self._held[name] = 1

    def release(self, names: Sequence[Hashable], unnamed: int) -> None:
        """Release a sequence's blocks: its named ones, in order, and a number of unnamed ones."""
        self._free += unnamed
        for name in reversed(names):
            holders = self._held[name] - 1
            if holders:
                self._held[name] = holders
            else:
                del self._held[name]
                self._cached[name] = None
        self._evict()

    def clear(self) -> None:
        """Drop every cached block that no sequence uses, as vLLM's reset_prefix_cache does."""
        self._free += len(self._cached)
        self._cached.clear()

    def resize(self, size: int) -> None:
        """Set the number of blocks; blocks held by sequences stay held."""
        self._free += size - self.size
        self.size = size
        self._evict()

    def _evict(self) -> None:
        while self._free < 0 and self._cached:
            self._cached.popitem(last=False)
            self._free += 1
            self.evictions += 1
