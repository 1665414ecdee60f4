-- Holders, then waiters, of all keys in a range of names, keys in order and next waiter first.
SELECT name, lock_key.session, attempt, 0 AS waiting, 0, 1, 0, priority, since, expires,
       owner, label, record, token, nonce, pid, host, boot, pid_namespace, 128 AS rank, 0 AS arrival
FROM lock_key JOIN lock_session ON id = lock_key.session
WHERE name >= ?1 AND name < ?2
UNION ALL
SELECT key, session, attempt, waiting, kind, count, of, priority, since, expires,
       owner, label, record, NULL, nonce, pid, host, boot, pid_namespace, rank, arrival
FROM lock_party JOIN lock_session ON id = session
WHERE key >= ?1 AND key < ?2
ORDER BY name, waiting, rank DESC, arrival
