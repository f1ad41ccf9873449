CREATE TABLE gardener_version (
    version INTEGER NOT NULL
);
CREATE TABLE jobs (
    number BIGSERIAL NOT NULL,
    bucket VARCHAR NOT NULL,
    experiment VARCHAR NOT NULL,
    datatype VARCHAR NOT NULL,
    date DATE NOT NULL,
    generation INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    state VARCHAR NOT NULL,
    priority SMALLINT NOT NULL,
    rank INTEGER NOT NULL,
    daily BOOLEAN NOT NULL,
    filter TEXT NOT NULL,
    tmp VARCHAR NOT NULL,
    raw VARCHAR NOT NULL,
    "join" VARCHAR NOT NULL,
    archives INTEGER,
    detail TEXT NOT NULL,
    error TEXT NOT NULL,
    failed_in VARCHAR,
    parser VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    created BIGINT NOT NULL,
    entered BIGINT NOT NULL,
    leased BIGINT,
    lease_expires BIGINT,
    updated BIGINT,
    parsed BIGINT,
    ended BIGINT,
    key VARCHAR NOT NULL,
    wire_id VARCHAR NOT NULL,
    announced BIGINT,
    PRIMARY KEY (number)
);
CREATE INDEX jobs_entered ON jobs (entered, number);
CREATE UNIQUE INDEX jobs_one_generation ON jobs (key, generation);
CREATE UNIQUE INDEX jobs_one_open ON jobs (key) WHERE state NOT IN ('complete', 'failed', 'withdrawn');
CREATE INDEX jobs_order ON jobs (state, priority, date, rank, number);
CREATE INDEX jobs_unannounced ON jobs (number) WHERE parsed IS NOT NULL AND announced IS NULL AND state <> 'withdrawn';
CREATE UNIQUE INDEX jobs_wire_id ON jobs (wire_id);
CREATE TABLE operations (
    number BIGSERIAL NOT NULL,
    key VARCHAR NOT NULL,
    "table" VARCHAR NOT NULL,
    operation VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    bq_job_ids TEXT NOT NULL,
    rows BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    slot_seconds FLOAT NOT NULL,
    bytes_billed BIGINT NOT NULL,
    seconds FLOAT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (number)
);
CREATE INDEX operations_key ON operations (key, number);
CREATE TABLE partitions (
    "table" VARCHAR NOT NULL,
    date DATE NOT NULL,
    day_before DATE NOT NULL,
    version INTEGER NOT NULL,
    rows BIGINT NOT NULL,
    run_id VARCHAR NOT NULL,
    made BIGINT,
    input_raw INTEGER,
    input_annotations INTEGER,
    input_before INTEGER,
    attempted_raw INTEGER,
    attempted_annotations INTEGER,
    attempted_before INTEGER,
    PRIMARY KEY ("table", date)
);
CREATE TABLE events (
    number BIGSERIAL NOT NULL,
    job BIGINT NOT NULL,
    at BIGINT NOT NULL,
    attempt INTEGER NOT NULL,
    state VARCHAR NOT NULL,
    detail TEXT NOT NULL,
    "left" VARCHAR NOT NULL,
    seconds FLOAT NOT NULL,
    PRIMARY KEY (number),
    FOREIGN KEY(job) REFERENCES jobs (number)
);
CREATE INDEX events_job ON events (job, number);
CREATE INDEX events_state ON events (state, job);
CREATE TABLE requests (
    job BIGINT NOT NULL,
    requester VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    backfill_id VARCHAR,
    covers_tables BOOLEAN NOT NULL,
    asked BIGINT NOT NULL,
    reported BIGINT,
    withdrawn BIGINT,
    PRIMARY KEY (job, requester),
    FOREIGN KEY(job) REFERENCES jobs (number)
);
CREATE INDEX requests_requester ON requests (requester, reported, withdrawn);
