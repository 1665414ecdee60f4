UPDATE lock_key SET owner = coalesce(?4, owner) WHERE name = ?1 AND session = ?2 AND attempt = ?3
