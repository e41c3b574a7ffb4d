-- What panels over a week of a large fleet read instead of all its records.
--
-- Nearly all records of a fleet are changes by services that are observed and no more.
-- notable has a copy of the others, with the columns that panels ask for. Its key begins
-- with what they ask by and ends as that of records: it is made of the record alone, so
-- that a row that arrives twice, or is filled in twice, is collapsed as there.

CREATE TABLE IF NOT EXISTS {{.Database}}.notable{{.OnCluster}}
(
    id      String ALIAS concat(host_id, '/', boot, '/', toString(seq)),
    host    LowCardinality(String),
    host_id LowCardinality(String),
    boot    LowCardinality(String),
    seq     UInt64 CODEC(Delta, ZSTD(1)),

    time     DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    time_end DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    kind     LowCardinality(String),
    op       LowCardinality(String),
    path     String CODEC(ZSTD(1)),
    path_to  String CODEC(ZSTD(1)),
    rule     LowCardinality(String),
    mode     LowCardinality(String),
    verdict  LowCardinality(String),
    reason   String CODEC(ZSTD(1)),
    found    LowCardinality(String),

    actor_user       LowCardinality(String),
    actor_via        Array(LowCardinality(String)),
    actor_session    String CODEC(ZSTD(1)),
    actor_origin     LowCardinality(String),
    actor_source_ip  IPv6 CODEC(ZSTD(1)),
    source           String ALIAS if(actor_source_ip = toIPv6('::'), '', replaceOne(toString(actor_source_ip), '::ffff:', '')),
    process_exe      LowCardinality(String),
    process_exe_hash FixedString(32) CODEC(ZSTD(1)),
    process_argv     Array(String) CODEC(ZSTD(1)),
    command          String ALIAS arrayStringConcat(process_argv, ' '),
    process_unit     LowCardinality(String),

    response_action  LowCardinality(String),
    response_outcome LowCardinality(String),
    response_took_ns UInt64 CODEC(T64, ZSTD(1)),
    response_of      String CODEC(ZSTD(1)),
    response_error   String CODEC(ZSTD(1)),

    gap_lost    UInt64 CODEC(T64, ZSTD(1)),
    gap_from    DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    gap_to      DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    gap_trees   Array(String) CODEC(ZSTD(1)),
    gap_rescan  LowCardinality(String),
    gap_causes  Array(LowCardinality(String)),
    gap_of      String CODEC(ZSTD(1)),
    gap_looked  UInt64 CODEC(T64, ZSTD(1)),
    gap_changes UInt64 CODEC(T64, ZSTD(1)),

    sensor_tier LowCardinality(String),
    detail      Map(LowCardinality(String), String),
    received    DateTime('UTC') CODEC(Delta, ZSTD(1)),

    INDEX by_time     time     TYPE minmax  GRANULARITY 1,
    INDEX by_received received TYPE minmax  GRANULARITY 1,
    INDEX by_host     host     TYPE set(16) GRANULARITY 1
)
ENGINE = {{.Engine "ReplacingMergeTree"}}
PARTITION BY toYYYYMM(time)
PRIMARY KEY (kind, verdict, toStartOfHour(time))
ORDER BY (kind, verdict, toStartOfHour(time), host_id, seq, boot)
{{.TTL "received"}}
SETTINGS {{.DeduplicationWindow}};

CREATE MATERIALIZED VIEW IF NOT EXISTS {{.Database}}.to_notable{{.OnCluster}} TO {{.Database}}.notable AS
SELECT {{template "columns"}} FROM {{.Database}}.records WHERE {{template "notable"}};
{{define "columns"}}host, host_id, boot, seq, time, time_end, kind, op, path, path_to, rule, mode, verdict, reason, found,
    actor_user, actor_via, actor_session, actor_origin, actor_source_ip, process_exe, process_exe_hash, process_argv, process_unit,
    response_action, response_outcome, response_took_ns, response_of, response_error,
    gap_lost, gap_from, gap_to, gap_trees, gap_rescan, gap_causes, gap_of, gap_looked, gap_changes, sensor_tier, detail, received{{end}}
{{- define "notable"}}NOT (actor_user IN ('', 'unknown') AND found = '' AND (kind = 'change' AND verdict = 'observed' OR kind IN ('exec', 'exit'))){{end}}

-- The rows that are there already. The view takes what comes from now on: what arrives meanwhile is in both,
-- and collapsed. An insert that began before the view was there goes past it, and may end when the first
-- statement has looked. So, where records came in the last hour, 65 s pass before that hour is taken once
-- more: a sender waits 60 s for an answer, and what it then sends again goes through the view.
INSERT INTO {{.Database}}.notable ({{template "columns"}})
SELECT {{template "columns"}} FROM {{.Database}}.records WHERE {{template "notable"}};

SELECT sum(sleepEachRow(1)) FROM numbers(65)
WHERE (SELECT max(received) > now() - INTERVAL 1 HOUR FROM {{.Database}}.records) SETTINGS max_block_size = 1;

INSERT INTO {{.Database}}.notable ({{template "columns"}})
SELECT {{template "columns"}} FROM {{.Database}}.records WHERE {{template "notable"}} AND received > now() - INTERVAL 1 HOUR;

-- By the hour of arrival: the sequences that are there, and how long records took to come. These are no
-- tables but parts of records that follow its rows: what is replaced, deleted or at its end there is so
-- here, and the server takes them by itself for a question that is grouped like one of them. It fills
-- them for old rows beside its work; until then it reads those rows.
ALTER TABLE {{.Database}}.records{{.OnCluster}} MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE {{.Database}}.records{{.OnCluster}}
    ADD PROJECTION IF NOT EXISTS arrivals
    (
        SELECT toStartOfHour(received), host_id, boot, groupBitmap(seq), min(seq), max(seq)
        GROUP BY toStartOfHour(received), host_id, boot
    ),
    ADD PROJECTION IF NOT EXISTS delays
    (
        SELECT toStartOfHour(received), host, dateDiff('second', greatest(time, time_end), received), count()
        GROUP BY toStartOfHour(received), host, dateDiff('second', greatest(time, time_end), received)
    );

ALTER TABLE {{.Database}}.records{{.OnCluster}} MATERIALIZE PROJECTION arrivals, MATERIALIZE PROJECTION delays;
