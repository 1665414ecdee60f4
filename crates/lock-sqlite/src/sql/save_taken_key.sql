-- The counts of a key that has another exclusive holder.
UPDATE lock_key
SET token = ?2, parties = ?3, waiting = ?4, used = ?5, crowd = ?6, kind = ?7, of = ?8, arrivals = ?9,
    session = ?10, attempt = ?11, priority = ?12, since = ?13, ttl = ?14, expires = ?15,
    owner = ?16, label = ?17, record = ?18
WHERE name = ?1
