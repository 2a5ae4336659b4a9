"""The baseline: every table of store.tables. One baseline until the first release; then each change gets a step."""

from alembic import op

from store.tables import metadata

# Another name whenever a table changes before the first release: a database of an earlier build is then told apart (exit 3).
revision = "baseline9"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    metadata.create_all(op.get_bind())
