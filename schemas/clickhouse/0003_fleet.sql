-- What dashboards and questions over a whole fleet read.
--
-- The views keep sequences in bitmaps and not counts: a batch that arrives twice, and
-- a migration that runs again, change nothing. groupBitmapMerge gives the exact number
-- of different records; sequences are a host's, so group by host first, then add up.
-- Rows that somebody deletes from records stay counted here: a difference tells.

-- Few values: questions that want one of them skip what has none.
-- by_paths is one index for both names of a record, by_argv for text in a command line.
-- by_received is for alerts: what arrives late must not be missed. source and command
-- are for people: the address as it is written, and the command line as one text.
ALTER TABLE {{.Database}}.records{{.OnCluster}}
    ADD COLUMN IF NOT EXISTS source String ALIAS if(actor_source_ip = toIPv6('::'), '', replaceOne(toString(actor_source_ip), '::ffff:', '')),
    ADD COLUMN IF NOT EXISTS command String ALIAS arrayStringConcat(process_argv, ' '),
    ADD INDEX IF NOT EXISTS by_received received TYPE minmax GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_kind kind TYPE set(16) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_verdict verdict TYPE set(16) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_rule rule TYPE set(64) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_op op TYPE set(32) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_process_exe process_exe TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_paths concat(path, '\n', path_to) TYPE ngrambf_v1(4, 32768, 3, 0) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_argv arrayStringConcat(process_argv, ' ') TYPE ngrambf_v1(4, 65536, 3, 0) GRANULARITY 1;

-- For rows that are there already; the server does it beside its work.
ALTER TABLE {{.Database}}.records{{.OnCluster}}
    MATERIALIZE INDEX by_kind, MATERIALIZE INDEX by_verdict, MATERIALIZE INDEX by_rule, MATERIALIZE INDEX by_op, MATERIALIZE INDEX by_process_exe,
    MATERIALIZE INDEX by_paths, MATERIALIZE INDEX by_argv, MATERIALIZE INDEX by_received;

-- Hosts: one row for each when read with GROUP BY host_id.
CREATE TABLE IF NOT EXISTS {{.Database}}.hosts{{.OnCluster}}
(
    host_id   LowCardinality(String),
    host      AggregateFunction(argMax, String, UInt64), -- by sequence, as tier and boot
    boot      AggregateFunction(argMax, String, UInt64),
    tier      AggregateFunction(argMax, String, UInt64),
    first_seq SimpleAggregateFunction(min, UInt64),
    last_seq  SimpleAggregateFunction(max, UInt64),
    last_time SimpleAggregateFunction(max, DateTime64(9, 'UTC')),
    received  SimpleAggregateFunction(max, DateTime('UTC'))
)
ENGINE = {{.Engine "AggregatingMergeTree"}}
ORDER BY host_id
SETTINGS {{.DeduplicationWindow}};

CREATE MATERIALIZED VIEW IF NOT EXISTS {{.Database}}.to_hosts{{.OnCluster}} TO {{.Database}}.hosts AS
SELECT host_id, argMaxState(toString(host), seq) AS host, argMaxState(toString(boot), seq) AS boot,
    argMaxStateIf(toString(sensor_tier), seq, sensor_tier != '') AS tier,
    min(seq) AS first_seq, max(seq) AS last_seq, max(greatest(time, time_end)) AS last_time, max(received) AS received
FROM {{.Database}}.records GROUP BY host_id;

INSERT INTO {{.Database}}.hosts
SELECT host_id, argMaxState(toString(host), seq) AS host, argMaxState(toString(boot), seq) AS boot,
    argMaxStateIf(toString(sensor_tier), seq, sensor_tier != '') AS tier,
    min(seq) AS first_seq, max(seq) AS last_seq, max(greatest(time, time_end)) AS last_time, max(received) AS received
FROM {{.Database}}.records GROUP BY host_id;

-- Records by the hour, and by what panels group by.
CREATE TABLE IF NOT EXISTS {{.Database}}.hourly{{.OnCluster}}
(
    hour         DateTime('UTC') CODEC(Delta, ZSTD(1)),
    host_id      LowCardinality(String),
    host         LowCardinality(String),
    kind         LowCardinality(String),
    verdict      LowCardinality(String),
    rule         LowCardinality(String),
    mode         LowCardinality(String),
    actor_user   LowCardinality(String),
    actor_origin LowCardinality(String),
    seqs         AggregateFunction(groupBitmap, UInt64) CODEC(ZSTD(1)),
    received     SimpleAggregateFunction(max, DateTime('UTC')) CODEC(Delta, ZSTD(1))
)
ENGINE = {{.Engine "AggregatingMergeTree"}}
ORDER BY (hour, host_id, kind, verdict, rule, mode, actor_user, actor_origin, host)
{{.TTL "received"}}
SETTINGS {{.DeduplicationWindow}};

