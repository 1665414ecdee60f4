-- One key, with the fencing base that the next grant must exceed.
SELECT max(token, (SELECT floor FROM lock_store)), session, attempt, expires,
       parties, waiting, used, crowd, kind, of, arrivals
FROM lock_key WHERE name = ?1
