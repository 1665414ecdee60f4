INSERT INTO lock_key (name, token) VALUES (?1, (SELECT floor FROM lock_store))
ON CONFLICT (name) DO NOTHING
