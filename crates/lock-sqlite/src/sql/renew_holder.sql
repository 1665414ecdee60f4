UPDATE lock_key SET ttl = ?4, expires = ?5
WHERE name = ?1 AND session = ?2 AND attempt = ?3 AND (expires IS NULL OR expires >= ?6)
