"""A party of a measurement with a lock of a Python library. Asked in lines, answers in lines."""

import os
import sys
import time


class Filelock:
    def __init__(self, directory):
        import filelock

        self.lock = filelock.FileLock(os.path.join(directory, "filelock"))

    def take(self):
        self.lock.acquire()

    def give(self):
        self.lock.release()


class Portalocker:
    def __init__(self, directory):
        import portalocker

        self.lock = portalocker.Lock(os.path.join(directory, "portalocker"), timeout=600)

    def take(self):
        self.lock.acquire()

    def give(self):
        self.lock.release()


class Fasteners:
    def __init__(self, directory):
        import fasteners

        self.lock = fasteners.InterProcessLock(os.path.join(directory, "fasteners"))

    def take(self):
        self.lock.acquire()

    def give(self):
        self.lock.release()


def contend(lock, hold, until, directory):
    inside = os.open(os.path.join(directory, "inside"), os.O_RDWR | os.O_CREAT, 0o600)
    mine = os.getpid().to_bytes(4, "little")
    grants = longest = violations = 0
    last = time.monotonic_ns()
    while last < until:
        lock.take()
        entered = time.monotonic_ns()
        longest = max(longest, entered - last)
        last = entered
        grants += 1
        occupied = os.pread(inside, 4, 0) not in (b"", b"\0\0\0\0")
        os.pwrite(inside, mine, 0)
        while time.monotonic_ns() < entered + hold:
            pass
        violations += occupied or os.pread(inside, 4, 0) != mine
        os.pwrite(inside, b"\0\0\0\0", 0)
        lock.give()
    return f"{grants} {longest // 1000} {violations}"


def main():
    kind, directory = sys.argv[1:]
    lock = {"filelock": Filelock, "portalocker": Portalocker, "fasteners": Fasteners}[kind](directory)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "take":
            lock.take()
            answer = time.monotonic_ns()
        elif words[0] == "give":
            answer = time.monotonic_ns()
            lock.give()
            time.sleep(0.001)
        elif words[0] == "contend":
            until = time.monotonic_ns() + int(words[2]) * 1_000_000
            answer = contend(lock, int(words[1]) * 1000, until, directory)
        elif words[0] == "cycles":
            start = time.monotonic_ns()
            for _ in range(int(words[1])):
                lock.take()
                lock.give()
            answer = (time.monotonic_ns() - start) / int(words[1])
        print(answer, flush=True)


main()
