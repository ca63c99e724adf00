"""Work for the experiments: bound by Python, by C code, by waiting.

All functions are importable, so that worker processes can find them under every start method.
Each returns a value that depends on its argument only, so that equal work can be asserted.
"""

import hashlib
import math
import time
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

BLOCK = 1 << 20
"""Bytes in a block of `hash_blocks` and `compress_blocks`."""


def count_primes(n: int) -> int:
    """Return how many primes are less than `n`, by trial division in pure Python.

    Holds the GIL all the time. The time grows a little faster than `n`.
    """
    count = 0
    for candidate in range(2, n):
        divisor = 2
        while divisor * divisor <= candidate:
            if candidate % divisor == 0:
                break
            divisor += 1
        else:
            count += 1
    return count


def spin(iterations: int) -> int:
    """Add up the numbers below `iterations` in a loop of pure Python, and return the sum.

    Holds the GIL; the time is proportional to `iterations`.
    """
    total = 0
    for number in range(iterations):
        total += number
    return total


def hash_blocks(n_blocks: int) -> str:
    """Return the SHA-256 digest of `n_blocks` blocks of a megabyte.

    `hashlib` lets the GIL go while it hashes more than 2047 bytes.
    """
    digest = hashlib.sha256()
    block = _block()
    for _ in range(n_blocks):
        digest.update(block)
    return digest.hexdigest()


def compress_blocks(n_blocks: int) -> int:
    """Compress `n_blocks` blocks of a megabyte; return the number of bytes that come out.

    `zlib.compress` lets the GIL go while it works.
    """
    block = _block()
    return sum(len(zlib.compress(block, 6)) for _ in range(n_blocks))


@cache
def _block() -> bytes:
    """A megabyte that compresses to about a half, made from a fixed seed."""
    numbers = range(BLOCK // 64)
    return b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() * 2 for number in numbers)


_BIG = 3**20_000


def big_power(n: int) -> int:
    """Raise a number of 31 700 bits to the power `n`; return how many bits the result has.

    The power is one bytecode of the interpreter, and the GIL is not let go before it is done.
    The time grows roughly as `n` ** 1.6.
    """
    return (_BIG**n).bit_length()


def wait(seconds: float) -> float:
    """Wait as for an answer from a disk or a network, with the GIL let go; return `seconds`."""
    time.sleep(seconds)
    return seconds


def fetch(url: str) -> int:
    """Get `url` over a new HTTP connection; return the number of bytes in the body.

    Raises `urllib.error.HTTPError` for status 400 and above, `URLError` if there is no
    connection, `TimeoutError` after 30 seconds of silence.
    """
    with _opener().open(url, timeout=30) as response:
        return len(response.read())


@cache
def _opener() -> Any:
    # Imported here: a worker process that only computes should start without it.
    from urllib.request import ProxyHandler, build_opener

    return build_opener(ProxyHandler({}))  # a proxy of the environment cannot reach 127.0.0.1


def calibrate(func: Callable[[int], Any], seconds: float) -> int:
    """Return an integer with which `func(integer)` takes about `seconds`, here and now.

    Doubles the argument until the call is long enough to be timed, then follows the growth seen
    between two sizes. The answer depends on the machine and its load: use it to choose a size, not
    to compare.
    """
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"seconds must be a positive number, not {seconds!r}")

    def timed(argument: int) -> float:
        start = time.perf_counter()
        func(argument)
        return max(time.perf_counter() - start, 1e-9)

    func(1)  # whatever happens once only
    argument, elapsed = 1, timed(1)
    smaller, smaller_elapsed = argument, elapsed
    while elapsed < seconds / 4 and argument < 1 << 60:
        smaller, smaller_elapsed = argument, elapsed
        argument *= 2
        elapsed = min(timed(argument), timed(argument))
    for _ in range(3):
        if 0.85 <= elapsed / seconds <= 1.15 or (argument == 1 and elapsed > seconds):
            break
        growth = 1.0
        if argument != smaller and elapsed > smaller_elapsed:
            growth = math.log(elapsed / smaller_elapsed) / math.log(argument / smaller)
        growth = min(max(growth, 0.8), 3.0)  # noise must not send the next guess far away
        guess = max(1, round(argument * (seconds / elapsed) ** (1 / growth)))
        if guess == argument:
            break
        smaller, smaller_elapsed = argument, elapsed
        argument, elapsed = guess, timed(guess)
    return argument
