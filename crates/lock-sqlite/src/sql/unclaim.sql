-- Gives an exclusive lock back that nobody waits for.
UPDATE lock_key
SET session = NULL, attempt = NULL, expires = NULL, owner = NULL, label = NULL, record = NULL
WHERE name = ?1 AND session = ?2 AND attempt = ?3 AND parties = 0
