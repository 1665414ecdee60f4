-- Takes a key that was used before, if nobody uses it now: the whole of an uncontended acquire.
UPDATE lock_key SET
    token = lock_note(max(token, ?2) + 1),
    session = ?3, attempt = ?4, priority = ?5, since = ?6, ttl = ?7, expires = ?8,
    owner = ?9, label = ?10, record = ?11
WHERE name = ?1 AND session IS NULL AND parties = 0
