-- Rows of one partition: answered from metadata, reads nothing.
SELECT {index} AS part, COUNT(*) AS row_count
FROM {table}
WHERE date = @date_{index}
