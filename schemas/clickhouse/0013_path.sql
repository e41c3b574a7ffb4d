-- One path of any host: a filter of whole names is a tenth of by_paths, which is of their pieces and serves prefixes,
-- patterns and parts of names.
ALTER TABLE {{.Database}}.records{{.OnCluster}}
    ADD INDEX IF NOT EXISTS by_path array(path, path_to) TYPE bloom_filter(0.01) GRANULARITY {{if .Coarse}}1{{else}}8{{end}} FIRST;

-- For rows that are there already; the server does it beside its work.
ALTER TABLE {{.Database}}.records{{.OnCluster}} MATERIALIZE INDEX by_path;
