-- Every checkpoint that ever arrived, with the server's own time.
--
-- In checkpoints a row replaces the one of the same size, so who may insert there can
-- replace a root that was signed before. Here nothing is replaced and no sender says
-- when it came. A user who is granted INSERT on records and checkpoints alone cannot
-- write here but through the view, which goes by its definer's rights.
CREATE TABLE IF NOT EXISTS {{.Database}}.roots{{.OnCluster}}
(
    host_id  LowCardinality(String),
    size     UInt64 CODEC(Delta, ZSTD(1)), -- the log's first size records are under it
    note     String CODEC(ZSTD(1)),        -- the signed note, byte for byte
    received DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = {{.Engine "MergeTree"}}
PARTITION BY toYYYYMM(received)
ORDER BY (host_id, received, size)
{{.TTL "received"}}
SETTINGS {{.DeduplicationWindow}}, {{.Durability}};

CREATE MATERIALIZED VIEW IF NOT EXISTS {{.Database}}.to_roots{{.OnCluster}} TO {{.Database}}.roots AS
SELECT host_id, size, note FROM {{.Database}}.checkpoints;

INSERT INTO {{.Database}}.roots (host_id, size, note, received)
SELECT host_id, size, note, received FROM {{.Database}}.checkpoints;
