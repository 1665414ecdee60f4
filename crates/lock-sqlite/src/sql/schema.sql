-- Format 1. Times: `since` in microseconds of the wall clock, for people; `expires` and `ttl` in
-- nanoseconds of the clock that runs from boot, for leases.

CREATE TABLE lock_store (
    only    INTEGER PRIMARY KEY CHECK (only = 1),
    version INTEGER NOT NULL,
    boot    TEXT    NOT NULL, -- the boot of the host that the floor was last raised for
    floor   INTEGER NOT NULL  -- no key is granted with a fencing base of this or less
);

-- A backend in use in some process. It lives as long as the kernel's lock on its file.
CREATE TABLE lock_session (
    id            INTEGER PRIMARY KEY, -- random, never used again
    nonce         BLOB    NOT NULL,    -- with `attempt`, the owner token
    pid           INTEGER NOT NULL,
    host          TEXT    NOT NULL,
    boot          TEXT    NOT NULL,
    pid_namespace TEXT    NOT NULL
);

-- A key that was ever used, with its exclusive holder: the uncontended case writes this row alone.
-- Swept when idle; then `floor` remembers its fencing base.
CREATE TABLE lock_key (
    name     TEXT    NOT NULL PRIMARY KEY,
    token    INTEGER NOT NULL CHECK (token < 2251799813685248), -- the last fencing base
    session  INTEGER, -- of the exclusive holder, as all up to `record`
    attempt  INTEGER,
    priority INTEGER,
    since    INTEGER,
    ttl      INTEGER,
    expires  INTEGER,
    owner    TEXT,
    label    TEXT,
    record   BLOB,
    parties  INTEGER NOT NULL DEFAULT 0, -- rows of this key in `lock_party`
    waiting  INTEGER NOT NULL DEFAULT 0, -- those of them that wait
    used     INTEGER NOT NULL DEFAULT 0, -- shared holders, or permits that are held
    crowd    INTEGER NOT NULL DEFAULT 0, -- parties that are not exclusive …
    kind     INTEGER NOT NULL DEFAULT 0, -- … and what they all are: 1 shared, 2 permits
    of       INTEGER NOT NULL DEFAULT 0, -- … of so many
    arrivals INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Shared and permit holders, and everyone who waits.
CREATE TABLE lock_party (
    key      TEXT    NOT NULL,
    session  INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,
    waiting  INTEGER NOT NULL,
    kind     INTEGER NOT NULL, -- 0 exclusive, 1 shared, 2 permits
    count    INTEGER NOT NULL,
    of       INTEGER NOT NULL,
    slot     INTEGER,          -- of a permit holder
    priority INTEGER NOT NULL,
    rank     INTEGER NOT NULL, -- the priority, until it was bypassed too often
    arrival  INTEGER NOT NULL,
    bypassed INTEGER NOT NULL DEFAULT 0,
    since    INTEGER NOT NULL,
    ttl      INTEGER,
    expires  INTEGER,
    owner    TEXT,
    label    TEXT,
    record   BLOB,
    PRIMARY KEY (key, session, attempt)
) WITHOUT ROWID;

-- The queue of each key, next one first.
CREATE INDEX lock_line ON lock_party (key, rank DESC, arrival) WHERE waiting;
