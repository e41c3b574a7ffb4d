-- Records, checkpoints, and the list of applied migrations.
--
-- The columns of records are the fields of a record with _ for a dot. What a record
-- does not have is the empty value here, with two exceptions that keep nobody from
-- being taken for root: ids of users and groups are then 4294967295, and exists of
-- a state is NULL. An unknown time is 1970-01-01. A mode is its number: 420 is 0644.
--
-- Every statement may run again: an interrupted migration is repeated as a whole.

CREATE DATABASE IF NOT EXISTS {{.Database}}{{.OnCluster}};

CREATE TABLE IF NOT EXISTS {{.Database}}.schema_migrations{{.OnCluster}}
(
    number   UInt32,
    name     String,
    checksum String, -- SHA-256 of the migration's file, before its template is filled in
    applied  DateTime64(3, 'UTC') DEFAULT now64(3),
    by       String  -- who applied it: program version and host
)
ENGINE = {{.Engine "ReplacingMergeTree"}}
ORDER BY number
SETTINGS {{.DeduplicationWindow}};

-- The order is that of a host's log. seq has no gaps over boots, so that it alone
-- ranges within a host; boot is in the key because a record is host, boot and seq.
-- time grows with seq but for a few records: within a granule its minmax index is
-- as narrow as a key would be, and it serves questions over all hosts too.
-- A row that arrives twice has the same key and the same month and is collapsed.
CREATE TABLE IF NOT EXISTS {{.Database}}.records{{.OnCluster}}
(
    id      String ALIAS concat(host_id, '/', boot, '/', toString(seq)),
    host    LowCardinality(String),
    host_id LowCardinality(String),
    boot    LowCardinality(String),
    seq     UInt64 CODEC(Delta, ZSTD(1)),

    time     DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    time_end DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    kind     LowCardinality(String),

    op    LowCardinality(String),
    ops   Array(LowCardinality(String)),
    count UInt64 CODEC(T64, ZSTD(1)),
    bytes UInt64 CODEC(T64, ZSTD(1)),

    path      String CODEC(ZSTD(1)),
    path_to   String CODEC(ZSTD(1)),
    path_seen String CODEC(ZSTD(1)),

    file_type  LowCardinality(String),
    file_dev   UInt64 CODEC(T64, ZSTD(1)),
    file_ino   UInt64 CODEC(T64, ZSTD(1)),
    file_gen   UInt32 CODEC(T64, ZSTD(1)),
    file_nlink UInt32 CODEC(T64, ZSTD(1)),

    before_exists Nullable(Bool),
    before_type   LowCardinality(String),
    before_hash   FixedString(32) CODEC(ZSTD(1)),
    before_size   UInt64 CODEC(T64, ZSTD(1)),
    before_mode   UInt16 CODEC(T64, ZSTD(1)),
    before_uid    UInt32 CODEC(T64, ZSTD(1)),
    before_gid    UInt32 CODEC(T64, ZSTD(1)),
    before_user   LowCardinality(String),
    before_group  LowCardinality(String),
    before_mtime  DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    before_target String CODEC(ZSTD(1)),
    before_rdev   UInt64 CODEC(T64, ZSTD(1)),
    before_xattrs Map(LowCardinality(String), String),
    before_acl    String CODEC(ZSTD(1)),
    before_flags  LowCardinality(String),
    before_caps   LowCardinality(String),

    after_exists Nullable(Bool),
    after_type   LowCardinality(String),
    after_hash   FixedString(32) CODEC(ZSTD(1)),
    after_size   UInt64 CODEC(T64, ZSTD(1)),
    after_mode   UInt16 CODEC(T64, ZSTD(1)),
    after_uid    UInt32 CODEC(T64, ZSTD(1)),
    after_gid    UInt32 CODEC(T64, ZSTD(1)),
    after_user   LowCardinality(String),
    after_group  LowCardinality(String),
    after_mtime  DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    after_target String CODEC(ZSTD(1)),
    after_rdev   UInt64 CODEC(T64, ZSTD(1)),
    after_xattrs Map(LowCardinality(String), String),
    after_acl    String CODEC(ZSTD(1)),
    after_flags  LowCardinality(String),
    after_caps   LowCardinality(String),

    rule    LowCardinality(String),
    mode    LowCardinality(String),
    verdict LowCardinality(String),
    reason  String CODEC(ZSTD(1)),

    actor_user        LowCardinality(String),
    actor_loginuid    UInt32 CODEC(T64, ZSTD(1)),
    actor_uid         UInt32 CODEC(T64, ZSTD(1)),
    actor_euid        UInt32 CODEC(T64, ZSTD(1)),
    actor_suid        UInt32 CODEC(T64, ZSTD(1)),
    actor_fsuid       UInt32 CODEC(T64, ZSTD(1)),
    actor_gid         UInt32 CODEC(T64, ZSTD(1)),
    actor_egid        UInt32 CODEC(T64, ZSTD(1)),
    actor_fsgid       UInt32 CODEC(T64, ZSTD(1)),
    actor_via         Array(LowCardinality(String)),
    actor_session     String CODEC(ZSTD(1)),
    actor_origin      LowCardinality(String),
    actor_tty         LowCardinality(String),
    actor_source_ip   IPv6 CODEC(ZSTD(1)), -- an IPv4 address is ::ffff:a.b.c.d; none is ::
    actor_source_port UInt16 CODEC(T64, ZSTD(1)),
    actor_evidence    LowCardinality(String),

    process_pid       UInt32 CODEC(T64, ZSTD(1)),
    process_tid       UInt32 CODEC(T64, ZSTD(1)),
    process_exec_id   String CODEC(ZSTD(1)),
    process_comm      LowCardinality(String),
    process_exe       LowCardinality(String),
    process_exe_hash  FixedString(32) CODEC(ZSTD(1)),
    process_argv      Array(String) CODEC(ZSTD(1)),
    process_cwd       String CODEC(ZSTD(1)),
    process_start     DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    process_unit      LowCardinality(String),
    process_cgroup    String CODEC(ZSTD(1)),
    process_container String CODEC(ZSTD(1)),
    process_mnt_ns    LowCardinality(String),
    process_evidence  LowCardinality(String),

    -- one element for each ancestor, parent first
    process_ancestors_pid     Array(UInt32) CODEC(ZSTD(1)),
    process_ancestors_exec_id Array(String) CODEC(ZSTD(1)),
    process_ancestors_exe     Array(LowCardinality(String)),
    process_ancestors_argv    Array(Array(String)) CODEC(ZSTD(1)),
    process_ancestors_user    Array(LowCardinality(String)),

    response_action   LowCardinality(String),
    response_outcome  LowCardinality(String),
    response_took_ns  UInt64 CODEC(T64, ZSTD(1)),
    response_of       String CODEC(ZSTD(1)),
    response_evidence String CODEC(ZSTD(1)),
    response_error    String CODEC(ZSTD(1)),

    gap_lost   UInt64 CODEC(T64, ZSTD(1)),
    gap_from   DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    gap_to     DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    gap_trees  Array(String) CODEC(ZSTD(1)),
    gap_rescan LowCardinality(String),

    sensor_tier LowCardinality(String),
    sensor_hook LowCardinality(String),

    detail Map(LowCardinality(String), String),

    rec      String CODEC(ZSTD(3)), -- the record's bytes in the host's journal: the leaf of its Merkle log
    received DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1)),

    INDEX by_host             host              TYPE set(16)                      GRANULARITY 1,
    INDEX by_time             time              TYPE minmax                       GRANULARITY 1,
    INDEX by_path             path              TYPE ngrambf_v1(4, 32768, 3, 0)   GRANULARITY 1,
    INDEX by_path_to          path_to           TYPE ngrambf_v1(4, 32768, 3, 0)   GRANULARITY 1,
    INDEX by_before_hash      before_hash       TYPE bloom_filter(0.01)           GRANULARITY 1,
    INDEX by_after_hash       after_hash        TYPE bloom_filter(0.01)           GRANULARITY 1,
    INDEX by_process_exe_hash process_exe_hash  TYPE bloom_filter(0.01)           GRANULARITY 1,
    INDEX by_actor_source_ip  actor_source_ip   TYPE bloom_filter(0.01)           GRANULARITY 1,
    INDEX by_actor_user       actor_user        TYPE bloom_filter(0.01)           GRANULARITY 1,
    INDEX by_actor_session    actor_session     TYPE bloom_filter(0.01)           GRANULARITY 1,
    INDEX by_process_exec_id  process_exec_id   TYPE bloom_filter(0.01)           GRANULARITY 1,
    INDEX by_response_of      response_of       TYPE bloom_filter(0.01)           GRANULARITY 1
)
ENGINE = {{.Engine "ReplacingMergeTree"}}
PARTITION BY toYYYYMM(time)
PRIMARY KEY (host_id, seq)
ORDER BY (host_id, seq, boot)
{{.TTL "received"}}
SETTINGS {{.DeduplicationWindow}}, {{.Durability}};

-- Signed roots of the hosts' logs: a record's proof ends at one of them.
CREATE TABLE IF NOT EXISTS {{.Database}}.checkpoints{{.OnCluster}}
(
    host_id  LowCardinality(String),
    size     UInt64 CODEC(Delta, ZSTD(1)), -- the log's first size records are under it
    note     String CODEC(ZSTD(1)),        -- the signed note, byte for byte
    received DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = {{.Engine "ReplacingMergeTree"}}
PARTITION BY toYYYYMM(received)
ORDER BY (host_id, size)
{{.TTL "received"}}
SETTINGS {{.DeduplicationWindow}}, {{.Durability}};
