-- The highest fencing token that has written each resource.
CREATE TABLE IF NOT EXISTS lock_fence (
    resource TEXT PRIMARY KEY,
    epoch    BIGINT NOT NULL,
    number   BIGINT NOT NULL
);
