-- Rows that stood under a host's id and number and were not its journal's. The row of the journal comes to
-- that place in records, where a merge keeps the later of two: a copy stays here, before that is sent.
-- A row that is copied twice is collapsed; nobody chooses its leaf.
CREATE TABLE IF NOT EXISTS {{.Database}}.displaced{{.OnCluster}}
(
    host_id  LowCardinality(String),
    host     LowCardinality(String), -- as the row said
    boot     LowCardinality(String), -- as the row said
    seq      UInt64 CODEC(Delta, ZSTD(1)),
    leaf     FixedString(32) MATERIALIZED SHA256(concat('\0', rec)),
    rec      String CODEC(ZSTD(3)),
    arrived  DateTime('UTC'), -- received of the row
    received DateTime('UTC') DEFAULT now()
)
ENGINE = {{.Engine "ReplacingMergeTree"}}
PARTITION BY toYYYYMM(received)
ORDER BY (host_id, seq, leaf, boot)
{{.TTL "received"}}
SETTINGS {{.DeduplicationWindow}}, {{.Durability}};
