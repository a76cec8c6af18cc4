"""Proofs as RFC 9162 has them: what others' verifiers accept and refuse, ours do; what ours prove, holds."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.leaf import entry_hash
from ledger.core.tree import (
    EMPTY_ROOT,
    GrowingTree,
    Nodes,
    consistency_proof,
    full_root,
    inclusion_proof,
    root,
    verify_consistency,
    verify_inclusion,
)
from ledger.errors import Inconsistent, NotIncluded

VECTORS = Path(__file__).parents[2] / "vectors" / "merkle"
# The leaves and heads of the reference tree of Certificate Transparency (RFC 6962's first implementation).
ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        *("", "00", "10", "2021", "3031", "40414243"),
        *("5051525354555657", "606162636465666768696a6b6c6d6e6f"),
    )
]
HEADS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [hashlib.sha256(bytes([0, number])).digest() for number in range(70)]


def vectors(kind: str) -> list[Any]:
    return [pytest.param(each, id=each["name"]) for each in json.loads((VECTORS / f"{kind}.json").read_text())]


def b64(value: str) -> bytes:
    return base64.b64decode(value)


def nodes(leaves: Sequence[bytes]) -> Nodes:
    return lambda level, index: full_root(leaves[index << level : (index + 1) << level])


@pytest.mark.parametrize("vector", vectors("inclusion"))
def test_an_inclusion_proof_is_judged_as_the_published_vector_says(vector: dict[str, Any]) -> None:
    given = (b64(vector["leafHash"] or ""), vector["leafIdx"], vector["treeSize"])
    proof, head = [b64(each) for each in vector["proof"] or ()], b64(vector["root"] or "")
    if vector["wantErr"]:
        with pytest.raises(NotIncluded):
            verify_inclusion(*given, proof, head)
    else:
        verify_inclusion(*given, proof, head)


@pytest.mark.parametrize("vector", vectors("consistency"))
def test_a_consistency_proof_is_judged_as_the_published_vector_says(vector: dict[str, Any]) -> None:
    sizes = vector["size1"], vector["size2"]
    proof, heads = [b64(each) for each in vector["proof"] or ()], (b64(vector["root1"]), b64(vector["root2"]))
    if vector["wantErr"]:
        with pytest.raises(Inconsistent):
            verify_consistency(*sizes, *heads, proof)
    else:
        verify_consistency(*sizes, *heads, proof)


@pytest.mark.parametrize("size", range(9))
def test_heads_are_those_of_the_reference_tree(size: int) -> None:
    leaves = [entry_hash(entry) for entry in ENTRIES]
    tree = GrowingTree()
    tree.add_all(leaves[:size])
    assert tree.head().hex() == root(size, nodes(leaves)).hex() == HEADS[size]


@pytest.mark.parametrize("size", range(1, 70))
def test_every_leaf_of_every_small_tree_is_proved(size: int) -> None:
    head = root(size, nodes(LEAVES))
    for index in range(size):
        proof = inclusion_proof(index, size, nodes(LEAVES))
        verify_inclusion(LEAVES[index], index, size, proof, head)


@pytest.mark.parametrize("new", range(1, 70))
def test_every_small_tree_is_proved_to_go_on_from_every_smaller_one(new: int) -> None:
    head = root(new, nodes(LEAVES))
    for old in range(1, new + 1):
        proof = consistency_proof(old, new, nodes(LEAVES))
        verify_consistency(old, new, root(old, nodes(LEAVES)), head, proof)


@given(size=st.integers(2, 70), data=st.data())
def test_a_proof_holds_for_no_other_leaf_place_size_or_step(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, head = list(inclusion_proof(index, size, nodes(LEAVES))), root(size, nodes(LEAVES))
    step, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    flipped = (int.from_bytes(proof[step], "big") ^ 1 << bit).to_bytes(32, "big")
    other = data.draw(st.integers(0, size - 1).filter(lambda found: found != index))
    for leaf, place, path in [
        (LEAVES[other], index, proof),
        (LEAVES[index], other, proof),
        (LEAVES[index], index, [*proof[:step], flipped, *proof[step + 1 :]]),
        (LEAVES[index], index, [*proof[:step], *proof[step + 1 :]]),
        (LEAVES[index], index, [*proof, head]),
        (LEAVES[index], size, proof),
        (LEAVES[index], -1, proof),
    ]:
        with pytest.raises(NotIncluded):
            verify_inclusion(leaf, place, size, path, head)


@given(size=st.integers(2, 70), data=st.data())
def test_a_changed_log_is_consistent_with_no_head_from_before_the_change(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size - 1))
    changed = data.draw(st.integers(0, old - 1))
    other = [*LEAVES[:changed], bytes(32), *LEAVES[changed + 1 :]]
    proof = consistency_proof(old, size, nodes(other))
    with pytest.raises(Inconsistent):
        verify_consistency(old, size, root(old, nodes(LEAVES)), root(size, nodes(other)), proof)


def test_two_trees_of_one_size_are_one_tree_or_a_fork() -> None:
    verify_consistency(3, 3, LEAVES[0], LEAVES[0], ())
    with pytest.raises(Inconsistent, match="two different trees of 3"):
        verify_consistency(3, 3, LEAVES[0], LEAVES[1], ())
    with pytest.raises(Inconsistent):
        verify_consistency(3, 3, LEAVES[0], LEAVES[0], [LEAVES[1]])


def test_nothing_is_proved_from_the_empty_tree() -> None:
    verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, consistency_proof(0, 0, nodes(LEAVES)))
    with pytest.raises(Inconsistent, match="no proof of anything"):
        verify_consistency(0, 5, EMPTY_ROOT, LEAVES[0], ())
    with pytest.raises(Inconsistent):
        verify_consistency(0, 0, bytes(32), bytes(32), ())


def test_a_tree_goes_on_from_no_larger_one() -> None:
    with pytest.raises(Inconsistent, match="does not go on"):
        verify_consistency(5, 4, LEAVES[0], LEAVES[1], ())


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_no_proof_is_made_of_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion_proof(index, size, nodes(LEAVES))


def test_a_proof_reads_few_stored_hashes() -> None:
    """Of a log of a million entries, some dozens; never the log."""
    asked: list[tuple[int, int]] = []

    def count(level: int, index: int) -> bytes:
        asked.append((level, index))
        return bytes(32)

    inclusion_proof(700_001, 999_999, count)
    consistency_proof(700_001, 999_999, count)
    assert len(asked) < 100
