-- A path of any host. by_all_paths is of 16 granules each and is looked at first, so that a path
-- that few hosts have costs no look at each granule; by_paths narrows down what is left. Both have
-- the two names of a record in them, and nothing asks by_path and by_path_to any more.
ALTER TABLE {{.Database}}.records{{.OnCluster}}
    ADD INDEX IF NOT EXISTS by_all_paths concat(path, '\n', path_to) TYPE ngrambf_v1(4, 65536, 3, 0) GRANULARITY 16 FIRST,
    DROP INDEX IF EXISTS by_path,
    DROP INDEX IF EXISTS by_path_to;

-- For rows that are there already; the server does it beside its work.
ALTER TABLE {{.Database}}.records{{.OnCluster}} MATERIALIZE INDEX by_all_paths;
