"""Random small programs, the same for the same seed. Source code is made up and can be shown."""

import linecache
import random
import threading
from types import SimpleNamespace as Shared

HELPERS = '''\
class Gate:
    passed = 0

    def __init__(self):
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.count += 1
        Gate.passed += 1


class Box:
    def __init__(self):
        self.value = 0

    @property
    def double(self):
        value = self.value
        return value + self.value


def get(s):
    value = s.x
    return value


def get_locked(s):
    with s.lock:
        return s.x


def get_guarded(s):
    try:
        return s.y
    finally:
        s.x += 1


def fail(s):
    raise ValueError(s.x)


def values(s):
    for _ in range(2):
        yield s.x


def put(things, n):
    things.append(n)
    things.append(n + 1)

'''

LOCALS = {
    " items": "s.items", " box": "s.box", "later": "s.items.append", " it,": "iter(())"
}  # fmt: skip

SIMPLE = (
    "v = s.x", "s.x = v + 1", "s.x += 1", "s.x = 0", "s.y = v", "s.out.append(v)",
    "s.x = s.x + get(s)", "v = get(s)", "v = get_locked(s)", "v = get_guarded(s)",
    "s.out.append(get(s) + get(s))", "s.y = s.x + get_locked(s)",
    "s.items.append(s.x)", "s.items = list(s.items)", "items = s.items", "items.append(v)",
    "s.items = items", "put(s.items, s.x)", "put(items, get(s))",
    "s.out.append(len(s.items) + get(s))", "s.out.append([get(s) for _ in range(2)])",
    "s.out.append(sum(get(s) for _ in (1, 2)))",
    "v = max(items, key=lambda n: n + get(s), default=0)",
    "s.box = s.boxes[s.x % 2]", "s.box.value += 1", "box = s.box", "box.value = s.x",
    "v = box.double",
    "s.out.append(box.value + box.double)", "s.gate = s.gates[1]", "s.gate = Gate()",
    "s.out.append([g.count for g in s.gates])", "s.q.put(s.x)", "s.y = s.x + s.q.get()",
    "v = s.q.get()", "s.sem.release()", "s.sem.acquire()", "got = s.lock.acquire(timeout=1)",
    "s.table[v] = s.x", "s.seen.add(8 * s.x)", "s.out.append(list(s.seen))", "del s.items[:]",
    "s.out.append((s.x, v) if get(s) else v)", "v = s.y and get(s)", "s.x, v = v, s.x",
    "s.boxes[0], s.boxes[1] = s.boxes[1], s.boxes[0]", "later = s.items.append", "later(s.x)",
    "v = next( it, 9)", "it = iter(s.items)", "s.lock = type(s.lock)()",
)  # fmt: skip

COMPOUND = (
    "if s.x:", "if get(s) == v:", "for i in range(2):", "for item in s.items:",
    "for item in list(s.items):", "for v in values(s):", "for v in (1, 2):", "while s.x < 2:",
    "with s.lock:", "with s.gate:", "with s.gates[s.y % 2]:", "with s.lock, s.gate:", "with s.sem:",
    "with s.gates[0] as gate:", "try:", "guard:", "for box in s.boxes:", "match s.x:",
)  # fmt: skip


def _block(chance, depth, indent):
    lines = []
    for _ in range(chance.choice((1, 1, 2) if depth else (1, 2, 2))):
        if depth < 2 and chance.random() < 0.35:
            head = chance.choice(COMPOUND)
            deeper = indent + ("        " if head == "match s.x:" else "    ")
            body = _block(chance, depth + 1, deeper)
            if head == "try:":
                failing = [f"{indent}    fail(s)"] * chance.randrange(2)
                handler = chance.choice(("ValueError as error", "ValueError", "Exception"))
                lines += [f"{indent}try:", *body, *failing, f"{indent}except {handler}:"]
                told = "error.args" if "as" in handler else "s.y"
                lines += [f"{indent}    s.y += 1", f"{indent}    s.out.append({told})"]
            elif head == "guard:":
                lines += [f"{indent}try:", *body, f"{indent}finally:", f"{indent}    s.y = s.x"]
            elif head == "match s.x:":
                lines += [f"{indent}match s.x:", f"{indent}    case 0:", *body]
                lines += [f"{indent}    case v:", f"{indent}        s.out.append(v)"]
            elif head == "while s.x < 2:":
                lines += [f"{indent}{head}", *body, f"{indent}    s.x += 1"]
            else:
                lines += [f"{indent}{head}", *body]
        else:
            lines.append(indent + chance.choice(SIMPLE))
    return lines


def source(seed):
    """Helpers and two or three functions named f0, f1 ... that share an object."""
    chance = random.Random(seed)
    text = HELPERS
    number = chance.choice((2, 2, 2, 3))
    for i in range(number):
        body = "\n".join(_block(chance, 0, "    ")) + "\n"
        first = [f"{name.strip(' ,')} = {value}" for name, value in LOCALS.items() if name in body]
        text += f"\ndef f{i}(s, v=0):\n" + (f"    {'; '.join(first)}\n" if first else "") + body
        if " v = " in body and chance.random() < 0.5:
            text += "    s.out.append(v)\n"
    return text, number


def make(seed):
    """(functions, setup) of a seed."""
    text, number = source(seed)
    name = f"/random_programs/{seed}.py"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace = {"__name__": f"random_program_{seed}"}
    exec(compile(text, name, "exec"), namespace)

    def setup():
        import queue

        namespace["Gate"].passed = 0
        box, gate = namespace["Box"](), namespace["Gate"]()
        return Shared(
            x=0, y=0, items=[1], out=[], table={}, seen=set(), box=box, gate=gate,
            boxes=[box, namespace["Box"]()], gates=[gate, namespace["Gate"]()],
            lock=threading.Lock(), sem=threading.Semaphore(1), q=queue.Queue(),
        )  # fmt: skip

    return [namespace[f"f{i}"] for i in range(number)], setup
