INSERT INTO lock_session (id, nonce, pid, host, boot, pid_namespace) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
