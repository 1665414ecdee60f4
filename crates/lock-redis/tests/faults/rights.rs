//! The rights that the README tells: enough, and each needed.

use lock_core::{ErrorKind, Released};
use lock_testkit::services::redis::{RedisOptions, RedisServer};

use crate::support::{Client, in_background, patient, refusal, with_password, works};

/// The rights of the README.
const RIGHTS: &str = "~lock:* &lock:* +evalsha +eval +time +hmget +hget +hgetall +hkeys \
                      +hset +hdel +xadd +xdel +xlen +xrange +xinfo +pttl +multi +exec +zadd +zrem \
                      +zscore +zcard +zrange +zrangebyscore +zpopmin +sadd +sismember +bitpos +setbit +pexpire +del +publish +subscribe +scan";

fn server_with(rights: &str) -> RedisServer {
    let rule = format!("worker on >hunter2 {rights}");
    RedisServer::start_with(RedisOptions::default().with_user(&rule)).unwrap()
}

#[test]
fn the_documented_rights_are_enough() {
    let readme = include_str!("../../README.md");
    assert!(readme.contains(RIGHTS), "the README tells other rights");
    let server = server_with(RIGHTS);
    let config = with_password(&server, "worker", "hunter2");
    works(config.clone());
    let (first, second) = (Client::new(config.clone()), Client::new(config));
    let guard = first.lock("b").acquire_with(&patient()).wait().unwrap();
    let waiting = in_background(&second.lock("b"));
    first.until_queued("b", 1);
    assert_eq!(guard.release_blocking().unwrap(), Released::Released);
    drop(waiting.join().unwrap().unwrap());
    first.until_idle("b");
}

#[test]
fn a_missing_right_is_named() {
    for (missing, told) in [
        ("+xadd ", "xadd"),
        ("+evalsha ", "evalsha"),
        ("+subscribe", "subscribe"),
    ] {
        let server = server_with(&RIGHTS.replace(missing, ""));
        let error = refusal(with_password(&server, "worker", "hunter2"));
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        let hidden = error.message().contains("can't run this command");
        assert!(hidden || error.message().contains(told), "{error}");
    }
}
