-- What the change of a file of accounts did, in sentences; and text in them is found fast.
ALTER TABLE {{.Database}}.records{{.OnCluster}}
    ADD COLUMN IF NOT EXISTS meaning Array(String) CODEC(ZSTD(1)) AFTER reason,
    ADD INDEX IF NOT EXISTS by_meaning arrayStringConcat(meaning, '\n') TYPE ngrambf_v1(4, 8192, 3, 0) GRANULARITY 1;
