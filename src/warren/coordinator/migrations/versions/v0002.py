"""A table of WireGuard keys, so that no member can name another's."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    keys = op.create_table(
        "wireguard_keys",
        sa.Column("network", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("key", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("node", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["network"], ["networks.key"], name=op.f("fk_wireguard_keys_network")),
        sa.PrimaryKeyConstraint("network", "key", name=op.f("pk_wireguard_keys")),
    )
    op.create_index(op.f("ix_wireguard_keys_network_node"), "wireguard_keys", ["network", "node"], unique=False)
    documents = sa.table(
        "documents", *(sa.column(name) for name in ("network", "kind", "subject", "revision", "envelope"))
    )
    found: dict[tuple[bytes, bytes], bytes] = {}
    records = sa.select(documents).where(documents.c.kind == "node").order_by(documents.c.revision)
    for row in op.get_bind().execute(records):
        if not row.envelope:
            continue
        record = msgspec.msgpack.decode(msgspec.msgpack.decode(row.envelope)["payload"])
        for name in ("wireguard_key", "next_wireguard_key"):
            key = record.get(name)
            if key and any(key):
                found.setdefault((bytes(row.network), key), bytes(row.subject))
    if found:
        op.bulk_insert(keys, [{"network": at, "key": key, "node": node} for (at, key), node in found.items()])