CREATE MATERIALIZED VIEW IF NOT EXISTS {{.Database}}.to_hourly{{.OnCluster}} TO {{.Database}}.hourly AS
SELECT toStartOfHour(toDateTime(time, 'UTC')) AS hour, host_id, host, kind, verdict, rule, mode, actor_user, actor_origin,
    groupBitmapState(seq) AS seqs, max(received) AS received
FROM {{.Database}}.records GROUP BY hour, host_id, host, kind, verdict, rule, mode, actor_user, actor_origin;

INSERT INTO {{.Database}}.hourly
SELECT toStartOfHour(toDateTime(time, 'UTC')) AS hour, host_id, host, kind, verdict, rule, mode, actor_user, actor_origin,
    groupBitmapState(seq) AS seqs, max(received) AS received
FROM {{.Database}}.records GROUP BY hour, host_id, host, kind, verdict, rule, mode, actor_user, actor_origin;

-- Sessions: one row for each when read with GROUP BY host_id, boot, session. What was
-- looked for and not found ("unknown") gives way to what was.
CREATE TABLE IF NOT EXISTS {{.Database}}.sessions{{.OnCluster}}
(
    host_id      LowCardinality(String),
    boot         LowCardinality(String),
    session      String CODEC(ZSTD(1)),
    host         LowCardinality(String),
    user         SimpleAggregateFunction(max, String),
    origin       SimpleAggregateFunction(max, String),
    tty          SimpleAggregateFunction(max, String),
    source_ip    SimpleAggregateFunction(max, IPv6),
    start        SimpleAggregateFunction(min, DateTime64(9, 'UTC')),
    ended        SimpleAggregateFunction(max, DateTime64(9, 'UTC')), -- 1970-01-01: it runs, or its end was not seen
    last         SimpleAggregateFunction(max, DateTime64(9, 'UTC')),
    records      AggregateFunction(groupBitmap, UInt64),
    changes      AggregateFunction(groupBitmap, UInt64),
    attempts     AggregateFunction(groupBitmap, UInt64),
    unauthorized AggregateFunction(groupBitmap, UInt64),
    received     SimpleAggregateFunction(max, DateTime('UTC')),
    INDEX by_last last TYPE minmax GRANULARITY 1,
    INDEX by_source source_ip TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {{.Engine "AggregatingMergeTree"}}
ORDER BY (host_id, boot, session, host)
{{.TTL "received"}}
SETTINGS {{.DeduplicationWindow}};

CREATE MATERIALIZED VIEW IF NOT EXISTS {{.Database}}.to_sessions{{.OnCluster}} TO {{.Database}}.sessions AS
SELECT host_id, boot, actor_session AS session, host,
    max(if(actor_user = 'unknown', '', toString(actor_user))) AS user, max(if(actor_origin = 'unknown', '', toString(actor_origin))) AS origin,
    max(toString(actor_tty)) AS tty, max(actor_source_ip) AS source_ip,
    min(time) AS start, max(if(kind = 'session', time_end, toDateTime64(0, 9, 'UTC'))) AS ended, max(greatest(time, time_end)) AS last,
    groupBitmapState(seq) AS records, groupBitmapStateIf(seq, kind = 'change') AS changes, groupBitmapStateIf(seq, kind = 'attempt') AS attempts,
    groupBitmapStateIf(seq, kind = 'change' AND verdict = 'unauthorized') AS unauthorized, max(received) AS received
FROM {{.Database}}.records WHERE actor_session != '' GROUP BY host_id, boot, session, host;

INSERT INTO {{.Database}}.sessions
SELECT host_id, boot, actor_session AS session, host,
    max(if(actor_user = 'unknown', '', toString(actor_user))) AS user, max(if(actor_origin = 'unknown', '', toString(actor_origin))) AS origin,
    max(toString(actor_tty)) AS tty, max(actor_source_ip) AS source_ip,
    min(time) AS start, max(if(kind = 'session', time_end, toDateTime64(0, 9, 'UTC'))) AS ended, max(greatest(time, time_end)) AS last,
    groupBitmapState(seq) AS records, groupBitmapStateIf(seq, kind = 'change') AS changes, groupBitmapStateIf(seq, kind = 'attempt') AS attempts,
    groupBitmapStateIf(seq, kind = 'change' AND verdict = 'unauthorized') AS unauthorized, max(received) AS received
FROM {{.Database}}.records WHERE actor_session != '' GROUP BY host_id, boot, session, host;
