-- Lets a token write if no higher one has: changes one row, or none.
-- $1 resource, $2 epoch, $3 number
INSERT INTO lock_fence (resource, epoch, number) VALUES ($1, $2, $3)
ON CONFLICT (resource) DO UPDATE
    SET epoch = excluded.epoch, number = excluded.number
    WHERE excluded.epoch > lock_fence.epoch
       OR (excluded.epoch = lock_fence.epoch AND excluded.number >= lock_fence.number);
