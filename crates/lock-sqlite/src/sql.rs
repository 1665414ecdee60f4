//! The statements. Each stands in a file of its own.

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(pub(crate) const $name: &str = include_str!(concat!("sql/", $file, ".sql"));)*
    };
}

statements! {
    AGE = "age";
    ATTEMPT = "attempt";
    CLAIM = "claim";
    DELETE_IDLE_KEYS = "delete_idle_keys";
    DELETE_PARTIES_OF_SESSION = "delete_parties_of_session";
    DELETE_PARTY = "delete_party";
    DELETE_WAITER = "delete_waiter";
    DOWNGRADE_HOLDER = "downgrade_holder";
    EXPIRED_PARTIES = "expired_parties";
    GRANT_PARTY = "grant_party";
    HEAD = "head";
    HOLDERS = "holders";
    INSERT_PARTY = "insert_party";
    INSERT_SESSION = "insert_session";
    INSPECT = "inspect";
    KEY = "key";
    KEYS_OF_SESSION = "keys_of_session";
    LOWER_RANK_WAITS = "lower_rank_waits";
    NEW_BOOT = "new_boot";
    NEW_KEY = "new_key";
    NEXT_SESSION = "next_session";
    RAISE_FLOOR = "raise_floor";
    RENEW_HOLDER = "renew_holder";
    RENEW_PARTY = "renew_party";
    SAVE_KEY = "save_key";
    SAVE_TAKEN_KEY = "save_taken_key";
    SAVE_VACANT_KEY = "save_vacant_key";
    SCHEMA = "schema";
    SESSIONS_OF_KEY = "sessions_of_key";
    SLOTS = "slots";
    TRANSFER_HOLDER = "transfer_holder";
    TRANSFER_PARTY = "transfer_party";
    UNCLAIM = "unclaim";
}
