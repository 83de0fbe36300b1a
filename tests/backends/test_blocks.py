"""KV blocks: held, cached, free."""

from nginx_llm_lab.backends.llm.blocks import BlockPool


def filled(pool: BlockPool, *names: str) -> None:
    """Take a block for each name, and name it."""
    pool.take(len(names))
    for name in names:
        pool.give_name(name)


def test_released_blocks_stay_cached_until_their_memory_is_needed():
    """Two of four blocks are cached; a sequence of three evicts one of them."""
    pool = BlockPool(4)
    filled(pool, "a1", "a2")
    pool.release(["a1", "a2"], 0)

    assert (pool.available, pool.match(["a1", "a2"])) == (4, 2)

    pool.take(3)

    assert (pool.available, pool.match(["a1", "a2"]), pool.evictions) == (1, 1, 1)


def test_the_least_recently_used_goes_first_and_tails_before_heads():
    """Of two chains in four blocks the older one loses its last block first."""
    pool = BlockPool(4)
    for chain in (["a1", "a2"], ["b1", "b2"]):
        filled(pool, *chain)
        pool.release(chain, 0)

    pool.take(1)

    assert (pool.match(["a1", "a2"]), pool.match(["b1", "b2"])) == (1, 2)


def test_a_shared_block_is_free_only_after_its_last_sequence():
    """Two sequences hold one named block: one block is in use, not two."""
    pool = BlockPool(2)
    filled(pool, "a")
    pool.hold(["a"])

    assert pool.available == 1

    pool.release(["a"], 0)

    assert pool.available == 1

    pool.release(["a"], 0)

    assert pool.available == 2


def test_a_copy_of_a_known_block_is_given_back():
    """Two sequences computed the same text side by side: one block is enough."""
    pool = BlockPool(4)
    filled(pool, "a", "a")

    assert (pool.available, pool.usage) == (3, 0.25)


def test_clear_drops_cached_blocks_only():
    """The block of a running sequence stays known."""
    pool = BlockPool(4)
    filled(pool, "a", "b")
    pool.release(["b"], 0)

    pool.clear()

    assert (len(pool), pool.available) == (1, 3)


def test_a_smaller_pool_evicts_cached_blocks_first():
    """Sequences keep what they hold, even if the pool is too small for it now."""
    pool = BlockPool(4)
    filled(pool, "a", "b", "c")
    pool.release(["c"], 0)

    pool.resize(1)

    assert (len(pool), pool.available, pool.usage) == (2, -1, 1.0)
