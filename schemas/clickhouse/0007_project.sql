-- The quota project of a file; 0 is none.
ALTER TABLE {{.Database}}.records{{.OnCluster}}
    ADD COLUMN IF NOT EXISTS before_project UInt32 CODEC(T64, ZSTD(1)) AFTER before_caps,
    ADD COLUMN IF NOT EXISTS after_project UInt32 CODEC(T64, ZSTD(1)) AFTER after_caps;
