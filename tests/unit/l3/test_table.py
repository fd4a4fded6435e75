"""The watched table, over an nftables in memory. The kernel's is tested in tests/lab."""

from __future__ import annotations

import pytest

from warren.errors import OperationFailed
from warren.l3.firewall import Own, ruleset
from warren.l3.table import PolicyTable, observed_digest
from warren.linux.nft import MemoryNft, Table

DOCUMENT = ruleset("home", Own(()), None)
ACCEPT = {
    "add": {"rule": {"family": "inet", "table": "warren-home", "chain": "inbound", "expr": [{"accept": None}]}},
}


def test_it_is_in_place_until_somebody_changes_it() -> None:
    nft = MemoryNft()
    table = PolicyTable(nft, "home")
    assert not table.is_in_place(DOCUMENT)
    table.put(DOCUMENT)
    assert table.is_in_place(DOCUMENT)
    nft.run([ACCEPT])
    assert not table.is_in_place(DOCUMENT)
    table.put(DOCUMENT)
    assert table.is_in_place(DOCUMENT)
    del nft.contents[Table("inet", "warren-home")]
    assert not table.is_in_place(DOCUMENT)


def test_another_document_or_another_process_is_not_what_is_there() -> None:
    nft = MemoryNft()
    table = PolicyTable(nft, "home")
    table.put(DOCUMENT)
    assert not table.is_in_place([*DOCUMENT, ACCEPT])
    assert not PolicyTable(nft, "home").is_in_place(DOCUMENT)


def test_a_document_that_is_refused_leaves_the_one_of_before() -> None:
    nft = MemoryNft()
    table = PolicyTable(nft, "home")
    table.put(DOCUMENT)
    refused = {"add": {"rule": {"family": "inet", "table": "absent", "chain": "inbound", "expr": []}}}
    with pytest.raises(OperationFailed, match="nftables refuses the rules"):
        table.put([*DOCUMENT, refused])
    assert table.is_in_place(DOCUMENT)


def test_it_is_removed_and_nothing_else() -> None:
    nft = MemoryNft()
    PolicyTable(nft, "other").put(ruleset("other", Own(()), None))
    table = PolicyTable(nft, "home")
    table.remove()
    table.put(DOCUMENT)
    table.remove()
    assert not table.is_in_place(DOCUMENT)
    assert nft.tables() == {Table("inet", "warren-other")}


def test_what_differs_from_listing_to_listing_is_passed_over() -> None:
    def listing(handle: int, elements: list[str], packets: int) -> list[dict[str, object]]:
        return [
            {"metainfo": {"version": str(handle)}},
            {"set": {"name": "s0", "handle": handle, "elem": elements}},
            {"rule": {"handle": handle, "expr": [{"counter": {"packets": packets, "bytes": packets}}]}},
        ]

    digest = observed_digest(listing(1, ["a", "b"], 0))
    assert digest == observed_digest(listing(2, ["b", "a"], 9))
    assert digest != observed_digest(listing(1, ["a"], 0))
