-- The sessions of who holds a key or waits for it, with the first of their leases to end.
SELECT session, expires FROM lock_key WHERE name = ?1 AND session IS NOT NULL
UNION ALL
SELECT session, min(expires) FROM lock_party WHERE key = ?1 GROUP BY session
