-- So that keys which are about to be forgotten start above what they were.
UPDATE lock_store SET floor = max(floor, coalesce(
    (SELECT max(token) FROM lock_key WHERE session IS NULL AND parties = 0), 0))
