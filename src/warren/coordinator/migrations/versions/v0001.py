"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "facts",
        sa.Column("name", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("value", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_facts")),
    )
    op.create_table(
        "networks",
        sa.Column("key", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("seed", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("prefix6", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("prefix4", sa.Text(), autoincrement=False, nullable=True),
        sa.Column("suffix", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("lease_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("horizon", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("next_slot", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tests", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("created", sa.Double(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_networks")),
        sa.UniqueConstraint("name", name=op.f("uq_networks_name")),
    )
    op.create_table(
        "replicas",
        sa.Column("id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("started", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("heartbeat", sa.Double(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replicas")),
    )
    op.create_table(
        "urls",
        sa.Column("url", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("seen", sa.Double(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("url", name=op.f("pk_urls")),
    )
    op.create_table(
        "documents",
        sa.Column("network", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("subject", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("changed", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["network"], ["networks.key"], name=op.f("fk_documents_network")),
        sa.PrimaryKeyConstraint("network", "kind", "subject", name=op.f("pk_documents")),
    )
    op.create_index(op.f("ix_documents_network_revision"), "documents", ["network", "revision"], unique=False)
    op.create_table(
        "events",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("actor", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("action", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("network", sa.LargeBinary(), autoincrement=False, nullable=True),
        sa.Column("subject", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("detail", sa.Text(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["network"], ["networks.key"], name=op.f("fk_events_network")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_network_sequence"), "events", ["network", "sequence"], unique=False)
    op.create_table(
        "invites",
        sa.Column("id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("network", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("uses", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("used", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tags", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("ephemeral", sa.Boolean(), autoincrement=False, nullable=False),
        sa.Column("created", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("expires", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("revoked", sa.Boolean(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["network"], ["networks.key"], name=op.f("fk_invites_network")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invites")),
        sa.UniqueConstraint("hash", name=op.f("uq_invites_hash")),
    )
    op.create_index(op.f("ix_invites_expires"), "invites", ["expires"], unique=False)
    op.create_index(op.f("ix_invites_network"), "invites", ["network"], unique=False)
    op.create_table(
        "members",
        sa.Column("network", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("node", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("slot", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("address4", sa.Text(), autoincrement=False, nullable=True),
        sa.Column("tags", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("routes", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("ephemeral", sa.Boolean(), autoincrement=False, nullable=False),
        sa.Column("joined", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("lease_ends", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("lease_last", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("renew_at", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("invite", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("last_seen", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("observed", sa.Text(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["network"], ["networks.key"], name=op.f("fk_members_network")),
        sa.PrimaryKeyConstraint("network", "node", name=op.f("pk_members")),
        sa.UniqueConstraint("network", "name", name=op.f("uq_members_network_name")),
        sa.UniqueConstraint("network", "slot", name=op.f("uq_members_network_slot")),
    )
    op.create_index(op.f("ix_members_renew_at"), "members", ["renew_at"], unique=False)
    op.create_table(
        "places",
        sa.Column("network", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("slot", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("node", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("free_at", sa.Double(), autoincrement=False, nullable=True),
        sa.ForeignKeyConstraint(["network"], ["networks.key"], name=op.f("fk_places_network")),
        sa.PrimaryKeyConstraint("network", "slot", name=op.f("pk_places")),
    )
    op.create_index(op.f("ix_places_network_free_at"), "places", ["network", "free_at"], unique=False)
    op.create_index(op.f("ix_places_network_name"), "places", ["network", "name"], unique=False)
    op.create_index(op.f("ix_places_network_node"), "places", ["network", "node"], unique=False)
    op.create_table(
        "reports",
        sa.Column("network", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("node", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("report", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["network"], ["networks.key"], name=op.f("fk_reports_network")),
        sa.PrimaryKeyConstraint("network", "node", name=op.f("pk_reports")),
    )
    op.create_table(
        "revoked",
        sa.Column("network", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("node", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("lease_ended", sa.Double(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["network"], ["networks.key"], name=op.f("fk_revoked_network")),
        sa.PrimaryKeyConstraint("network", "node", name=op.f("pk_revoked")),
    )
    op.create_table(
        "sessions",
        sa.Column("network", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("node", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("replica", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("since", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("observed", sa.Text(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["network"], ["networks.key"], name=op.f("fk_sessions_network")),
        sa.PrimaryKeyConstraint("network", "node", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_replica"), "sessions", ["replica"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("label", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("role", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("network", sa.LargeBinary(), autoincrement=False, nullable=True),
        sa.Column("hash", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("created", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("expires", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("revoked", sa.Boolean(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["network"], ["networks.key"], name=op.f("fk_tokens_network")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_tokens_hash")),
    )
