"""Functions of GoogleSQL that DuckDB has not, or has otherwise."""

from gardener_dagster.local.bigquery.database import Connection

MACROS = (
    # Times as GoogleSQL writes them in JSON; also in a STRING that looks just like DuckDB's.
    r"""CREATE OR REPLACE MACRO bq_to_json_string(x) AS regexp_replace(CAST(to_json(x) AS VARCHAR),
      '"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(\.\d+)?)\+00"', '"\1T\2Z"', 'g')""",
    "CREATE OR REPLACE MACRO ieee_divide(x, y) AS CAST(x AS DOUBLE) / CAST(y AS DOUBLE)",
    "CREATE OR REPLACE MACRO safe_add(x, y) AS TRY(x + y)",
    "CREATE OR REPLACE MACRO safe_subtract(x, y) AS TRY(x - y)",
    "CREATE OR REPLACE MACRO safe_multiply(x, y) AS TRY(x * y)",
    "CREATE OR REPLACE MACRO safe_negate(x) AS TRY(-x)",
    "CREATE OR REPLACE MACRO code_points_to_string(x) AS"
    " array_to_string(list_transform(x, lambda c: chr(c::INTEGER)), '')",
)


def install(connection: Connection) -> None:
    """Makes the functions known to a database."""
    for macro in MACROS:
        connection.execute(macro)
