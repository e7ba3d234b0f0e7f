"""The tree against its definition, against pymerkle, and against the published test vectors of Certificate Transparency."""

from __future__ import annotations

from hashlib import sha256

import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.merkle import (
    EMPTY_ROOT,
    Frontier,
    Tree,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

MOST = 70
LEAVES = [bytes([n]) * (n % 5) + str(n).encode() for n in range(MOST)]
HASHES = [leaf_hash(leaf) for leaf in LEAVES]
# Inputs and roots of sizes 1 to 8 as the reference implementation of RFC 6962 publishes them.
CT_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def split(size: int) -> int:
    power = 1
    while power * 2 < size:
        power *= 2
    return power


def naive_root(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"").digest()
    k = split(len(hashes))
    return node_hash(naive_root(hashes[:k]), naive_root(hashes[k:]))


def naive_path(index: int, hashes: list[bytes]) -> list[bytes]:
    if len(hashes) < 2:
        return []
    k = split(len(hashes))
    if index < k:
        return [*naive_path(index, hashes[:k]), naive_root(hashes[k:])]
    return [*naive_path(index - k, hashes[k:]), naive_root(hashes[:k])]


def naive_consistency(old: int, hashes: list[bytes], whole: bool = True) -> list[bytes]:
    if old == len(hashes):
        return [] if whole else [naive_root(hashes)]
    k = split(len(hashes))
    if old <= k:
        return [*naive_consistency(old, hashes[:k], whole), naive_root(hashes[k:])]
    return [*naive_consistency(old - k, hashes[k:], False), naive_root(hashes[:k])]


@pytest.fixture(scope="module")
def tree() -> Tree:
    made = Tree()
    for start in range(0, MOST, 7):  # in uneven batches
        made.extend(HASHES[start : start + 7])
    return made


def test_the_published_roots_of_certificate_transparency() -> None:
    hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in CT_LEAVES]
    made = Tree()
    made.extend(hashes)
    assert [made.root(n).hex() for n in range(1, 9)] == CT_ROOTS
    assert made.root(0) == EMPTY_ROOT == bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    # The published proofs for leaf 0 and 5 of 8, and from 6 to 8.
    assert [h.hex()[:8] for h in made.inclusion_proof(0, 8)] == ["96a296d2", "5f083f0a", "6b47aaf2"]
    assert [h.hex()[:8] for h in made.inclusion_proof(5, 8)] == ["bc1a0643", "ca854ea1", "d37ee418"]
    assert [h.hex()[:8] for h in made.consistency_proof(6, 8)] == ["0ebc5d34", "ca854ea1", "d37ee418"]


def test_every_root_and_every_frontier_is_that_of_the_definition(tree: Tree) -> None:
    oracle = pymerkle.InmemoryTree(algorithm="sha256")
    for size in range(MOST + 1):
        expected = naive_root(HASHES[:size])
        assert tree.root(size) == expected
        assert tree.frontier(size) == Frontier().extended(HASHES[:size])
        assert tree.frontier(size).root() == expected
        if size:
            oracle.append(LEAVES[size - 1])
            assert oracle.get_state() == expected


def test_a_frontier_and_the_rest_give_the_root_of_everything(tree: Tree) -> None:
    for size in range(MOST + 1):
        for start in range(size + 1):
            assert tree.frontier(start).extended(HASHES[start:size]).root() == tree.root(size)


def test_every_inclusion_proof_up_to_seventy_leaves(tree: Tree) -> None:
    for size in range(1, MOST + 1):
        root = tree.root(size)
        for index in range(size):
            proof = tree.inclusion_proof(index, size)
            assert list(proof) == naive_path(index, HASHES[:size])
            assert verify_inclusion(HASHES[index], index, size, proof, root)
            assert not verify_inclusion(leaf_hash(b"other"), index, size, proof, root)
            assert not verify_inclusion(HASHES[index], index, size, (*proof, root), root)
            assert not verify_inclusion(HASHES[index], index, size, proof, tree.root(size - 1))
            assert not any(verify_inclusion(HASHES[index], other, size, proof, root) for other in range(size) if other != index)
            if proof:
                assert not verify_inclusion(HASHES[index], index, size, proof[:-1], root)
                assert not verify_inclusion(HASHES[index], index, size, (bytes(32), *proof[1:]), root)
                assert not verify_inclusion(HASHES[index], index, size, (proof[0] + b"x", *proof[1:]), root)
    assert not verify_inclusion(HASHES[0], 0, 0, (), HASHES[0])
    assert not verify_inclusion(HASHES[0], 1, 1, (), HASHES[0])
    assert not verify_inclusion(HASHES[0], -1, 1, (), HASHES[0])


