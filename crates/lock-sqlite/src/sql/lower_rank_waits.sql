SELECT EXISTS (SELECT 1 FROM lock_party WHERE key = ?1 AND waiting AND rank < ?2)
