SELECT slot FROM lock_party WHERE key = ?1 AND NOT waiting AND slot IS NOT NULL