def test_every_consistency_proof_up_to_seventy_leaves(tree: Tree) -> None:
    for new in range(MOST + 1):
        for old in range(new + 1):
            proof = tree.consistency_proof(old, new)
            before, after = tree.root(old), tree.root(new)
            if old:
                assert list(proof) == naive_consistency(old, HASHES[:new])
            assert verify_consistency(old, new, proof, before, after)
            assert not verify_consistency(old, new, (*proof, bytes(32)), before, after)
            assert not verify_consistency(old, new, proof, bytes(32), after)
            if old or new == 0:  # an empty tree is the beginning of every other one
                assert not verify_consistency(old, new, proof, before, bytes(32))
            if proof:
                assert not verify_consistency(old, new, proof[:-1], before, after)
                assert not verify_consistency(old, new, (proof[0][:-1] + b"\0\0", *proof[1:]), before, after)
    assert not verify_consistency(5, 3, (), tree.root(5), tree.root(3))
    assert not verify_consistency(-1, 3, (), EMPTY_ROOT, tree.root(3))


def test_the_inclusion_proofs_are_those_of_pymerkle(tree: Tree) -> None:
    oracle = pymerkle.InmemoryTree(algorithm="sha256")
    for leaf in LEAVES:
        oracle.append(leaf)
    for size in range(1, MOST + 1):
        for index in range(size):
            theirs = oracle.prove_inclusion(index + 1, size)
            assert tuple(theirs.path[1:]) == tree.inclusion_proof(index, size)  # theirs begins with the leaf itself


def test_a_proof_that_ends_below_the_root_is_refused(tree: Tree) -> None:
    """A short proof of a small tree, claimed to be of one that is higher."""
    for power in (1, 2, 4, 8, 16):
        proof = tree.consistency_proof(power, 2 * power)
        assert verify_consistency(power, 2 * power, proof, tree.root(power), tree.root(2 * power))
        for claimed in range(2 * power + 1, MOST):
            assert not verify_consistency(power, claimed, proof, tree.root(power), tree.root(2 * power))
        path = tree.inclusion_proof(0, 2 * power)
        for claimed in range(2 * power + 1, MOST):
            assert not verify_inclusion(HASHES[0], 0, claimed, path, tree.root(2 * power))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=200), st.data())
def test_any_history_and_any_fork_of_it(leaves: list[bytes], data: st.DataObject) -> None:
    hashes = [leaf_hash(leaf) for leaf in leaves]
    made = Tree()
    while made.size < len(hashes):
        made.extend(hashes[made.size : made.size + data.draw(st.integers(1, 50))])
    old = data.draw(st.integers(0, len(hashes)))
    assert verify_consistency(
        old, len(hashes), made.consistency_proof(old, len(hashes)), made.root(old), made.root(len(hashes))
    )
    if old:
        forked = Tree()
        changed = data.draw(st.integers(0, old - 1))
        forked.extend([leaf_hash(b"another") if n == changed else h for n, h in enumerate(hashes)])
        if forked.root(old) != made.root(old):
            proof = forked.consistency_proof(old, len(hashes))
            assert not verify_consistency(old, len(hashes), proof, made.root(old), forked.root(len(hashes)))
    made.truncate(old)
    assert (made.size, made.root(old)) == (old, naive_root(hashes[:old]))
    made.extend(hashes[old:])
    assert made.root(len(hashes)) == naive_root(hashes)


def test_a_leaf_is_no_node_and_a_frontier_no_other_size(tree: Tree) -> None:
    left, right = HASHES[:2]
    assert leaf_hash(left + right) != node_hash(left, right)
    for size, data in ((3, b"x" * 32), (2, b"x" * 64), (1, b"x" * 31), (0, b"x" * 32), (-1, b"")):
        with pytest.raises(ValueError):
            Frontier.from_bytes(size, data)
    assert Frontier.from_bytes(70, tree.frontier(70).to_bytes()) == tree.frontier(70)
    for ask in (lambda: tree.root(71), lambda: tree.inclusion_proof(5, 5), lambda: tree.consistency_proof(6, 5)):
        with pytest.raises(ValueError):
            ask()
