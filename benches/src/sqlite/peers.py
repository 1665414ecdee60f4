"""A party of a measurement with filelock's lock in SQLite. Asked in lines, answers in lines."""

import sys
import time

import filelock


def main():
    lock = filelock.ReadWriteLock(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "take":
            lock.acquire_write()
            answer = time.monotonic_ns()
        elif words[0] == "give":
            answer = time.monotonic_ns()
            lock.release()
            time.sleep(0.001)
        elif words[0] == "cycles":
            start = time.monotonic_ns()
            for _ in range(int(words[1])):
                lock.acquire_write()
                lock.release()
            answer = (time.monotonic_ns() - start) / int(words[1])
        print(answer, flush=True)


main()
