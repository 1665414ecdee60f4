DELETE FROM lock_key WHERE session IS NULL AND parties = 0
