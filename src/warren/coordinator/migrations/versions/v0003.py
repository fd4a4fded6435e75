"""A table of relays."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "relays",
        sa.Column("id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("network", sa.LargeBinary(), autoincrement=False, nullable=True),
        sa.Column("name", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("relay", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("secret", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("created", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("seen", sa.Double(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["network"], ["networks.key"], name=op.f("fk_relays_network")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relays")),
    )
    op.create_index(op.f("ix_relays_network"), "relays", ["network"], unique=False)
