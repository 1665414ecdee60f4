-- Everyone who holds a key, with the nonce of its process.
SELECT lock_key.session, attempt, nonce
FROM lock_key LEFT JOIN lock_session ON id = lock_key.session
WHERE name = ?1 AND lock_key.session IS NOT NULL
UNION ALL
SELECT session, attempt, nonce
FROM lock_party LEFT JOIN lock_session ON id = session
WHERE key = ?1 AND NOT waiting
