-- Somebody of rank ?2 who came as ?3 was granted: the oldest waiter of each lower rank, if it came
-- before, was bypassed once more. After 64 times it goes to the front.
UPDATE lock_party
SET bypassed = bypassed + 1,
    rank = CASE WHEN bypassed + 1 >= ?4 THEN ?5 ELSE rank END
WHERE key = ?1 AND waiting AND rank < ?2 AND arrival < ?3
  AND arrival = (
      SELECT min(other.arrival) FROM lock_party AS other
      WHERE other.key = ?1 AND other.waiting AND other.rank = lock_party.rank
  )
