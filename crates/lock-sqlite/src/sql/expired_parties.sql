SELECT session, attempt FROM lock_party WHERE key = ?1 AND NOT waiting AND expires < ?2
