SELECT name FROM lock_key WHERE session = ?1
UNION
SELECT key FROM lock_party WHERE session = ?1
