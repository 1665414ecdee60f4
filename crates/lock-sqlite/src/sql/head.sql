-- Who is next.
SELECT session, attempt, kind, count, of, priority, rank, arrival, ttl, owner, label, record
FROM lock_party WHERE key = ?1 AND waiting
ORDER BY rank DESC, arrival LIMIT 1
