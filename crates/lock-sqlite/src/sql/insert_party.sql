INSERT INTO lock_party (key, session, attempt, waiting, kind, count, of, slot, priority, rank, arrival,
                        since, ttl, expires, owner, label, record)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
