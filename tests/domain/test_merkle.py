"""The Merkle tree, by RFC 6962's own published values, a naive reading of its text, and the client's own code."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold import merkle as client
from leasehold_broker.domain.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    peaks,
    root_of,
)

# The reference data of the certificate-transparency project for RFC 6962: eight entries, and the root after each.
ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SIZE = 1100
LEAVES = [leaf_hash(number.to_bytes(2, "big")) for number in range(SIZE)]


def naive_root(leaves):
    """MTH of RFC 6962, 2.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def naive_path(index, leaves):
    """PATH of RFC 6962, 2.1.1, word for word."""
    if len(leaves) <= 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*naive_path(index, leaves[:split]), naive_root(leaves[split:])]
    return [*naive_path(index - split, leaves[split:]), naive_root(leaves[:split])]


def naive_subproof(old, leaves, *, whole):
    """SUBPROOF of RFC 6962, 2.1.2, word for word."""
    if old == len(leaves):
        return [] if whole else [naive_root(leaves)]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if old <= split:
        return [*naive_subproof(old, leaves[:split], whole=whole), naive_root(leaves[split:])]
    return [*naive_subproof(old - split, leaves[split:], whole=False), naive_root(leaves[:split])]


def node(level, index, known={}):  # noqa: B006 - a cache, on purpose
    """A perfect node over LEAVES."""
    if (level, index) not in known:
        known[level, index] = naive_root(LEAVES[index << level : (index + 1) << level])
    return known[level, index]


def test_the_reference_roots():
    """The hashes are those that other implementations have."""
    frontier, edge = Frontier(), client.Edge()
    assert frontier.root().hex() == EMPTY_ROOT.hex() == hashlib.sha256().hexdigest()
    for entry, root in zip(ENTRIES, ROOTS, strict=True):
        frontier.append([leaf_hash(bytes.fromhex(entry))])
        edge.grow(client.leaf_hash(bytes.fromhex(entry)))
        assert frontier.root().hex() == edge.root().hex() == root


def test_every_size_has_the_naive_root():
    """Frontier, root from nodes, and the client's edge agree with the naive root at each size to 1,100."""
    frontier, edge = Frontier(), client.Edge()
    for size in range(SIZE + 1):
        expected = naive_root(LEAVES[:size])
        assert frontier.root() == root_of(size, node) == edge.root() == client.fold(LEAVES[:size]) == expected
        assert Frontier(size, [node(*peak) for peak in peaks(size)]).root() == expected
        if size < SIZE:
            frontier.append([LEAVES[size]])
            edge.grow(LEAVES[size])


def test_every_small_proof_is_the_naive_one_and_holds():
    """All proofs of all sizes to 70 are those of the RFC's text, and the client accepts them."""
    for size in range(71):
        root = root_of(size, node)
        for index in range(size):
            proof = inclusion_proof(index, size, node)
            assert proof == naive_path(index, LEAVES[:size])
            assert client.root_from_inclusion(LEAVES[index], index, size, proof) == root
        for old in range(size + 1):
            proof = consistency_proof(old, size, node)
            assert proof == (naive_subproof(old, LEAVES[:size], whole=True) if old else [])
            assert client.consistent(old, root_of(old, node), size, root, proof)


@given(st.data())
def test_proofs_of_any_size_hold_and_no_altered_one_does(data):
    """Whatever is changed in a proof, its place, its sizes or its roots, it no longer holds."""
    size = data.draw(st.integers(1, SIZE))
    index = data.draw(st.integers(0, size - 1))
    root, old = root_of(size, node), index + 1
    path, growth = inclusion_proof(index, size, node), consistency_proof(old, size, node)
    assert client.root_from_inclusion(LEAVES[index], index, size, path) == root
    assert client.consistent(old, root_of(old, node), size, root, growth)

    wrong = data.draw(st.binary(min_size=32, max_size=32))
    assert client.root_from_inclusion(wrong, index, size, path) != root
    assert client.root_from_inclusion(LEAVES[index], index, size, [*path, wrong]) is None
    assert not client.consistent(old, root_of(old, node), size, wrong, growth)
    assert not client.consistent(old, wrong, size, root, growth)
    assert not client.consistent(old, root_of(old, node), size, root, [*growth, wrong])
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        assert client.root_from_inclusion(LEAVES[index], index, size, [*path[:at], wrong, *path[at + 1 :]]) != root
        assert client.root_from_inclusion(LEAVES[index], index, size, path[:-1]) is None
    if growth:
        at = data.draw(st.integers(0, len(growth) - 1))
        altered = [*growth[:at], wrong, *growth[at + 1 :]]
        assert not client.consistent(old, root_of(old, node), size, root, altered)
        assert not client.consistent(old, root_of(old, node), size, root, growth[:-1])


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0)])
def test_there_is_no_proof_of_what_is_not_there(index, size):
    """An entry outside the tree is an error on one side and no root on the other."""
    with pytest.raises(ValueError, match="no entry"):
        inclusion_proof(index, size, node)
    assert client.root_from_inclusion(LEAVES[0], index, size, []) is None


@pytest.mark.parametrize(("old", "new"), [(5, 4), (-1, 4)])
def test_a_tree_does_not_begin_with_a_larger_one(old, new):
    """Neither side shows or accepts it."""
    with pytest.raises(ValueError, match="does not begin"):
        consistency_proof(old, new, node)
    assert not client.consistent(old, EMPTY_ROOT, new, EMPTY_ROOT, [])


def test_two_heads_of_one_size_must_be_one():
    """A fork: the same size, another root (A5)."""
    assert client.consistent(3, LEAVES[0], 3, LEAVES[0], [])
    assert not client.consistent(3, LEAVES[0], 3, LEAVES[1], [])
    assert not client.consistent(0, LEAVES[0], 3, LEAVES[1], [])
