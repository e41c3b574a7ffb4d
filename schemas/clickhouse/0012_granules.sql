-- New databases have granules of 512 records and not of some 4,500 (Target.Durability), for questions about
-- all hosts: the newest hundred records of these lie in as many places, and of each the server unpacks a
-- granule. An index that is no range keeps as many rows to an entry as it had; by_all_paths stays the first.
--
-- What was made before keeps its granules and indexes, and all questions have the same answers there:
-- docs/clickhouse.md tells how to copy it into a new database.
{{if not .Coarse}}
ALTER TABLE {{.Database}}.records{{.OnCluster}}
    DROP INDEX IF EXISTS by_all_paths, DROP INDEX IF EXISTS by_host, DROP INDEX IF EXISTS by_before_hash, DROP INDEX IF EXISTS by_after_hash,
    DROP INDEX IF EXISTS by_process_exe_hash, DROP INDEX IF EXISTS by_actor_source_ip, DROP INDEX IF EXISTS by_actor_user, DROP INDEX IF EXISTS by_actor_session,
    DROP INDEX IF EXISTS by_process_exec_id, DROP INDEX IF EXISTS by_response_of, DROP INDEX IF EXISTS by_found, DROP INDEX IF EXISTS by_kind,
    DROP INDEX IF EXISTS by_verdict, DROP INDEX IF EXISTS by_rule, DROP INDEX IF EXISTS by_op, DROP INDEX IF EXISTS by_process_exe, DROP INDEX IF EXISTS by_paths,
    DROP INDEX IF EXISTS by_argv, DROP INDEX IF EXISTS by_meaning, DROP INDEX IF EXISTS by_ancestors, DROP INDEX IF EXISTS by_ticket;

ALTER TABLE {{.Database}}.records{{.OnCluster}}
    ADD INDEX IF NOT EXISTS by_all_paths concat(path, '\n', path_to) TYPE ngrambf_v1(4, 65536, 3, 0) GRANULARITY 128 FIRST,
    ADD INDEX IF NOT EXISTS by_host host TYPE set(16) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_before_hash before_hash TYPE bloom_filter(0.01) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_after_hash after_hash TYPE bloom_filter(0.01) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_process_exe_hash process_exe_hash TYPE bloom_filter(0.01) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_actor_source_ip actor_source_ip TYPE bloom_filter(0.01) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_actor_user actor_user TYPE bloom_filter(0.01) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_actor_session actor_session TYPE bloom_filter(0.01) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_process_exec_id process_exec_id TYPE bloom_filter(0.01) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_response_of response_of TYPE bloom_filter(0.01) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_found found TYPE set(8) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_kind kind TYPE set(16) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_verdict verdict TYPE set(16) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_rule rule TYPE set(64) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_op op TYPE set(32) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_process_exe process_exe TYPE bloom_filter(0.01) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_paths concat(path, '\n', path_to) TYPE ngrambf_v1(4, 32768, 3, 0) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_argv arrayStringConcat(process_argv, ' ') TYPE ngrambf_v1(4, 65536, 3, 0) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_meaning arrayStringConcat(meaning, '\n') TYPE ngrambf_v1(4, 8192, 3, 0) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_ancestors process_ancestors_exec_id TYPE bloom_filter(0.01) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS by_ticket ticket TYPE bloom_filter(0.01) GRANULARITY 8;
{{end}}
