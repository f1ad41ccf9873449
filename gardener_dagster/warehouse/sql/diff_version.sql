-- The rows of one version of a table: their keys, and columns as JSON.
  SELECT t.date, {key_columns}, {keyless} AS keyless{columns}
  FROM {table} AS t{as_of}
  WHERE t.date BETWEEN @first AND @last
