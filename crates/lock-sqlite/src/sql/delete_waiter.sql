DELETE FROM lock_party WHERE key = ?1 AND session = ?2 AND attempt = ?3
