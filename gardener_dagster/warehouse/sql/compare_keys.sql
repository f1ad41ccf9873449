-- Keys of a partition of tmp and of the published one. Reads the key's columns only.
WITH keys AS (
{keys}
),
copies AS (
  SELECT
    {key_names},
    keyless,
    SUM(staged) AS staged,
    SUM(published) AS published
  FROM keys
  GROUP BY {key_names}, keyless
)
SELECT
  IFNULL(SUM(staged), 0) AS row_count,
  IFNULL(SUM(IF(keyless, staged, 0)), 0) AS keyless,
  IFNULL(SUM(IF(keyless OR staged < 2, 0, staged - 1)), 0) AS duplicates,
  COUNT(DISTINCT IF(keyless OR staged = 0, NULL, {id_name})) AS ids,
  IFNULL(SUM(published), 0) AS published,
  IFNULL(SUM(IF(keyless, published, 0)), 0) AS published_keyless,
  COUNT(DISTINCT IF(keyless OR published = 0, NULL, {id_name})) AS published_ids,
  COUNTIF(NOT keyless AND published = 0) AS added,
  COUNTIF(NOT keyless AND staged = 0) AS removed,
  COUNTIF(NOT keyless AND staged > 0 AND published > 0) AS kept
FROM copies
