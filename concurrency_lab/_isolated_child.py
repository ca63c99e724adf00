"""The child of `run_isolated`. Run as a script with the standard library only.

Its argument is a folder with `job.json`. It writes `started`, `threads`, `stacks` and `result`
there for the parent to read.
"""

import faulthandler
import importlib
import json
import os
import pickle
import sys
import sysconfig
import threading
import time
import traceback
import types


def name_threads(file):
    """Note the name of every thread that starts: `faulthandler` knows only numbers."""
    original = threading.Thread.start

    def start(self):
        original(self)
        os.write(file, f"{self.ident:x} {self.name}\n".encode())

    threading.Thread.start = start
    os.write(file, f"{threading.get_ident():x} MainThread\n".encode())


def watch(stacks, limit):
    """Write the stacks of all threads when the process crashes, or at the limit and then end."""
    options = {"c_stack": False} if sys.version_info >= (3, 14) else {}
    faulthandler.enable(stacks, **options)
    # Runs in a thread that needs no GIL, and ends this process even if its parent is gone.
    faulthandler.dump_traceback_later(limit, exit=True, file=stacks)


def run_source(path):
    main = types.ModuleType("__main__")
    main.__file__ = path
    main.__builtins__ = __builtins__
    sys.modules["__main__"] = main  # a spawned process finds the source by it
    with open(path, encoding="utf-8") as file:
        source = file.read()
    exec(compile(source, path, "exec"), main.__dict__)


def run_function(folder, job):
    with open(os.path.join(folder, "arguments"), "rb") as file:
        arguments = pickle.load(file)
    function = importlib.import_module(job["module"])
    for part in job["function"].split("."):
        function = getattr(function, part)
    result = pickle.dumps(function(*arguments))
    with open(os.path.join(folder, "result"), "wb") as file:
        file.write(result)


def main():
    folder = sys.argv[1]
    with open(os.path.join(folder, "job.json"), encoding="utf-8") as file:
        job = json.load(file)
    sys.argv = [job["script"]]
    sys.path[:] = job["path"] or sys.path
    sys.path += [entry for entry in job["more_path"] if entry not in sys.path]
    stacks = open(os.path.join(folder, "stacks"), "wb", buffering=0)  # noqa: SIM115
    name_threads(os.open(os.path.join(folder, "threads"), os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    with open(os.path.join(folder, "starting"), "w", encoding="utf-8") as file:
        paths = [sysconfig.get_path("stdlib"), *sys.path]
        json.dump({"at": time.perf_counter(), "paths": paths}, file)
    os.replace(file.name, os.path.join(folder, "started"))  # there as a whole or not at all
    watch(stacks, job["limit"])
    try:
        if job["function"] is None:
            run_source(job["script"])
        else:
            run_function(folder, job)
    except SystemExit:
        raise
    except BaseException as error:
        here = error.__traceback__
        while here and here.tb_frame.f_code.co_filename == __file__:
            here = here.tb_next
        traceback.print_exception(type(error), error, here)
        sys.exit(1)


if __name__ == "__main__":
    main()
