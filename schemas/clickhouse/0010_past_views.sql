-- What went past the views of 0003 and 0004: an insert that began before a view was there does not go
-- through it, and if it ended after the rows that were there had been filled in, its rows are in neither.
-- So what arrived from a day before until those migrations ended is filled in once more. Between them
-- and here is 0008, which waits for such inserts where records arrive. Bitmaps, least and greatest
-- values stay as they are if a row is counted again.

INSERT INTO {{.Database}}.hosts
SELECT host_id, argMaxState(toString(host), seq) AS host, argMaxState(toString(boot), seq) AS boot,
    argMaxStateIf(toString(sensor_tier), seq, sensor_tier != '') AS tier,
    min(seq) AS first_seq, max(seq) AS last_seq, max(greatest(time, time_end)) AS last_time, max(received) AS received
FROM {{.Database}}.records WHERE records.received BETWEEN {{template "from" .}} AND {{template "to" .}} GROUP BY host_id;

INSERT INTO {{.Database}}.hourly
SELECT toStartOfHour(toDateTime(time, 'UTC')) AS hour, host_id, host, kind, verdict, rule, mode, actor_user, actor_origin,
    groupBitmapState(seq) AS seqs, max(received) AS received
FROM {{.Database}}.records WHERE records.received BETWEEN {{template "from" .}} AND {{template "to" .}} GROUP BY hour, host_id, host, kind, verdict, rule, mode, actor_user, actor_origin;

INSERT INTO {{.Database}}.sessions
SELECT host_id, boot, actor_session AS session, host,
    max(if(actor_user = 'unknown', '', toString(actor_user))) AS user, max(if(actor_origin = 'unknown', '', toString(actor_origin))) AS origin,
    max(toString(actor_tty)) AS tty, max(actor_source_ip) AS source_ip,
    min(time) AS start, max(if(kind = 'session', time_end, toDateTime64(0, 9, 'UTC'))) AS ended, max(greatest(time, time_end)) AS last,
    groupBitmapState(seq) AS records, groupBitmapStateIf(seq, kind = 'change') AS changes, groupBitmapStateIf(seq, kind = 'attempt') AS attempts,
    groupBitmapStateIf(seq, kind = 'change' AND verdict = 'unauthorized') AS unauthorized, max(received) AS received
FROM {{.Database}}.records WHERE records.received BETWEEN {{template "from" .}} AND {{template "to" .}} AND actor_session != '' GROUP BY host_id, boot, session, host;
{{define "from"}}(SELECT if(count() = 0, now(), toDateTime(min(applied))) - INTERVAL 1 DAY FROM {{.Database}}.schema_migrations WHERE number IN (3, 4)){{end}}
{{- define "to"}}(SELECT if(count() = 0, now(), toDateTime(max(applied))) + INTERVAL 1 MINUTE FROM {{.Database}}.schema_migrations WHERE number IN (3, 4)){{end}}

-- The time of these is that of the server now: what checkpoints says a sender may have written. A
-- checkpoint that 0004 took and its view too is in roots twice, which no question tells from once.
INSERT INTO {{.Database}}.roots (host_id, size, note)
SELECT host_id, size, note FROM {{.Database}}.checkpoints
WHERE checkpoints.received BETWEEN {{template "from" .}} AND {{template "to" .}} AND (host_id, size, note) NOT IN (SELECT host_id, size, note FROM {{.Database}}.roots);
