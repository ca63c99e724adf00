"""Where a thread of an explored program may be stopped: statements and instructions."""

from __future__ import annotations

import ast
import collections
import dis
import functools
import inspect
import linecache
import os
import sysconfig
import types
from collections.abc import Callable
from dataclasses import dataclass, field

_HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(_HERE) + os.sep
_LIBRARIES = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
) + (_HERE + os.sep, "<frozen", "<string>")
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
_LOOPS = (ast.ListComp, ast.SetComp, ast.DictComp)
_NO_STEP = (ast.Try, ast.TryStar, ast.Global, ast.Nonlocal, ast.Break, ast.Continue)


def is_library(code: types.CodeType) -> bool:
    """Whether code belongs to Python's library, an installed package or the explorer itself."""
    return is_library_path(code.co_filename)


def is_library_path(file: str) -> bool:
    """Whether a source file belongs to Python's library, a package or the explorer itself.

    The rest of the explorer's own package is explored like the reader's code: also where it is
    installed among the libraries.
    """
    if file.startswith(PACKAGE):
        return file.startswith(_HERE + os.sep)
    return file.startswith(_LIBRARIES)


@dataclass
class Statement:
    """A statement of an explored program: where it begins, and what its evaluation hides."""

    line: int
    is_step: bool = True
    #: While this statement is about to run, everything its function knows is in its variables.
    plain: bool = True
    #: The function that it calls, if that call is all it does: nothing is hidden meanwhile.
    calls: str | None = None
    #: The last line of a with statement: control comes back to it when its block is left.
    end: int = 0
    #: The expression of a with statement that has one, and it is a path such as `s.locks[0]`.
    context: ast.expr | None = None
    #: A value may wait on the stack while the with statement is left: one that is returned.
    returns: bool = False
    #: A with statement whose block can be left with a value that waits, after other statements.
    guards: bool = False
    #: It is an expression whose value is dropped, such as a call.
    drops: bool = False
    #: It stands in an except block: an exception is being handled.
    handles: bool = False
    #: It contains a comprehension, whose loop is part of the step (from 3.12 on it is inlined).
    loops: bool = False

    def holds(self, other: Statement) -> bool:
        """Whether this is a with statement and the other one stands in its block."""
        return self.line < other.line <= self.end


@functools.cache
def _statements(filename: str) -> dict[int, Statement]:
    """The statements of a file by line. Empty if there is no source."""
    source = "".join(linecache.getlines(filename))
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return {}
    found: dict[int, Statement] = {}
    _Visitor(found).visit(tree)
    return found


