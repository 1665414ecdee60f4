UPDATE lock_key SET owner = ?4 WHERE name = ?1 AND session = ?2 AND attempt = ?3
