-- What became of an attempt: whether it waits, its slot, the end of its lease, the key's fencing base,
-- its mode.
SELECT 0, NULL, expires, token, 0 FROM lock_key WHERE name = ?1 AND session = ?2 AND attempt = ?3
UNION ALL
SELECT lock_party.waiting, slot, lock_party.expires, token, lock_party.kind
FROM lock_party JOIN lock_key ON name = key
WHERE key = ?1 AND lock_party.session = ?2 AND lock_party.attempt = ?3
