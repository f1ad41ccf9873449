-- Rows of one partition. Reads the date column at most.
SELECT {index} AS part, COUNT(*) AS row_count
FROM {table}
WHERE date = @date_{index}
