-- Takes a key that nobody uses, in one statement. No row: somebody does.
INSERT INTO lock_key (name, token, session, attempt, priority, since, ttl, expires, owner, label, record)
VALUES (?1, (SELECT floor FROM lock_store) + 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
ON CONFLICT (name) DO UPDATE SET
    token = max(token + 1, excluded.token),
    session = excluded.session,
    attempt = excluded.attempt,
    priority = excluded.priority,
    since = excluded.since,
    ttl = excluded.ttl,
    expires = excluded.expires,
    owner = excluded.owner,
    label = excluded.label,
    record = excluded.record
WHERE session IS NULL AND parties = 0
RETURNING token
