"""Prints the median time of acquire and release with redis-py's lock, in microseconds."""

import statistics
import sys
import time

import redis

url, pairs = sys.argv[1], int(sys.argv[2])
lock = redis.Redis.from_url(url).lock("redis-py:uncontended", timeout=30)


def pair():
    start = time.perf_counter_ns()
    assert lock.acquire(blocking=False)
    lock.release()
    return time.perf_counter_ns() - start


for _ in range(200):
    pair()
print(statistics.median(pair() for _ in range(pairs)) / 1000)
