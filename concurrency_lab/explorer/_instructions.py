"""Stops between instructions on Python 3.12, whose `sys.settrace` can crash there.

`sys.monitoring` reports the instructions of chosen code objects only. The trace functions of
`_control` get the same events from it as from `sys.settrace`.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from concurrency_lab.explorer._source import is_library

NEEDED = sys.version_info[:2] == (3, 12)
_IDS = (4, 3, 5, 1, 0)  # 2 is for profilers


@contextlib.contextmanager
def monitored(thread_here: Callable[[], Any]) -> Iterator[None]:
    """While it lasts, threads that ``thread_here`` knows are told of each instruction."""
    monitoring = sys.monitoring
    events = monitoring.events
    tool = next((i for i in _IDS if monitoring.get_tool(i) is None), None)
    if tool is None:
        raise RuntimeError("no tool id of sys.monitoring is free: stop debuggers and profilers")
    watched: set[types.CodeType] = set()

    def start(code: types.CodeType, offset: int) -> Any:
        if is_library(code):
            return monitoring.DISABLE
        thread = thread_here()
        if thread is None or thread.quiet:
            return None
        frame = sys._getframe(1)
        frame.f_trace = thread._call(frame, "call", None)
        if frame.f_trace is not None and code not in watched:
            watched.add(code)
            local = events.INSTRUCTION | events.PY_RETURN | events.PY_YIELD
            monitoring.set_local_events(tool, code, local)
        return None

    def tell(event: str, frame: types.FrameType) -> None:
        thread = thread_here()
        if thread is None or thread.quiet or frame.f_trace is None:
            return
        try:
            frame.f_trace(frame, event, None)
        except BaseException:
            thread.quiet = True  # the run is over
            raise

    def instruction(code: types.CodeType, offset: int) -> None:
        tell("opcode", sys._getframe(1))

    def back(code: types.CodeType, offset: int, value: object) -> None:
        tell("return", sys._getframe(1))

    def raised(code: types.CodeType, offset: int, error: BaseException) -> None:
        if code in watched:
            tell("exception", sys._getframe(1))

    callbacks = {
        events.PY_START: start,
        events.INSTRUCTION: instruction,
        events.PY_RETURN: back,
        events.PY_YIELD: back,
        events.RAISE: raised,
    }
    monitoring.use_tool_id(tool, "concurrency_lab.explorer")
    try:
        for event, callback in callbacks.items():
            monitoring.register_callback(tool, event, callback)
        monitoring.set_events(tool, events.PY_START | events.RAISE)
        monitoring.restart_events()
        yield
    finally:
        monitoring.set_events(tool, 0)
        for code in watched:
            monitoring.set_local_events(tool, code, 0)
        for event in callbacks:
            monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)
