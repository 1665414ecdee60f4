-- The sessions of a key's parties, one by one: a look-up each, however many parties there are.
SELECT min(session) FROM lock_party WHERE key = ?1 AND session > ?2
