-- A waiter becomes a shared or permit holder.
UPDATE lock_party SET waiting = 0, slot = ?4, since = ?5, expires = ?6
WHERE key = ?1 AND session = ?2 AND attempt = ?3
