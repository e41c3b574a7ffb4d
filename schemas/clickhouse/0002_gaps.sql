-- What a rescan found after a gap, and what came of gaps.
--
-- found says how a change was found that no event told of; its time is then the
-- beginning of the window in which it happened and time_end the end. A question
-- since a moment is about greatest(time, time_end), which has an index of its own.

ALTER TABLE {{.Database}}.records{{.OnCluster}}
    ADD COLUMN IF NOT EXISTS found LowCardinality(String) AFTER reason,
    ADD COLUMN IF NOT EXISTS gap_causes Array(LowCardinality(String)) AFTER gap_rescan,
    ADD COLUMN IF NOT EXISTS gap_of String CODEC(ZSTD(1)) AFTER gap_causes,
    ADD COLUMN IF NOT EXISTS gap_looked UInt64 CODEC(T64, ZSTD(1)) AFTER gap_of,
    ADD COLUMN IF NOT EXISTS gap_changes UInt64 CODEC(T64, ZSTD(1)) AFTER gap_looked,
    ADD INDEX IF NOT EXISTS by_till greatest(time, time_end) TYPE minmax GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_found found TYPE set(8) GRANULARITY 1;
