-- The rows of two versions of a table whose key both have once, side by side.
{versions}
before_once AS (
  SELECT * FROM before_version WHERE NOT keyless
  QUALIFY COUNT(*) OVER (PARTITION BY date, {key_names}) = 1
),
after_once AS (
  SELECT * FROM after_version WHERE NOT keyless
  QUALIFY COUNT(*) OVER (PARTITION BY date, {key_names}) = 1
),
pairs AS (
  SELECT b.date, {pair_columns}, {differs} AS differs
  FROM before_once AS b
  JOIN after_once AS a ON a.date = b.date AND {same_key}
)
SELECT {selected}
FROM pairs
{rest}
