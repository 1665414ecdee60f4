-- A power cut can have taken the last transactions along. The floor leaps over all grants that can
-- be among them, and to the wall clock if that is ahead.
UPDATE lock_store SET boot = ?1, floor = max(
    floor + ?2,
    ?2 + coalesce((SELECT max(token) FROM lock_key), 0),
    ?3)
WHERE boot <> ?1 OR boot = ''
