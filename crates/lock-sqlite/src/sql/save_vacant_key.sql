-- The counts of a key whose exclusive holder has gone.
UPDATE lock_key
SET token = ?2, parties = ?3, waiting = ?4, used = ?5, crowd = ?6, kind = ?7, of = ?8, arrivals = ?9,
    session = NULL, attempt = NULL, expires = NULL, owner = NULL, label = NULL, record = NULL
WHERE name = ?1
