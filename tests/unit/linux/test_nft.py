"""The in-memory nftables: whole documents or nothing. The kernel's is tested in tests/lab."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from warren.errors import OperationFailed
from warren.linux.nft import MemoryNft, Table
from warren.tunnel.firewall import forget, protect

TABLE = Table("ip", "warren-home")


def test_a_table_comes_and_goes_however_often() -> None:
    nft = MemoryNft()
    for _ in range(2):
        nft.run(protect("home", 4, 51820, (ip_address("10.0.0.1"),)))
        assert nft.tables() == {TABLE}
        assert len(nft.contents[TABLE]) == 6
    for _ in range(2):
        nft.run(forget(TABLE))
        assert nft.tables() == frozenset()


def test_a_document_that_fails_changes_nothing() -> None:
    nft = MemoryNft()
    nft.run(protect("home", 4, 51820, ()))
    before = dict(nft.contents)
    broken = {"add": {"rule": {"family": "ip", "table": "absent", "chain": "c", "expr": []}}}
    with pytest.raises(OperationFailed, match="No such file or directory"):
        nft.run([*forget(TABLE), broken])
    assert nft.contents == before
