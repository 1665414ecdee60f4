-- The counts of a key whose exclusive holder has not changed.
UPDATE lock_key
SET token = ?2, parties = ?3, waiting = ?4, used = ?5, crowd = ?6, kind = ?7, of = ?8, arrivals = ?9
WHERE name = ?1
