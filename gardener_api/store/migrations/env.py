"""What alembic runs to migrate: in the transaction of whoever asked for it, which also commits.

The caller passes its connection as ``Config.attributes["connection"]``.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
