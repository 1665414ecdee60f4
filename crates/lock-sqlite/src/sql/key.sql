-- One key, with the fencing base that the next grant must exceed.
SELECT max(token, ?2), session, attempt, expires, parties, waiting, used, crowd, kind, of, arrivals
FROM lock_key WHERE name = ?1
