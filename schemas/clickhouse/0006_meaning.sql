-- What the change of a file of accounts did, in sentences; and text in them is found fast,
-- as is what was done below a process.
ALTER TABLE {{.Database}}.records{{.OnCluster}}
    ADD COLUMN IF NOT EXISTS meaning Array(String) CODEC(ZSTD(1)) AFTER reason,
    ADD INDEX IF NOT EXISTS by_meaning arrayStringConcat(meaning, '\n') TYPE ngrambf_v1(4, 8192, 3, 0) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_ancestors process_ancestors_exec_id TYPE bloom_filter(0.01) GRANULARITY 1;
