"""Brings a database to the schema of this version, inside the transaction of who asks: all steps or none."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from warren.errors import OperationFailed

VERSION_TABLE = "schema_version"


def migrate(connection: Connection) -> None:
    """Run the steps that are missing. Whoever calls it sees to it that nobody else does at the same time.

    Raises OperationFailed for a database of a newer Warren.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    state = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    strange = [revision for revision in state.get_current_heads() if revision not in known]
    if strange:
        raise OperationFailed(
            f"the database was made by a newer Warren (schema {strange[0]}): run that version, or use an older backup"
        )
    command.upgrade(config, "head")
