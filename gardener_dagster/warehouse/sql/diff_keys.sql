-- Rows and keys of two versions of a table, for each date. Reads the key's columns only.
{versions}
sides AS (
  SELECT date, {key_names}, keyless, 1 AS before_rows, 0 AS after_rows FROM before_version
  UNION ALL
  SELECT date, {key_names}, keyless, 0 AS before_rows, 1 AS after_rows FROM after_version
),
keys AS (
  SELECT date, keyless, SUM(before_rows) AS before_rows, SUM(after_rows) AS after_rows
  FROM sides
  GROUP BY date, {key_names}, keyless
)
SELECT
  date,
  SUM(before_rows) AS rows_before,
  SUM(after_rows) AS rows_after,
  SUM(IF(keyless, before_rows, 0)) AS keyless_before,
  SUM(IF(keyless, after_rows, 0)) AS keyless_after,
  COUNTIF(NOT keyless AND before_rows > 0 AND after_rows > 0) AS in_both,
  COUNTIF(NOT keyless AND before_rows = 0) AS added,
  COUNTIF(NOT keyless AND after_rows = 0) AS removed
FROM keys
GROUP BY date
ORDER BY date
