"""Run by alembic, on the connection that :mod:`warren.coordinator.migrations.run` gives."""

from __future__ import annotations

from alembic import context

from warren.coordinator.migrations.run import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=False,  # the transaction is the caller's
)
context.run_migrations()
