"""What explored code may import: locks by name, in functions and in classes, and module globals."""

import threading
from queue import SimpleQueue
from threading import Condition, Lock, RLock

number = 0


class Vault:
    def __init__(self):
        self.lock = Lock()
        self.rlock = RLock()
        self.told = Condition()
        self.queue = SimpleQueue()
        self.amount = 0

    def add(self):
        with self.lock, self.rlock:
            amount = self.amount
            self.amount = amount + 1
        self.queue.put(self.amount)


class Registry:
    """Gives each name its lock, made when it is first asked for."""

    def __init__(self):
        self.locks = {}

    def __call__(self, name):
        return self.locks.setdefault(name, threading.Lock())


def count():
    global number
    value = number
    number = value + 1
