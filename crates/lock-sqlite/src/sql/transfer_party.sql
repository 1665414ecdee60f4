UPDATE lock_party SET owner = coalesce(?4, owner) WHERE key = ?1 AND session = ?2 AND attempt = ?3 AND NOT waiting
