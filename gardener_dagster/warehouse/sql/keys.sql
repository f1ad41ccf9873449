-- The keys of a partition's rows, for compare_keys. Reads the key's columns only.
  SELECT {key_columns}, {keyless} AS keyless, {staged} AS staged, {published} AS published
  FROM {table} AS t
  WHERE t.date = @date
