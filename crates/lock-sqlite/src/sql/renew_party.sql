UPDATE lock_party SET ttl = ?4, expires = ?5
WHERE key = ?1 AND session = ?2 AND attempt = ?3 AND NOT waiting AND (expires IS NULL OR expires >= ?6)