class _Visitor(ast.NodeVisitor):
    def __init__(self, found: dict[int, Statement]) -> None:
        self.found = found
        self.plain = True
        self.handles = False
        self.functions: list[ast.AST] = []  # around this place, the outermost first

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            self._add(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            outer = self.plain, self.handles
            self.plain, self.handles = True, False
            self.functions.append(node)
            self.generic_visit(node)
            self.functions.pop()
            self.plain, self.handles = outer
        elif isinstance(node, ast.For) and not self._tells_position(node):
            self._hidden([node])
        elif isinstance(node, ast.AsyncFor | ast.AsyncWith | ast.Match):
            self._hidden([node])
        elif isinstance(node, ast.With) and not _shows_context(node):
            self._hidden([node])
        elif isinstance(node, ast.Try | ast.TryStar):
            for part in (*node.body, *node.orelse):
                self.visit(part)
            for handler in node.handlers:
                self.found[handler.lineno] = Statement(handler.lineno, is_step=False)
                bare = any(isinstance(n, ast.Raise) and not n.exc for n in ast.walk(handler))
                outer, self.handles = self.handles, True
                self._hidden(handler.body, bare or isinstance(node, ast.TryStar))
                self.handles = outer
            self._hidden(node.finalbody)
        else:
            self.generic_visit(node)

    def _hidden(self, nodes: list, hidden: bool = True) -> None:
        """Visit nodes that run while something that no variable shows waits to be used."""
        outer, self.plain = self.plain, self.plain and not hidden
        for node in nodes:
            if isinstance(node, ast.For | ast.AsyncFor | ast.With | ast.AsyncWith | ast.Match):
                self._add(node)
                self.generic_visit(node)
            else:
                self.visit(node)
        self.plain = outer

    def _add(self, node: ast.stmt) -> None:
        body = getattr(node, "body", None) or getattr(node, "cases", None)
        last = node.end_lineno or node.lineno
        if body:
            first = body[0].pattern if isinstance(node, ast.Match) else body[0]
            last = max(node.lineno, first.lineno - 1)
        is_step = not isinstance(node, _NO_STEP) and not (
            isinstance(node, ast.While)
            and isinstance(node.test, ast.Constant)
            or isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
        )
        statement = Statement(node.lineno, is_step, self.plain, _only_call(node))
        statement.loops = any(isinstance(n, _LOOPS) for n in ast.walk(node))
        statement.handles = self.handles
        statement.drops = isinstance(node, ast.Expr) and statement.calls is not None
        statement.returns = isinstance(node, ast.Return) and not isinstance(
            node.value, ast.Constant | None
        )
        if isinstance(node, ast.With):
            statement.end = node.end_lineno or 0
            statement.guards = any(isinstance(n, ast.Try) and n.finalbody for n in ast.walk(node))
            if _shows_context(node):
                statement.context = node.items[0].context_expr
        for line in range(node.lineno, last + 1):
            self.found[line] = statement

    def _tells_position(self, loop: ast.For) -> bool:
        """Whether the loop variable alone says how far the loop has come."""
        if not isinstance(loop.target, ast.Name) or not self.functions:
            return False
        stored = [
            node.id
            for node in ast.walk(self.functions[0])
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
        ]
        if stored.count(loop.target.id) != 1:
            return False
        items = loop.iter
        if isinstance(items, ast.Tuple | ast.List):
            values = [ast.dump(item) for item in items.elts if isinstance(item, ast.Constant)]
            return len(values) == len(items.elts) == len(set(values))
        if isinstance(items, ast.Constant) and isinstance(items.value, str):
            return len(set(items.value)) == len(items.value)
        own = {a.arg for function in self.functions for a in function.args.args}
        return (
            isinstance(items, ast.Call)
            and isinstance(items.func, ast.Name)
            and items.func.id == "range"
            and all(
                isinstance(a, ast.Constant)
                or isinstance(a, ast.Name)
                and a.id in own
                and a.id not in stored
                for a in items.args
            )
        )


def _shows_context(node: ast.With) -> bool:
    """Whether the object that a with statement will leave can be told before it is entered."""
    return (
        len(node.items) == 1
        and _is_path(node.items[0].context_expr)
        and node.body[0].lineno > node.lineno
    )


def _is_path(node: ast.AST) -> bool:
    """A name, an attribute or an item of one: nothing is made that is not seen elsewhere."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Subscript) and not all(
            isinstance(n, _INDEX) for n in ast.walk(node.slice)
        ):
            return False
        node = node.value
    return isinstance(node, ast.Name)


_INDEX = (
    ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.expr_context
)  # fmt: skip
UNKNOWN = object()


def look_up(path: ast.expr, frame: types.FrameType) -> object:
    """What a path of `_is_path` leads to in a frame. UNKNOWN if a program's code would be run."""
    if isinstance(path, ast.Name):
        for names in (frame.f_locals, frame.f_globals, frame.f_builtins):
            if path.id in names:
                return names[path.id]
        return UNKNOWN
    owner = look_up(path.value, frame)
    if isinstance(path, ast.Attribute):
        found = inspect.getattr_static(owner, path.attr, UNKNOWN)
        if found is UNKNOWN or isinstance(found, types.FunctionType) or is_computed(found):
            return UNKNOWN
        return getattr(owner, path.attr)
    if type(owner) not in (list, tuple, dict, collections.defaultdict, collections.deque):
        return UNKNOWN
    index = compile(ast.Expression(path.slice), "<index>", "eval")
    try:
        return owner[eval(index, frame.f_globals, dict(frame.f_locals))]
    except Exception:
        return UNKNOWN  # the program will find that, too


def is_computed(attribute: object) -> bool:
    """Whether a class computes an attribute: a property and the like, but not a slot."""
    return hasattr(type(attribute), "__get__") and not isinstance(
        attribute, types.MemberDescriptorType
    )


def _only_call(node: ast.stmt) -> str | None:
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr | ast.Return):
        value = node.value
    elif isinstance(node, ast.If | ast.While | ast.Assert):
        value = node.test
    else:
        return None
    if isinstance(value, ast.UnaryOp):
        value = value.operand
    if isinstance(value, ast.Compare) and all(
        isinstance(other, ast.Constant) for other in value.comparators
    ):
        value = value.left  # evaluated first: `while (item := q.get()) is not None`
    if isinstance(value, ast.NamedExpr):
        value = value.value
    if not isinstance(value, ast.Call):
        return None
    given = (value.func, *value.args, *value.keywords)
    if any(isinstance(n, ast.Call | ast.Await | ast.Yield) for a in given for n in ast.walk(a)):
        return None
    if isinstance(value.func, ast.Name):
        return value.func.id
    return value.func.attr if isinstance(value.func, ast.Attribute) else None


# Instructions that read or write what another thread can see. Loads of local variables cannot.
_SHARED = {
    "LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF",
    "BINARY_SUBSCR", "BINARY_SLICE", "STORE_SLICE", "CONTAINS_OP", "FOR_ITER", "UNPACK_SEQUENCE",
    "CALL", "CALL_FUNCTION_EX", "CALL_KW", "BEFORE_WITH", "LOAD_SPECIAL", "WITH_EXCEPT_START",
    "STORE_ATTR", "STORE_GLOBAL", "STORE_NAME", "STORE_DEREF", "STORE_SUBSCR",
    "DELETE_ATTR", "DELETE_GLOBAL", "DELETE_NAME", "DELETE_DEREF", "DELETE_SUBSCR",
}  # fmt: skip
AFTER_CALL, BEGIN = "after a call", "begin of the function"
END_OF_ROUND = "end of a loop's round"
_CALLS = {"CALL", "CALL_FUNCTION_EX", "CALL_KW"}
_CONSTANT = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)


