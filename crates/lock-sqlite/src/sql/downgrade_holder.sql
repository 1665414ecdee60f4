-- The exclusive holder of a key becomes a shared one.
INSERT INTO lock_party (key, session, attempt, waiting, kind, count, of, priority, rank, arrival,
                        since, ttl, expires, owner, label, record)
SELECT name, session, attempt, 0, 1, 0, 0, priority, priority, ?2,
       since, ttl, expires, owner, label, record
FROM lock_key WHERE name = ?1
