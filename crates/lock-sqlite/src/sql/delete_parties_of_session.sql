DELETE FROM lock_party WHERE key = ?1 AND session = ?2
RETURNING waiting, kind, count
