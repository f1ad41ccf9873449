INSERT INTO jobs (bucket, experiment, datatype, date, generation, attempt, state, priority, rank, daily, filter, tmp, raw, "join", archives, detail, error, parser, run_id, created, entered, parsed, key, wire_id)
    VALUES ('archive-mlab-oti', 'ndt', 'ndt7', '2024-03-01', 1, 1, 'postProcessing', 0, 1, true, '', 'tmp_ndt', 'raw_ndt', 'ndt', 3, '', '', '10.0.0.1', '', 1709377200000000, 1709377200000000, 1709377200000000, 'archive-mlab-oti/ndt/ndt7/20240301', 'archive-mlab-oti/ndt/ndt7/20240301');
INSERT INTO requests (job, requester, run_id, covers_tables, asked)
    VALUES (1, 'run:a', 'a', false, 1709377200000000);
INSERT INTO events (job, at, attempt, state, detail, "left", seconds)
    VALUES (1, 1709377200000000, 1, 'postProcessing', '', 'parsing', 60.5);
INSERT INTO partitions ("table", date, day_before, version, rows, run_id, made)
    VALUES ('raw_ndt.ndt7', '2024-02-29', '2024-02-28', 3, 114, 'r', 1709377200000000);
INSERT INTO operations (key, "table", operation, run_id, bq_job_ids, rows, bytes, slot_seconds, bytes_billed, seconds, at)
    VALUES ('archive-mlab-oti/ndt/ndt7/20240301', 'tmp_ndt.ndt7', 'load', 'r', 'b1 b2', 114, 5, 0.5, 6, 1.5, 1709377200000000);
