"""The machine's randomness, read in blocks."""

from leasehold_broker.adapters.system_entropy import SystemEntropy


def test_no_bytes_are_handed_out_twice():
    """Ten thousand draws of token size are all different, over many blocks."""
    entropy = SystemEntropy()

    assert len({entropy.bytes(32) for _ in range(10_000)}) == 10_000


def test_every_length_is_served():
    """Also lengths that do not divide a block, and lengths beyond one."""
    entropy = SystemEntropy()

    asked = [1, 12, 4095, 4096, 5000]

    assert asked == [len(entropy.bytes(count)) for count in asked]


def test_what_was_handed_out_is_gone_from_the_block():
    """A token's origin does not linger in memory beside the token."""
    entropy = SystemEntropy()
    taken = entropy.bytes(32)

    assert taken not in bytes(entropy._block)