@dataclass
class Program:
    """What a code object offers to stop at."""

    code: types.CodeType
    namespace: dict
    granularity: str
    stops: dict[int, str] = field(default_factory=dict)
    jumps: dict[tuple[int, int], str] = field(default_factory=dict)
    empty: set[int] = field(default_factory=set)
    lines: dict[int, Statement] = field(default_factory=dict)
    first: int = 0

    def __post_init__(self) -> None:
        self.lines = _statements(self.code.co_filename)
        self.first = self.code.co_firstlineno
        if self.granularity == "line":
            return
        instructions = list(dis.get_instructions(self.code))
        if self.granularity == "bytecode":
            for i in instructions:
                if self._touches_shared(i):
                    self.stops[i.offset] = f"{i.opname} {i.argrepr}".strip()
        else:
            previous = None
            for i in instructions:
                if i.opname in ("CACHE", "EXTENDED_ARG"):
                    continue
                if i.opname == "JUMP_BACKWARD":
                    self.stops[i.offset] = END_OF_ROUND
                elif previous is not None and previous.opname in _CALLS:
                    self.stops[i.offset] = AFTER_CALL
                elif previous is not None and previous.opname == "RESUME" and previous.arg & 3 < 2:
                    self.stops[i.offset] = BEGIN
                    if previous.arg == 0:
                        self.empty.add(i.offset)
                if i.opname.startswith("POP_JUMP_BACKWARD"):  # Python 3.11
                    self.jumps[i.offset, i.argval] = END_OF_ROUND
                if i.opname == "POP_TOP":
                    self.empty.add(-i.offset)
                previous = i

    def is_empty(self, offset: int, statement: Statement, first: bool) -> bool:
        """Whether no value waits on the stack at a stop that is perhaps a statement's first."""
        stop = self.stops.get(offset, END_OF_ROUND)
        if stop == END_OF_ROUND:
            return not statement.loops
        if stop == AFTER_CALL:  # the result is dropped, and nothing else is there
            return statement.drops and -offset in self.empty
        if stop == BEGIN:
            return offset in self.empty
        return first

    def is_within(self, line: int) -> bool:
        """Whether a line belongs to a with statement."""
        return any(s.line <= line <= s.end for s in self.lines.values())

    def _touches_shared(self, i: dis.Instruction) -> bool:
        if i.opname == "LOAD_GLOBAL" or i.opname == "LOAD_NAME":
            value = self.namespace.get(i.argval, int)
            return not isinstance(value, _CONSTANT)
        return i.opname in _SHARED or i.opname == "BINARY_OP" and i.argrepr == "[]"

    def statement(self, line: int | None) -> Statement:
        line = line or 0  # instructions that stand for no line
        known = self.lines.get(line)
        if known is None:
            known = self.lines[line] = Statement(line, plain=False)
        return known

    def text(self, line: int) -> str:
        return linecache.getline(self.code.co_filename, line).strip() or f"line {line}"


def program_of(frame: types.FrameType, granularity: str) -> Program | None:
    """The program of a frame, or None if its code is not cut into steps."""
    code = frame.f_code
    if is_library(code) or granularity == "line" and code.co_name in _COMPREHENSIONS:
        return None
    return Program(code, frame.f_globals, granularity)


def global_names(code: types.CodeType) -> list[str]:
    """The global variables that code reads or sets."""
    return list(
        dict.fromkeys(
            i.argval for i in dis.get_instructions(code) if i.opname.endswith(("_GLOBAL", "_NAME"))
        )
    )


def source_lines(code: types.CodeType) -> list[str]:
    """The lines of a function, from its `def`, without the indentation that all have."""
    lines = linecache.getlines(code.co_filename)
    first = code.co_firstlineno - 1
    last = max((line for *_, line in code.co_lines() if line), default=first + 1)
    block = [line.rstrip("\n") for line in lines[first:last]]
    indent = min((len(b) - len(b.lstrip()) for b in block if b.strip()), default=0)
    return [b[indent:] for b in block]


def why_no_steps(function: Callable) -> str:
    """Why a function cannot be cut into steps; empty if it can."""
    while True:
        inner = inspect.unwrap(function)
        if isinstance(inner, functools.partial):
            function = inner.func
            continue
        break
    if isinstance(inner, type):
        inner = inner.__init__
    inner = getattr(inner, "__func__", inner)
    if not isinstance(inner, types.FunctionType):
        inner = inspect.getattr_static(type(inner), "__call__", inner)
    code = getattr(inner, "__code__", None)
    if code is None:
        return "it is not written in Python"
    if code.co_filename == "<string>" or not linecache.getlines(code.co_filename):
        return "its source code is not known"
    return "it belongs to a library" if is_library(code) else ""


def check_granularity(granularity: str) -> None:
    """Raise ValueError if a granularity is unknown."""
    if granularity not in ("line", "bytecode", "interpreter"):
        raise ValueError(
            f"granularity is 'line', 'bytecode' or 'interpreter', not {granularity!r}"
        )
