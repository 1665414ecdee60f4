UPDATE lock_party SET owner = ?4 WHERE key = ?1 AND session = ?2 AND attempt = ?3 AND NOT waiting
