-- What approved change windows covered is found by their tickets. A column of its own: the server
-- reads a key of a map as a part of that column, of which an index over the map knows nothing.
ALTER TABLE {{.Database}}.records{{.OnCluster}}
    ADD COLUMN IF NOT EXISTS ticket String MATERIALIZED detail['ticket'] CODEC(ZSTD(1)) AFTER detail,
    ADD INDEX IF NOT EXISTS by_ticket ticket TYPE bloom_filter(0.01) GRANULARITY 1;

-- For rows that are there already; the server does it beside its work.
ALTER TABLE {{.Database}}.records{{.OnCluster}} MATERIALIZE COLUMN ticket;

ALTER TABLE {{.Database}}.records{{.OnCluster}} MATERIALIZE INDEX by_ticket;
