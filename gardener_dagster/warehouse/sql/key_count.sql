-- How unique the keys of a partition are. Reads the key's columns only.
WITH keys AS (
  SELECT {key_columns}, {keyless} AS keyless
  FROM {table} AS t
  WHERE t.date = @date
),
copies AS (
  SELECT keyless, COUNT(*) AS row_count
  FROM keys
  GROUP BY {key_names}, keyless
)
SELECT
  IFNULL(SUM(row_count), 0) AS row_count,
  IFNULL(SUM(IF(keyless, row_count, 0)), 0) AS keyless,
  IFNULL(SUM(IF(keyless, 0, row_count - 1)), 0) AS duplicates
FROM copies
