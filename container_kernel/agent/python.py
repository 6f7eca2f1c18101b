"""A notebook kernel in one file, for images that have ``python3`` (3.6 or newer) and nothing else.

It is run in the container as ``python3 -u agent.py COMMANDS EVENTS LATER`` and talks to the host by
JSON lines through two FIFOs. The host speaks Jupyter; this file only runs code. What code and its
child processes print goes through the ordinary pipes, so it is in order by itself; an event that
must stand in order with it (a display) is acknowledged by the host, who first takes what was
printed before.

To be ready soon, the first half imports next to nothing, and the second half (from the comment
``# Later`` on, which the host splits off as the file LATER) is compiled when something in it is
first needed or nothing else is to be done. `later` is the door between the two.
"""

import builtins
import io
import os
import sys
from _thread import RLock, get_ident

MYPY = False
if MYPY:  # read by type checkers only: typing takes long to import
    import signal
    from typing import Any
else:
    try:
        import _signal as signal  # the module around it imports enum, for the names' sake
    except ImportError:
        import signal

MIME = (
    ("_repr_html_", "text/html"),
    ("_repr_markdown_", "text/markdown"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
    ("_repr_latex_", "text/latex"),
    ("_repr_json_", "application/json"),
    ("_repr_javascript_", "application/javascript"),
    ("_repr_pdf_", "application/pdf"),
)
ONLY_AST, AWAIT, COROUTINE = 0x400, 0x2000, 0x80  # ast.PyCF_*, inspect.CO_COROUTINE
WIDTH = 79
IDLE_MS = 200
MAIN = get_ident()
PID = os.getpid()


class StdinNotImplementedError(NotImplementedError):
    """The front end cannot ask."""


def later(name: str) -> "Any":
    """What the second half calls ``name``; None if it has no such name."""
    names = globals()
    if name not in names and LATER:
        with AGENT.channel:  # an interrupt must not leave half of it
            code, LATER[:] = LATER[0], []
            exec(compile(code, __file__, "exec", 0, True), names)
    return names.get(name)


# Talking to the host


def codec() -> "Any":
    """JSON, to write and to read.

    Straight from C: the package around it imports ``re``, which takes longer than all the rest.
    """
    try:
        from _json import encode_basestring_ascii, make_encoder, make_scanner
    except ImportError:
        import json

        return lambda value: json.dumps(value, default=repr, skipkeys=True), json.loads

    class Reading:
        strict, object_hook, object_pairs_hook = True, None, None
        parse_float, parse_int, parse_constant = float, int, float

    pieces = make_encoder(None, repr, encode_basestring_ascii, None, ": ", ", ", False, True, True)
    reading = Reading  # type: Any
    scan = make_scanner(reading)
    return lambda value: "".join(pieces(value, 0)), lambda text: scan(text, 0)[0]


try:
    to_json, from_json = codec()
except ImportError:
    sys.exit("this image's python3 lacks most of its standard library: %apt python3 adds it")


class Channel:
    """The two FIFOs. As a context it keeps an interrupt from cutting a line in two."""

    def __init__(self, commands: str, events: str) -> None:
        self.commands = os.open(commands, os.O_RDONLY)
        self._events = os.open(events, os.O_WRONLY)
        self._buffer = b""
        self._waiting = []  # type: list[dict[str, Any]]
        self._depth = 0
        self._interrupted = False
        self._lock = RLock()
        self.in_user_code = False

    def on_interrupt(self, *_: "Any") -> None:
        """SIGINT: stop the user's code, but not in the middle of a line.

        Where that does not run, the host is told: the cell that was meant may be about to begin.
        """
        if self._depth:
            self._interrupted = True
        elif self.in_user_code:
            raise KeyboardInterrupt
        else:
            self._write({"op": "missed", "over": AGENT.over})

    def __enter__(self) -> "Channel":
        if get_ident() == MAIN:
            self._depth += 1
        return self

    def __exit__(self, *_: "Any") -> None:
        if get_ident() == MAIN:
            self._depth -= 1
            if not self._depth and self._interrupted:
                self._interrupted = False
                self.on_interrupt()

    def send(self, op: str, **fields: "Any") -> None:
        """Tell the host something."""
        flush()
        fields["op"] = op
        self._write(fields)

    def _write(self, fields: "dict[str, Any]") -> None:
        with self:
            data = to_json(fields).encode() + b"\n"
            with self._lock:
                while data:
                    data = data[os.write(self._events, data) :]

    def publish(self, kind: str, content: "dict[str, Any]", **more: "Any") -> None:
        """Publish an output in order with what was printed before."""
        if os.getpid() != PID:  # a fork: the FIFOs are its parent's
            print(content.get("data", {}).get("text/plain", ""))
            return
        is_main = get_ident() == MAIN and self.in_user_code
        with self:
            cell = older_cell()
            self.send("publish", type=kind, content=content, sync=is_main, cell=cell, **more)
            if is_main:
                self.wait_for("ack")

    def wait_for(self, op: str) -> "dict[str, Any]":
        """The next command ``op``; others keep their order for later."""
        while True:
            command = self._read()
            if command["op"] == op:
                return command
            self._waiting.append(command)

    def wait(self, timeout_ms: "int | None" = None) -> bool:
        """Wait until there is a command; an interrupt ends the wait and loses nothing."""
        if self._waiting or self._buffer:
            return True
        import select

        poll = select.poll()
        poll.register(self.commands, select.POLLIN)
        return bool(poll.poll(timeout_ms))

    def next(self) -> "dict[str, Any]":
        """The next command."""
        return self._waiting.pop(0) if self._waiting else self._read()

    def _read(self) -> "dict[str, Any]":
        while b"\n" not in self._buffer:
            data = os.read(self.commands, 1 << 16)
            if not data:
                sys.exit(0)
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return dict(from_json(line.decode()))


def flush() -> None:
    """Push out what is printed; somebody may have closed or replaced the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            continue


# What is printed


def write_all(fd: int, data: "Any") -> int:
    """Write it all, also when a signal comes in between or a child made the pipe non-blocking."""
    rest = data
    while True:
        try:
            done = os.write(fd, rest)
        except BlockingIOError:
            import select

            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
            continue
        if done == len(rest):
            return len(data)
        rest = memoryview(rest)[done:]


class Pipe(io.FileIO):
    """A pipe that takes all it is given."""

    def write(self, data: "Any") -> int:
        """Write it all."""
        return write_all(self.fileno(), memoryview(data).cast("B"))


class Stream(io.TextIOWrapper):
    """Standard output or error: text goes out as it is written, in UTF-8 whatever the locale is.

    What a thread prints when the cell that started it is no longer the last one is sent beside
    the pipe, for the output of its own cell.
    """

    def __init__(self, fd: int, label: str) -> None:
        self.label, self._fd = label, fd
        pipe = Pipe(fd, "w", closefd=False)  # type: Any
        super().__init__(pipe, "utf-8", "backslashreplace", newline="\n", write_through=True)

    def write(self, text: str) -> int:
        """Write text."""
        if get_ident() != MAIN:
            cell = older_cell()
            if cell is not None:
                AGENT.channel.send("stream", name=self.label, text=text, cell=cell)
                return len(text)
        if not isinstance(text, str):
            return io.TextIOWrapper.write(self, text)  # it says what it takes
        data, done = text.encode("utf-8", "backslashreplace"), 0
        try:
            done = os.write(self._fd, data)
        except BlockingIOError:
            pass
        if done < len(data):
            write_all(self._fd, data[done:])
        return len(text)


def older_cell() -> "str | None":
    """The cell that started this thread, where that is not the last one; else None."""
    threading = sys.modules.get("threading")
    if threading is None or get_ident() == MAIN:
        return None
    cell = getattr(threading.current_thread(), "_started_by", None)
    return None if cell == AGENT.cell else cell


# Displays


def mime_bundle(value: "Any") -> "tuple[dict[str, Any], dict[str, Any]]":
    """How an object wants to be shown: data and metadata by MIME type."""
    data = {}  # type: dict[str, Any]
    metadata = {}  # type: dict[str, Any]
    if not isinstance(value, type):
        found = _call(value, "_repr_mimebundle_", include=None, exclude=None)
        if isinstance(found, tuple):
            found, metadata = found
        data.update(found or {})
        for method, mime in MIME:
            if mime not in data:
                found = _call(value, method)
                if isinstance(found, tuple):
                    found, metadata[mime] = found
                if found is not None:
                    data[mime] = found
        if "matplotlib.figure" in sys.modules and "image/png" not in data:
            later("add_picture")(value, data, metadata)
    if "text/plain" not in data:
        data["text/plain"] = pretty(value)
    return {mime: _as_text(item) for mime, item in data.items()}, metadata


def _call(value: "Any", method: str, **options: "Any") -> "Any":
    try:
        function = getattr(value, method, None)
        return function(**options) if callable(function) else None
    except NotImplementedError:
        return None
    except Exception as error:
        later("print_error")(error)
        return None


def _as_text(item: "Any") -> "Any":
    if isinstance(item, bytes):
        import base64

        return base64.b64encode(item).decode()
    return item


def pretty(value: "Any") -> str:
    """``repr``, long containers over several lines."""
    try:
        text = repr(value)
    except Exception as error:
        return "<%s whose repr raises %r>" % (type(value).__name__, error)
    if len(text) > WIDTH and isinstance(value, (dict, list, tuple, set, frozenset)):
        return str(later("over_lines")(value, text))
    return text


def display(
    *values: "Any",
    include: "Any" = None,
    exclude: "Any" = None,
    metadata: "dict[str, Any] | None" = None,
    transient: "dict[str, Any] | None" = None,
    display_id: "str | bool | None" = None,
    raw: bool = False,
    clear: bool = False,
    update: bool = False,
    **_: "Any",
) -> "DisplayHandle | None":
    """Show objects, as IPython's ``display`` does."""
    handle = None
    transient = dict(transient or {})
    if display_id:
        handle = DisplayHandle(None if display_id is True else str(display_id))
        transient["display_id"] = handle.display_id
    if clear:
        clear_output(wait=True)
    for value in values:
        if not raw and shows_itself(value):
            continue
        data, about = (dict(value), {}) if raw else mime_bundle(value)
        data = {
            mime: item
            for mime, item in data.items()
            if (not include or mime in include) and mime not in (exclude or ())
        }
        about.update(metadata or {})
        kind = "update_display_data" if update else "display_data"
        AGENT.channel.publish(kind, {"data": data, "metadata": about, "transient": transient})
    return handle


def shows_itself(value: "Any") -> bool:
    """Whether the object has a way of its own to show itself; it is shown then."""
    show = None if isinstance(value, type) else getattr(value, "_ipython_display_", None)
    if not callable(show):
        return False
    try:
        show()
    except NotImplementedError:
        return False
    return True


def update_display(value: "Any", *, display_id: str, **options: "Any") -> None:
    """Change what was shown under ``display_id``."""
    display(value, display_id=display_id, update=True, **options)


def clear_output(wait: bool = False) -> None:
    """Clear the cell's output."""
    AGENT.channel.publish("clear_output", {"wait": bool(wait)})


class DisplayHandle:
    """A display that can be changed."""

    def __init__(self, display_id: "str | None" = None) -> None:
        self.display_id = display_id or os.urandom(16).hex()

    def display(self, value: "Any", **options: "Any") -> None:
        """Show again."""
        display(value, display_id=self.display_id, **options)

    def update(self, value: "Any", **options: "Any") -> None:
        """Change."""
        update_display(value, display_id=self.display_id, **options)


# Running code


class Agent:
    """Runs cells in one namespace."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.module = type(sys)("__main__")  # type: Any
        self.names = self.module.__dict__
        self.names.update(__builtins__=builtins, In=[""], Out={}, _="", __="", ___="")
        self.names.update(_i="", _ii="", _iii="", _ih=self.names["In"], _oh=self.names["Out"])
        self.own_names = set(self.names)
        self.sources = {}  # type: dict[str, str]
        self.count = 0
        self.cell = self.parent = ""
        self.over = ""  # the cell whose code ended last
        self.allow_stdin = False
        self.loop = None  # type: Any
        self.payload = []  # type: list[dict[str, Any]]
        self._flags = AWAIT if sys.version_info >= (3, 8) else 0

    def serve(self) -> None:
        """Answer commands, for ever."""
        while True:
            self._wait()
            with self.channel:
                command = self.channel.next()
            answer = later("do_" + command["op"])
            if answer is None:
                continue
            try:
                content = answer(command)
            except BaseException as error:  # an interrupt may come a moment too late
                content = self.describe(error)
            if os.getpid() != PID:  # a fork of the user's that came back: it is nobody's kernel
                flush()
                os._exit(0)
            self.channel.send("reply", id=command.get("id"), content=content)

    def _wait(self) -> None:
        """Wait for a command. Tasks of the user's go on meanwhile; else the second half is read."""
        if self.loop is not None and not self.channel.wait(0):
            later("run_tasks")()
        elif LATER and not self.channel.wait(IDLE_MS):
            later("give_back")()

    def execute(self, command: "dict[str, Any]") -> "dict[str, Any]":
        """Run a cell; what the reply says of it."""
        code, silent = command["code"], command.get("silent", False)
        self.count, self.cell, self.parent = command["count"], command["id"], command["id"]
        self.allow_stdin = command.get("allow_stdin", False)
        self.payload = []
        if command.get("store_history", True) and not silent:
            self._remember(code)
        signal.signal(signal.SIGINT, self.channel.on_interrupt)  # somebody may have taken it
        sys.displayhook = (lambda value: None) if silent else self.show_result
        failed = self.guarded(lambda: self.run(code))
        self.over = self.cell
        if "matplotlib.pyplot" in sys.modules:
            failed_to_show = self.guarded(later("show_figures"))
            failed = failed or failed_to_show
        if failed:
            return failed
        wanted = command.get("user_expressions") or {}
        found = {name: self._expression(text) for name, text in wanted.items()}
        return {"status": "ok", "user_expressions": found, "payload": self.payload}

    def _remember(self, code: str) -> None:
        names, said = self.names, self.names["In"]
        names["_iii"], names["_ii"], names["_i"] = names["_ii"], names["_i"], said[-1]
        said.extend([""] * (self.count - len(said)))  # cells that ran elsewhere have numbers too
        said.append(code)
        names["_i%d" % self.count] = code

    def guarded(self, function: "Any") -> "dict[str, Any] | None":
        """Call what is the user's; describe what it raises."""
        try:
            self.channel.in_user_code = True
            function()
            self.channel.in_user_code = False
        except BaseException as error:
            self.channel.in_user_code = False
            return self.describe(error)
        return None

    def describe(self, error: BaseException) -> "dict[str, Any]":
        """An error's three fields."""
        return dict(later("describe")(error))

    def run(self, code: str) -> None:
        """Run a cell; the last expression's value is shown."""
        name = "<cell %d>" % self.count
        tree = self._parse(code, name)
        last = None
        if tree.body and type(tree.body[-1]).__name__ == "Expr":
            last = None if is_quiet(code, tree.body[-1]) else tree.body.pop()
        self._evaluate(tree, name, "exec")
        if last is not None:
            import _ast

            self._evaluate(_ast.Interactive(body=[last]), name, "single")

    def _parse(self, code: str, name: str) -> "Any":
        """The cell's syntax tree. Magics, ``!`` and ``?`` are tried where Python sees no sense."""
        self.sources[name] = code
        if "linecache" in sys.modules:
            _after_linecache(sys.modules["linecache"])
        try:
            return compile(code, name, "exec", ONLY_AST | self._flags, True)
        except SyntaxError:
            other = later("with_magics")(code)
            if other == code:
                raise
        return compile(other, name, "exec", ONLY_AST | self._flags, True)

    def _evaluate(self, tree: "Any", name: str, mode: str) -> None:
        """Run a syntax tree, or wait for it if it awaits."""
        code = compile(tree, name, mode, self._flags, True)
        if "__future__" in code.co_names:  # what is imported from there holds for all cells
            import __future__

            for feature in __future__.all_feature_names:
                self._flags |= code.co_flags & getattr(__future__, feature).compiler_flag
        if code.co_flags & COROUTINE or "create_task" in code.co_names:
            later("run_in_loop")(code)
        else:
            exec(code, self.names)

    def show_result(self, value: "Any") -> None:
        """Python's display hook."""
        if value is None:
            return
        names = self.names
        names["___"], names["__"], names["_"] = names.get("__"), names.get("_"), value
        names["_%d" % self.count] = names["Out"][self.count] = value
        if not shows_itself(value):
            data, metadata = mime_bundle(value)
            content = {"data": data, "metadata": metadata, "execution_count": self.count}
            self.channel.publish("execute_result", content)

    def _expression(self, text: str) -> "dict[str, Any]":
        """One of ``user_expressions``."""
        found = {}  # type: dict[str, Any]

        def evaluate() -> None:
            found["data"], found["metadata"] = mime_bundle(eval(text, self.names))

        return self.guarded(evaluate) or dict(found, status="ok")


def do_execute(command: "dict[str, Any]") -> "dict[str, Any]":
    """Run a cell."""
    return dict(AGENT.execute(command))


def is_quiet(code: str, last: "Any") -> bool:
    """Whether a semicolon follows the last expression."""
    if ";" not in code:
        return False
    lines = code.split("\n")[getattr(last, "end_lineno", len(code.split("\n"))) - 1 :]
    if hasattr(last, "end_col_offset"):
        lines[0] = lines[0].encode()[last.end_col_offset :].decode()
    rest = " ".join(line.partition("#")[0] for line in lines)
    return rest.rstrip().endswith(";")


# Modules that must be told where they are: looked after when they are imported, not before


class Finder:
    """Finds what Python's own finders find, and calls a function after the import."""

    after = {  # noqa: RUF012
        "IPython.core.display": "after_display",
        "IPython.core.display_functions": "after_display",
        "IPython.display": "after_display",
        "comm": "after_comm",
        "getpass": "after_getpass",
        "ipywidgets": "after_ipywidgets",
        "ipywidgets.widgets.interaction": "after_interaction",
        "linecache": "_after_linecache",
        "matplotlib": "after_matplotlib",
        "matplotlib.figure": "after_figure",
        "matplotlib.pyplot": "after_pyplot",
        "threading": "_after_threading",
    }
    absent = ("IPython", "IPython.core", "IPython.core.display", "IPython.display")

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        """As importlib asks."""
        if name not in self.after and name not in self.absent:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)  # type: Any
            spec = find(name, path, target) if find else None
            if spec is not None:
                break
        else:
            return later("spec_of_absent")(name) if name in self.absent else None
        if name in self.after and spec.loader is not None:
            spec.loader = After(spec.loader, self.after[name])
        return spec


class After:
    """Loads as another loader does, then calls a function."""

    def __init__(self, loader: "Any", function: str) -> None:
        self._loader, self._function = loader, function

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def create_module(self, spec: "Any") -> "Any":
        """The loader's own."""
        return self._loader.create_module(spec)

    def exec_module(self, module: "Any") -> None:
        """Load, then call."""
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        later(self._function)(module)


def _after_linecache(module: "Any") -> None:
    """Tracebacks, warnings and inspect find the cells' text there."""
    for name, code in AGENT.sources.items():
        module.cache[name] = (len(code), None, code.splitlines(True), name)


def _after_threading(module: "Any") -> None:
    start = module.Thread.start

    def start_and_note(self: "Any") -> None:
        self._started_by = older_cell() or AGENT.cell
        start(self)

    start_and_note.__name__, start_and_note.__doc__ = "start", start.__doc__
    module.Thread.start = start_and_note


# To begin


def info() -> "dict[str, Any]":
    """What kernel_info tells of us."""
    return {
        "implementation": "container_kernel.agent",
        "banner": "Python " + sys.version.replace("\n", ""),
        "language_info": {
            "name": "python",
            "version": "%d.%d.%d" % sys.version_info[:3],
            "mimetype": "text/x-python",
            "codemirror_mode": {"name": "ipython", "version": 3},
            "pygments_lexer": "ipython3",
            "nbconvert_exporter": "python",
            "file_extension": ".py",
        },
    }


def report_crashes() -> None:
    """A crash in C says where it was, among the cell's output."""
    try:
        import faulthandler

        faulthandler.enable(2, all_threads=False)
    except Exception:
        return


class Door:
    """``__agent__``, what lines of ours in a cell become calls of: see ``Calls``."""

    def __getattr__(self, name: str) -> "Any":
        return getattr(later("Calls"), name)


def ask(prompt: "Any" = "") -> str:
    """``input()``: the front end asks."""
    return str(later("ask_front_end")(str(prompt), False))


def main() -> None:
    """Be the agent."""
    global AGENT
    sys.stdout = sys.__stdout__ = Stream(1, "stdout")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = Stream(2, "stderr")  # type: ignore[misc]
    commands, events, *rest = sys.argv[1:]
    for path in rest:
        with open(path, "rb") as file:
            LATER.append(file.read())
    AGENT = Agent(Channel(commands, events))
    signal.signal(signal.SIGINT, AGENT.channel.on_interrupt)
    report_crashes()
    vars(builtins).update(display=display, input=ask, __agent__=Door())
    for name in Finder.after:
        if name in sys.modules:
            later(Finder.after[name])(sys.modules[name])
    finder = Finder()  # type: Any
    sys.meta_path.insert(0, finder)
    sys.argv, sys.path[0] = [""], ""
    sys.modules["__main__"] = AGENT.module
    AGENT.channel.send("ready", info=info())


AGENT = None  # type: Any
LATER = []  # type: list[bytes]

if __name__ == "__main__":
    main()
    AGENT.serve()

# Later


def give_back() -> None:
    """Let the host have what reading this half took: 2 MB of an idle kernel, in a millisecond.

    With what ctypes stands on, since a file of that name may lie in the notebook's folder.
    """
    try:
        import _ctypes

        libc = _ctypes  # type: Any
        libc.call_function(libc.dlsym(libc.dlopen(None, 0), "malloc_trim"), (0,))
    except (ImportError, OSError):  # a smaller Python, another C library
        pass


# Displays, continued


def over_lines(value: "Any", text: str) -> str:
    """A long container's ``repr`` with one item a line, as IPython writes it."""
    if "\n" in text or len(text) > 1 << 20:
        return text
    return "\n".join(_spread(value, 0, 0, 8))


def _spread(value: "Any", indent: int, used: int, depth: int) -> "list[str]":
    """The lines of a value that stands ``indent`` columns in, with ``used`` columns behind it."""
    text, kind = repr(value), type(value)  # type: str, Any
    opening = {list: "[", tuple: "(", dict: "{", set: "{", frozenset: "frozenset({"}.get(kind)
    if not opening or not value or not depth or indent + len(text) + used <= WIDTH:
        return [text]
    closing = {"[": "]", "(": ")", "{": "}"}.get(opening, "})")
    inner = indent + len(opening)
    lines = []  # type: list[str]
    items = _items(value)
    for number, item in enumerate(items):
        if number == 1000:
            lines.append("...")
            break
        if kind is dict:
            key = repr(item[0]) + ": "
            block = _spread(item[1], inner + len(key), 1, depth - 1)
            block = [key + block[0]] + [" " * len(key) + line for line in block[1:]]
        else:
            block = _spread(item, inner, 1, depth - 1)
        block[-1] += "," if number < len(items) - 1 or (kind is tuple and number == 0) else ""
        lines += block
    lines = [(" " * len(opening) if at else opening) + line for at, line in enumerate(lines)]
    lines[-1] += closing
    return lines


def _items(value: "Any") -> "list[Any]":
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (set, frozenset)):
        try:
            return sorted(value)
        except Exception:
            return list(value)
    return list(value)


def publish_display_data(
    data: "dict[str, Any]", metadata: "dict[str, Any] | None" = None, **options: "Any"
) -> None:
    """Show data that is ready by MIME type."""
    display(data, metadata=metadata, raw=True, **options)


class Shown:
    """``HTML("<b>x</b>")`` and its kin: text or bytes of one MIME type."""

    mime = "text/plain"

    def __init__(
        self,
        data: "Any" = None,
        url: "str | None" = None,
        filename: "str | None" = None,
        **options: "Any",
    ) -> None:
        self.url, self.options = url, options
        if isinstance(data, str) and data.startswith(("http://", "https://")):
            data, self.url = None, data
        elif self.is_file(data):
            data, filename = None, str(data)
        if filename is not None:
            with open(filename, "rb") as file:
                data = file.read()
        self.data, self.filename = data, filename

    def is_file(self, data: "Any") -> bool:
        """Whether ``data`` can only be meant as a file's name."""
        return False

    def text(self) -> str:
        """The data as text; what is only an address is fetched."""
        if self.data is None and self.url:
            from urllib.request import urlopen

            self.data = urlopen(self.url).read()
        return self.data.decode() if isinstance(self.data, bytes) else str(self.data)

    def _repr_mimebundle_(self, **_: "Any") -> "Any":
        return {self.mime: self.text()}

    def __repr__(self) -> str:
        return "<IPython.core.display.%s object>" % type(self).__name__


class HTML(Shown):
    """Text in HTML."""

    mime = "text/html"


class Markdown(Shown):
    """Text in Markdown."""

    mime = "text/markdown"


class Latex(Shown):
    """Text in LaTeX."""

    mime = "text/latex"


class Math(Shown):
    """A formula in LaTeX."""

    mime = "text/latex"

    def text(self) -> str:
        """As a displayed formula."""
        return "$\\displaystyle %s$" % str(self.data).strip("$")


class Javascript(Shown):
    """JavaScript for the front end."""

    mime = "application/javascript"


class Pretty(Shown):
    """Plain text."""


class JSON(Shown):
    """Data that the front end shows as a tree."""

    mime = "application/json"

    def _repr_mimebundle_(self, **_: "Any") -> "Any":
        data = self.data
        if isinstance(data, (str, bytes)):
            import json

            data = json.loads(self.text())
        return {self.mime: data}, {self.mime: dict({"expanded": False}, **self.options)}


class SVG(Shown):
    """A drawing."""

    mime = "image/svg+xml"

    def is_file(self, data: "Any") -> bool:
        """Text without a tag is no drawing."""
        return isinstance(data, str) and "<" not in data


class Image(Shown):
    """A picture: bytes, a file or an address."""

    KINDS = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpeg"), (b"GIF8", "gif"), (b"RIFF", "webp"))

    def is_file(self, data: "Any") -> bool:
        """Bytes are a picture's own."""
        return data is not None and not isinstance(data, (bytes, bytearray))

    def _repr_mimebundle_(self, **_: "Any") -> "Any":
        size = {key: self.options[key] for key in ("width", "height") if self.options.get(key)}
        if self.data is None:
            sizes = "".join(' %s="%s"' % item for item in size.items())
            return {"text/html": '<img src="%s"%s/>' % (_quoted(self.url), sizes)}
        kind = [kind for start, kind in self.KINDS if self.data.startswith(start)]
        mime = "image/" + (kind or [self.options.get("format") or "png"])[0]
        return {mime: bytes(self.data)}, {mime: size} if size else {}


class Embedded(Shown):
    """Sound or film, in the notebook itself or at an address."""

    tag, default = "audio", "audio/wav"

    def is_file(self, data: "Any") -> bool:
        """Bytes are the sound's or the film's own."""
        return isinstance(data, str)

    def _repr_mimebundle_(self, **_: "Any") -> "Any":
        source = self.url
        if self.data is not None:
            import base64
            import mimetypes

            kind = mimetypes.guess_type(self.filename or "")[0] or self.default
            source = "data:%s;base64,%s" % (kind, base64.b64encode(self.data).decode())
        tag = self.tag
        return {"text/html": '<%s controls src="%s"></%s>' % (tag, _quoted(source), tag)}


class Audio(Embedded):
    """Sound."""


class Video(Embedded):
    """Film."""

    tag, default = "video", "video/mp4"


class IFrame:
    """Another page in the notebook."""

    def __init__(self, src: str, width: "Any", height: "Any", **_: "Any") -> None:
        self.src, self.width, self.height = src, width, height

    def _repr_html_(self) -> str:
        given = (self.width, self.height, _quoted(self.src))
        return '<iframe width="%s" height="%s" src="%s" frameborder="0"></iframe>' % given


class Code(Shown):
    """A program's text."""

    def _repr_mimebundle_(self, **_: "Any") -> "Any":
        language = self.options.get("language") or "python"
        return {
            "text/plain": self.text(),
            "text/markdown": "```%s\n%s\n```" % (language, self.text()),
        }


class FileLink:
    """A file to click on."""

    def __init__(self, path: "Any", **_: "Any") -> None:
        self.path = str(path)

    def _repr_html_(self) -> str:
        return '<a href="%s" target="_blank">%s</a>' % (_quoted(self.path), _quoted(self.path))

    def __repr__(self) -> str:
        return self.path


def _quoted(text: "Any") -> str:
    import html

    return html.escape(str(text))


# Libraries that must be told where they are, continued

FIGURES = {"format": "png"}


def add_picture(value: "Any", data: "dict[str, Any]", metadata: "dict[str, Any]") -> None:
    """A matplotlib figure's picture among its data."""
    if not isinstance(value, sys.modules["matplotlib.figure"].Figure):
        return
    import io

    file, wanted, scale = io.BytesIO(), FIGURES["format"], 1
    if wanted == "retina":
        wanted, scale = "png", 2
    value.savefig(file, format=wanted, bbox_inches="tight", dpi=value.dpi * scale)
    mime = {"svg": "image/svg+xml", "pdf": "application/pdf"}.get(wanted, "image/" + wanted)
    data[mime] = file.getvalue().decode() if wanted == "svg" else file.getvalue()
    if scale == 2:
        width, height = (int.from_bytes(data[mime][at : at + 4], "big") for at in (16, 20))
        metadata[mime] = {"width": width // 2, "height": height // 2}


def show_figures(*_: "Any", **__: "Any") -> None:
    """Show and close all figures that are open."""
    pyplot = sys.modules.get("matplotlib.pyplot")  # type: Any
    if not hasattr(pyplot, "get_fignums"):
        return
    try:
        for number in pyplot.get_fignums():
            display(pyplot.figure(number))
    finally:
        pyplot.close("all")


def after_matplotlib(module: "Any") -> None:
    """Figures are drawn, not put into windows."""
    if "MPLBACKEND" not in os.environ:
        module.use("agg")


def after_figure(module: "Any") -> None:
    """``figure.show()`` shows it here."""
    module.Figure.show = lambda self, warn=True: display(self)


def after_pyplot(module: "Any") -> None:
    """``pyplot.show()`` shows them here."""
    module.show = show_figures


def after_getpass(module: "Any") -> None:
    """The front end asks for passwords."""

    def getpass(prompt: str = "Password: ", stream: "Any" = None, **_: "Any") -> str:
        """Ask for a password; the front end shows nothing of it."""
        return ask_front_end(prompt, True)

    module.getpass = module.unix_getpass = getpass


def after_display(module: "Any") -> None:
    """IPython's own displays need IPython's own shell."""
    for function in (display, update_display, clear_output, publish_display_data):
        setattr(module, function.__name__, function)
    module.DisplayHandle = DisplayHandle


class Filler:
    """Loads a small IPython, for images that have none."""

    def create_module(self, spec: "Any") -> None:
        """The usual one."""

    def exec_module(self, module: "Any") -> None:
        """Fill it."""
        if module.__name__ in ("IPython", "IPython.core"):
            module.__path__ = []
            module.get_ipython = lambda: None
            module.version_info, module.__version__ = (0, 0, 0), "0"
        if module.__name__ in ("IPython", "IPython.display", "IPython.core.display"):
            kinds = (HTML, Markdown, Latex, Math, Javascript, Pretty, JSON, SVG, Image, Audio)
            for kind in (*kinds, Video, IFrame, Code, FileLink):
                setattr(module, kind.__name__, kind)
            after_display(module)


def spec_of_absent(name: str) -> "Any":
    """How a module of our small IPython is made."""
    from importlib.machinery import ModuleSpec

    loader = Filler()  # type: Any
    return ModuleSpec(name, loader, is_package=name in ("IPython", "IPython.core"))


def ask_front_end(prompt: str, password: bool) -> str:
    """Have the front end ask."""
    if not AGENT.allow_stdin:
        raise StdinNotImplementedError(
            "input was called, but this front end does not support input requests."
        )
    channel = AGENT.channel
    channel.send("input_request", prompt=prompt, password=password)
    channel.wait()
    with channel:
        answer = channel.wait_for("input_reply")
    return str(answer.get("value", ""))


# Asynchronous code


def run_in_loop(code: "Any") -> None:
    """Run a cell's code object that awaits, or starts tasks."""
    import asyncio

    if AGENT.loop is None or AGENT.loop.is_closed():
        AGENT.loop = asyncio.new_event_loop()
    loop = AGENT.loop
    asyncio.set_event_loop(loop)

    async def run() -> None:
        found = eval(code, AGENT.names)
        if code.co_flags & COROUTINE:
            await found

    task = loop.create_task(run())
    try:
        loop.run_until_complete(task)
    except KeyboardInterrupt:
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        raise


def run_tasks() -> None:
    """Go on with the user's tasks until there is a command."""
    loop, fd = AGENT.loop, AGENT.channel.commands
    if loop.is_closed():
        AGENT.loop = None
        return
    loop.add_reader(fd, loop.stop)
    try:
        loop.run_forever()
    except BaseException as error:
        print_error(error)
    finally:
        loop.remove_reader(fd)


# Errors

RED, GREEN, CYAN, OFF = "\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[39m"
MARK, UNMARK = "\x1b[43m", "\x1b[49m"


def print_error(error: BaseException) -> None:
    """A traceback on standard error, where a cell goes on all the same."""
    sys.stderr.write("\n".join(format_error(type(error), error, error.__traceback__)) + "\n")


def describe(error: BaseException) -> "dict[str, Any]":
    """An error's three fields."""
    kind, trace = type(error), error.__traceback__
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    if kind is SystemExit:
        sys.stderr.write("SystemExit: the kernel goes on; restart it to begin afresh\n")
    try:
        shown = format_error(kind, error, trace)
    except Exception as problem:
        shown = ["%s (its traceback cannot be shown: %r)" % (kind.__name__, problem)]
    value = _message(error)
    return {"status": "error", "ename": kind.__name__, "evalue": value, "traceback": shown}


def format_error(kind: type, error: BaseException, trace: "Any") -> "list[str]":
    """A traceback as IPython shows it, without the frames of this file."""
    chain = []  # type: list[tuple[BaseException, str]]
    link = ""
    one = error  # type: Any
    while one is not None and one not in [other for other, _ in chain]:
        chain.insert(0, (one, link))
        link = "During handling of the above exception, another exception occurred:"
        if one.__cause__ is not None:
            link = "The above exception was the direct cause of the following exception:"
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    lines = []  # type: list[str]
    for one, link in chain:
        lines += _format_one(one, trace if one is error else one.__traceback__, not lines)
        lines += ["", link, ""] if link else []
    return lines


def _format_one(error: BaseException, trace: "Any", is_first: bool) -> "list[str]":
    kind = type(error).__name__
    frames = _frames(trace)
    lines = [RED + "-" * 75 + OFF] if is_first else []
    gap = " " * max(1, 75 - len(kind) - 33)
    lines.append(RED + kind + OFF + gap + "Traceback (most recent call last)")
    if isinstance(error, SyntaxError) and not frames:
        return _format_syntax(error)
    for frame, number, offset, repeated in frames:
        lines += _format_frame(frame, number, offset)
        if repeated:
            lines += ["    [... %d frames like this one left out ...]" % repeated, ""]
    if isinstance(error, SyntaxError):
        return [*lines, *_format_syntax(error)]
    if hasattr(error, "exceptions") and hasattr(error, "split"):
        return [*lines, *_format_group(error)]
    return [*lines, *_summary(error)]


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<exception str() failed>"


def _summary(error: BaseException) -> "list[str]":
    text = _message(error)
    lines = [RED + type(error).__name__ + OFF + (": " + text if text else "")]
    return lines + [str(note) for note in getattr(error, "__notes__", None) or ()]


def _format_group(error: BaseException) -> "list[str]":
    """An exception group: Python's own picture of it, the agent's frames left out."""
    import traceback

    lines = traceback.TracebackException(type(error), error, None).format()
    return "".join(lines).rstrip("\n").split("\n")


def _frames(trace: "Any") -> "list[tuple[Any, int, int, int]]":
    """Frame, line, offset of the instruction, and how many alike follow that are left out."""
    found = []  # type: list[Any]
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name != __file__ and not name.startswith("<frozen importlib"):
            found.append([trace.tb_frame, trace.tb_lineno, trace.tb_lasti, 0])
        trace = trace.tb_next
    names = [frame[0].f_code.co_filename for frame in found]
    cells = [at for at, name in enumerate(names) if name.startswith("<cell ")]
    if cells:
        found = found[cells[0] :]  # what is before is how we came to run the cell
    kept = []  # type: list[Any]
    for number, frame in enumerate(found):
        alike = [k for k in kept[-3:] if (k[0].f_code, k[1]) == (frame[0].f_code, frame[1])]
        if alike and number < len(found) - 1:
            alike[0][3] += 1
        else:
            kept.append(frame)
    return [tuple(frame) for frame in kept[:30] + kept[30:][-30:]]


def _place(filename: str, number: "int | None", function: str = "") -> str:
    if filename.startswith("<cell "):
        return "%sCell In[%s], line %s%s" % (CYAN, filename[6:-1], number, OFF) + function
    return "%sFile %s:%s%s" % (CYAN, filename, number, OFF) + function


def _format_frame(frame: "Any", number: int, offset: int) -> "list[str]":
    import linecache

    code = frame.f_code
    function = "" if code.co_name == "<module>" else ", in %s" % _called_as(code)
    lines = [_place(code.co_filename, number, function)]
    for at in range(max(1, number - 2), number + 3):
        text = linecache.getline(code.co_filename, at, frame.f_globals).rstrip("\n")
        if at == number and text:
            shown = _marked(code, offset, number, text)
            lines.append("%s----> %d%s %s" % (GREEN, at, OFF, shown))
        elif text:
            lines.append("%s%7d%s %s" % (GREEN, at, OFF, text))
    return [*lines, ""]


def _called_as(code: "Any") -> str:
    """A function's name and its arguments' names."""
    plain = code.co_argcount + code.co_kwonlyargcount
    names = list(code.co_varnames[:plain])
    more = list(code.co_varnames[plain:])
    names += ["*" + more.pop(0)] if code.co_flags & 4 and more else []
    names += ["**" + more.pop(0)] if code.co_flags & 8 and more else []
    return "%s(%s)" % (code.co_name, ", ".join(names))


def _marked(code: "Any", offset: int, number: int, text: str) -> str:
    """A line with the failing expression marked, where Python (3.11) knows it."""
    if not hasattr(code, "co_positions") or offset < 0:
        return text
    import itertools

    found = next(itertools.islice(code.co_positions(), offset // 2, None), (None,) * 4)
    first, last, start, end = found
    if first != number or start is None or end is None:
        return text
    line = text.encode()
    end = end if last == first else len(line)
    if line[:start].strip() or line[end:].strip():
        parts = [line[:start], MARK.encode(), line[start:end], UNMARK.encode(), line[end:]]
        return b"".join(parts).decode("utf-8", "replace")
    return text


def _format_syntax(error: SyntaxError) -> "list[str]":
    lines = ["  " + _place(error.filename or "?", error.lineno)]
    if error.text:
        text = error.text.rstrip("\n")
        indent = len(text) - len(text.lstrip())
        start = max((error.offset or 1) - 1 - indent, 0)
        end = getattr(error, "end_offset", None) or 0
        is_one_line = getattr(error, "end_lineno", None) == error.lineno
        width = max(1, end - (error.offset or 1)) if is_one_line else 1
        lines.append("    " + text.lstrip())
        lines.append("    " + " " * start + "^" * width)
    return [*lines, RED + type(error).__name__ + OFF + ": " + str(error.msg)]


# A cell's text: magics, shell lines and question marks become calls


def with_magics(code: str) -> str:
    """``%magic``, ``!cmd``, ``x = !cmd`` and ``name?`` as calls; nothing else is changed.

    A line counts only where a statement may begin; all lines keep their numbers.
    """
    if code.lstrip().startswith("%%"):
        return _cell_magic_call(code)
    lines = code.split("\n")
    state = ("", 0, False)  # type: tuple[str, int, bool]
    at = 0
    while at < len(lines):
        end = at
        if state == ("", 0, False):
            while lines[end].endswith("\\") and end + 1 < len(lines):
                end += 1
            joined = " ".join(line.rstrip("\\") if line is not lines[end] else line
                              for line in lines[at : end + 1])  # fmt: skip
            call = _line_call(joined)
            if call is not None:
                lines[at : end + 1] = [call] + [""] * (end - at)
                at = end + 1
                continue
        state = _scanned(lines[at], *state[:2])
        at += 1
    return "\n".join(lines)


def _cell_magic_call(code: str) -> str:
    before, _, rest = code.partition("%%")
    first, _, body = rest.partition("\n")
    name, _, line = first.strip().partition(" ")
    call = "__agent__.cell_magic(%r, %r, %r)" % (name, line.strip(), body)
    return "\n" * before.count("\n") + call


def _line_call(line: str) -> "str | None":
    """A line of ours as Python; None if it is no such line."""
    import re

    target = r"(\s*(?:[A-Za-z_][\w.,\[\]\"' ]*?\s*=(?!=)\s*)?)"
    for pattern, call in (
        (r"(\s*)!!(.+)$", "lines"),
        (r"(\s*)!(?!=)(.+)$", "shell"),
        (target + r"!(?!=)(.+)$", "lines"),
    ):
        found = re.match(pattern, line)
        if found:
            return "%s__agent__.%s(%r)" % (found.group(1), call, found.group(2).strip())
    asked = re.match(r"(\s*)(\?{1,2})?\s*(%{0,2}[A-Za-z_][\w.]*)(\?{1,2})?\s*;?$", line)
    if asked and (asked.group(2) or asked.group(4)):
        marks = asked.group(2) or asked.group(4)
        return "%s__agent__.about(%r, %d)" % (asked.group(1), asked.group(3), len(marks) - 1)
    magic = re.match(target + r"%([A-Za-z_]\w*)(.*)$", line)
    if magic:
        given = (magic.group(1), magic.group(2), magic.group(3).strip())
        return "%s__agent__.magic(%r, %r)" % given
    return None


def _scanned(line: str, quote: str, depth: int) -> "tuple[str, int, bool]":
    """After a line: the quotes that are open, the depth of brackets, whether it goes on."""
    import re

    at = 0
    while at < len(line):
        if quote:
            found = re.compile(r"(?:[^\\]|\\.)*?" + quote).match(line, at)
            if not found:
                return quote, depth, False
            quote, at = "", found.end()
            continue
        found = re.compile(
            r"'''|\"\"\"|'(?:\\.|[^'\\])*'?|\"(?:\\.|[^\"\\])*\"?|#.*|[(\[{]|[)\]}]"
        ).search(line, at)
        if not found:
            break
        text, at = found.group(), found.end()
        quote = text if text in ("'''", '"""') else ""
        depth = max(0, depth + (text in "([{") - (text in ")]}"))
    return quote, depth, line.endswith("\\")


def filled(command: str) -> str:
    """A command with ``{expression}`` and ``$name`` filled in where they mean something."""
    import re

    names = AGENT.names

    def fill(match: "Any") -> str:
        name = match.group(2)
        try:
            if name:
                return str(names[name]) if not name.startswith("__") else match.group()
            return str(eval(match.group(1), names))
        except Exception:
            return str(match.group())

    return re.sub(r"(?<![$\\])\{([^{}\n]+)\}|\$([A-Za-z_]\w*)", fill, command)


class UsageError(Exception):
    """A magic that is not there, or is called otherwise than it can be."""


class Calls:
    """What the lines of ours in a cell have become calls of."""

    @staticmethod
    def shell(command: str) -> None:
        """``!cmd``."""
        import subprocess

        flush()
        AGENT.names["_exit_code"] = subprocess.call(filled(command), shell=True)

    @staticmethod
    def lines(command: str) -> "list[str]":
        """``x = !cmd``."""
        import subprocess

        flush()
        done = subprocess.Popen(filled(command), shell=True, stdout=subprocess.PIPE)
        text = done.communicate()[0].decode("utf-8", "replace")
        AGENT.names["_exit_code"] = done.returncode
        return Lines(text.splitlines())

    @staticmethod
    def about(name: str, detail: int) -> None:
        """``name?``."""
        if name.startswith("%"):
            text = "%s: %s" % (name, _magic(name.lstrip("%"), "%%" in name).__doc__)
        else:
            try:
                text = about(name, look_up(name, AGENT.names), detail)
            except (KeyError, AttributeError):
                sys.stdout.write("Object `%s` not found.\n" % name)
                return
        page = {"source": "page", "data": {"text/plain": text}, "start": 0}
        AGENT.payload.append(page)

    @staticmethod
    def magic(name: str, line: str) -> "Any":
        """``%name line``."""
        keeps_braces = name in ("time", "timeit")
        return _magic(name, False)(line if keeps_braces else filled(line))

    @staticmethod
    def cell_magic(name: str, line: str, body: str) -> "Any":
        """``%%name line`` and what is below."""
        return _magic(name, True)(line, body)


class Lines(list):  # type: ignore[type-arg]
    """What a command printed, by lines."""

    n = property(lambda self: "\n".join(self))
    s = property(lambda self: " ".join(self))
    l = property(lambda self: list(self))  # noqa: E741


def _magic(name: str, is_cell: bool) -> "Any":
    found = globals().get(("cell_" if is_cell else "line_") + name)
    if found is None and not is_cell and name in ALIASES:
        return lambda line: Calls.shell(ALIASES[name] + " " + line)
    if found is None and is_cell and name in PROGRAMS:
        return lambda line, body: cell_script(name + " " + line, body)
    if found is None:
        raise UsageError(
            "there is no %s here: %%lsmagic lists what there is; IPython's magics come with "
            "`%%pip ipykernel` in a build cell" % (("%%" if is_cell else "%") + name)
        )
    return found


# Magics: line_NAME(line) and cell_NAME(line, body)

ALIASES = {
    "cat": "cat", "cp": "cp", "ls": "ls", "ll": "ls -l", "mkdir": "mkdir", "mv": "mv",
    "rm": "rm", "rmdir": "rmdir",
}  # fmt: skip
PROGRAMS = ("bash", "perl", "python", "python2", "python3", "ruby")


def line_lsmagic(line: str) -> None:
    """List the magics."""
    both = {sign: [n[5:] for n in globals() if n.startswith(start)]
            for sign, start in (("%", "line_"), ("%%", "cell_"))}  # fmt: skip
    both["%"] += ALIASES
    both["%%"] += PROGRAMS
    for sign, names in both.items():
        print("  ".join(sign + name for name in sorted(names)))
    print("%help lists this kernel's own.")


def line_pwd(line: str) -> str:
    """The working directory."""
    return os.getcwd()


def line_cd(line: str) -> None:
    """Change the working directory; ``-`` is the one before."""
    place = line.strip("\"'") or "~"
    before = os.getcwd()
    os.chdir(LAST_FOLDER[-1] if place == "-" else os.path.expanduser(place))
    LAST_FOLDER[:] = [before]
    print(os.getcwd())


LAST_FOLDER = ["."]


def own_names() -> "dict[str, Any]":
    """The variables that cells made."""
    names = AGENT.names
    return {n: names[n] for n in names if not n.startswith("_") and n not in AGENT.own_names}


def line_who_ls(line: str) -> "list[str]":
    """The names of your variables; given types, only those of these types."""
    wanted = line.split()
    found = own_names().items()
    return sorted(n for n, value in found if not wanted or type(value).__name__ in wanted)


def line_who(line: str) -> None:
    """Print the names of your variables."""
    print("\t ".join(line_who_ls(line)) or "Interactive namespace is empty.")


def line_whos(line: str) -> None:
    """Your variables with type and value."""
    names = own_names()
    rows = [("Variable", "Type", "Data/Info"), ("-" * 8, "-" * 4, "-" * 9)]
    for name in line_who_ls(line):
        text = pretty(names[name]).replace("\n", " ")
        rows.append((name, type(names[name]).__name__, text[:57] + "..." * (len(text) > 57)))
    widths = [max(len(row[at]) for row in rows) for at in (0, 1)]
    for row in rows:
        print("%s   %s   %s" % (row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2]))


def line_reset(line: str) -> None:
    """Forget your variables."""
    for name in own_names():
        del AGENT.names[name]
    AGENT.names["Out"].clear()


def line_time(line: str) -> "Any":
    """Run a statement and say how long it took."""
    return _timed(line)


def cell_time(line: str, body: str) -> "Any":
    """Run the cell and say how long it took."""
    if line:
        AGENT.run(line)
    return _timed(body)


def _timed(code: str) -> None:
    import time

    begin, wall = os.times(), time.perf_counter()
    try:
        AGENT.run(code)
    finally:
        wall = time.perf_counter() - wall
        user, system = os.times()[0] - begin[0], os.times()[1] - begin[1]
        print("CPU times: user %s, sys: %s, total: %s" % tuple(
            map(in_units, (user, system, user + system))))  # fmt: skip
        print("Wall time: " + in_units(wall))


def in_units(seconds: float) -> str:
    """A time with a unit that suits it."""
    if seconds >= 60:
        return "%d min %.3g s" % divmod(seconds, 60)
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("μs", 1e-6)):
        if seconds >= size:
            return "%.3g %s" % (seconds / size, unit)
    return "%.3g ns" % (seconds * 1e9)


def line_timeit(line: str) -> None:
    """Run a statement many times: ``%timeit [-n LOOPS] [-r REPEATS] STATEMENT``."""
    cell_timeit(line, "")


def cell_timeit(line: str, body: str) -> None:
    """Run the cell many times; what stands behind ``%%timeit`` prepares it."""
    import re
    import timeit

    loops, repeats = 0, 7
    option = re.match(r"\s*-([nr])\s*(\d+)\s*", line)
    while option:
        if option.group(1) == "n":
            loops = int(option.group(2))
        else:
            repeats = int(option.group(2))
        line = line[option.end() :]
        option = re.match(r"\s*-([nr])\s*(\d+)\s*", line)
    statement, setup = (body, line or "pass") if body.strip() else (line, "pass")
    timer = timeit.Timer(statement, setup, globals=AGENT.names)
    if not loops:
        loops = 1
        while timer.timeit(loops) < 0.2 and loops < 10**9:
            loops *= 10
    found = [seconds / loops for seconds in timer.repeat(repeats, loops)]
    mean = sum(found) / repeats
    spread = (sum((one - mean) ** 2 for one in found) / repeats) ** 0.5
    given = (in_units(mean), in_units(spread), repeats, "s" * (repeats > 1), loops)
    ending = "s" * (loops > 1)
    print("%s ± %s per loop (mean ± std. dev. of %d run%s, {:,} loop%s each)".format(loops)
          % (*given[:4], ending))  # fmt: skip


def line_matplotlib(line: str) -> None:
    """Figures are shown below their cell, as they are anyway."""
    if line.strip() not in ("", "inline", "agg"):
        raise UsageError(
            "figures are shown inline here: for %%matplotlib %s put `%%pip ipykernel` into a "
            "build cell" % line.strip()
        )


def line_config(line: str) -> None:
    """``%config InlineBackend.figure_format = 'svg'``: how figures are shown."""
    import re

    found = re.match(r"InlineBackend\.figure_formats?\s*=\s*\{?\[?['\"](\w+)['\"]", line)
    if not found or found.group(1) not in ("png", "retina", "svg", "pdf", "jpeg"):
        raise UsageError("only InlineBackend.figure_format = png, retina, svg, pdf or jpeg is here")
    FIGURES["format"] = found.group(1)


def line_run(line: str) -> None:
    """Run a Python file: ``%run FILE [ARGUMENT...]``; its names are yours afterwards."""
    import shlex

    words = shlex.split(line)
    if not words:
        raise UsageError("%run needs a file")
    path = words[0] if os.path.exists(words[0]) else words[0] + ".py"
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", 0, True)
    before = sys.argv
    sys.argv = [path, *words[1:]]
    try:
        exec(code, AGENT.names)
    finally:
        sys.argv = before


def line_history(line: str) -> None:
    """The cells run so far."""
    print("\n".join(code for code in AGENT.names["In"] if code))


line_hist = line_history


def line_tb(line: str) -> None:
    """The last traceback again."""
    error = getattr(sys, "last_value", None)
    if error is not None:
        print_error(error)


def line_debug(line: str) -> None:
    """Look around where the last error happened."""
    import pdb

    pdb.post_mortem(sys.last_traceback)


def line_set_env(line: str) -> None:
    """Set a variable of the environment, for this session: ``%set_env NAME=VALUE``."""
    name, equals, value = line.partition("=")
    if not equals:
        name, _, value = line.partition(" ")
    os.environ[name.strip()] = value.strip()
    print("env: %s=%s" % (name.strip(), value.strip()))


def line_pinfo(line: str) -> None:
    """What a name stands for, as ``name?``."""
    Calls.about(line.strip(), 0)


def line_pinfo2(line: str) -> None:
    """The same with the source, as ``name??``."""
    Calls.about(line.strip(), 1)


def line_system(line: str) -> "list[str]":
    """What a shell command prints, by lines."""
    return Calls.lines(line)


line_sx = line_system


def cell_system(line: str, body: str) -> "list[str]":
    """What shell commands print, by lines."""
    return Calls.lines(line + "\n" + body)


cell_sx = cell_system


def cell_script(line: str, body: str) -> None:
    """Run the cell with a program: ``%%script PROGRAM [ARGUMENT...]``."""
    import shlex
    import subprocess

    flush()
    process = subprocess.Popen(shlex.split(line), stdin=subprocess.PIPE)
    process.communicate(body.encode())
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, shlex.split(line))


def cell_writefile(line: str, body: str) -> None:
    """Write the cell to a file; ``-a`` adds to it."""
    words = line.split()
    adds = "-a" in words
    names = [word.strip("\"'") for word in words if word not in ("-a", "--append")]
    if len(names) != 1:
        raise UsageError("%%writefile needs the name of one file")
    path = os.path.expanduser(names[0])
    adds = adds or "--append" in words
    print(("Appending to " if adds else "Overwriting " if os.path.exists(path) else "Writing ")
          + names[0])  # fmt: skip
    with open(path, "a" if adds else "w", encoding="utf-8") as file:
        file.write(body)


cell_file = cell_writefile


def cell_html(line: str, body: str) -> None:
    """Show the cell as HTML."""
    display(HTML(body))


def cell_markdown(line: str, body: str) -> None:
    """Show the cell as Markdown."""
    display(Markdown(body))


def cell_latex(line: str, body: str) -> None:
    """Show the cell as LaTeX."""
    display(Latex(body))


def cell_svg(line: str, body: str) -> None:
    """Show the cell as a drawing."""
    display(SVG(body))


def cell_javascript(line: str, body: str) -> None:
    """Have the front end run the cell."""
    display(Javascript(body))


cell_HTML, cell_SVG, cell_js = cell_html, cell_svg, cell_javascript


class Captured:
    """What a cell printed and showed, under ``%%capture NAME``."""

    def __init__(self) -> None:
        import io

        self._out, self._err = io.StringIO(), io.StringIO()
        self.outputs = []  # type: list[tuple[str, dict[str, Any]]]

    stdout = property(lambda self: self._out.getvalue())
    stderr = property(lambda self: self._err.getvalue())

    def __str__(self) -> str:
        return str(self.stdout)

    def show(self) -> None:
        """Print and show it after all."""
        sys.stdout.write(self.stdout)
        sys.stderr.write(self.stderr)
        for kind, content in self.outputs:
            AGENT.channel.publish(kind, content)

    __call__ = show

    def run(self, code: str) -> None:
        """Run code and keep what it prints and shows."""
        streams, publish = (sys.stdout, sys.stderr), AGENT.channel.publish
        sys.stdout, sys.stderr = self._out, self._err
        AGENT.channel.publish = lambda kind, content, **_: self.outputs.append((kind, content))
        try:
            AGENT.run(code)
            show_figures()
        finally:
            sys.stdout, sys.stderr = streams
            AGENT.channel.publish = publish


def cell_capture(line: str, body: str) -> None:
    """Keep what the cell prints and shows, in a variable if one is named."""
    captured = Captured()
    names = [word for word in line.split() if not word.startswith("-")]
    if names:
        AGENT.names[names[0]] = captured
    captured.run(body)


# Looking things up


def do_complete(command: "dict[str, Any]") -> "dict[str, Any]":
    """Names that may stand at the cursor."""
    code, cursor = command["code"], command["cursor_pos"]
    start, matches = complete(code[:cursor], AGENT.names)
    end = cursor
    return {
        "status": "ok",
        "matches": matches,
        "cursor_start": start,
        "cursor_end": end,
        "metadata": {},
    }


def complete(before: str, names: "dict[str, Any]") -> "tuple[int, list[str]]":
    """Where the word at the end of ``before`` starts, and what it may become."""
    import re

    line = before.rpartition("\n")[2]
    word = re.findall(r"[\w.]*$", before)[0]
    imported = re.match(r"\s*from\s+([\w.]+)\s+import\s+(?:[\w ]+,\s*)*\(?(\w*)$", line)
    if imported:
        return len(before) - len(imported.group(2)), members(*imported.groups())
    if re.match(r"\s*(import\s+([\w. ]+,\s*)*|from\s+)[\w.]*$", line):
        return len(before) - len(word), modules(word)
    if re.match(r"\s*(!|%cd\s|%run\s|%ls\s|%cat\s)", line):
        return paths(before, re.findall(r"[^\s'\"=;|&<>()]*$", before)[0])
    magic = re.match(r"\s*(%{1,2}\w*)$", line)
    if magic:
        return len(before) - len(magic.group(1)), magics(magic.group(1))
    text = open_string(line)
    if text is not None:
        return in_string(before, text, names)
    _, dot, stem = word.rpartition(".")
    if dot:
        return len(before) - len(stem), attributes(trailing(before[: -len(stem) - 1]), stem, names)
    return len(before) - len(stem), plain_names(before, stem, names)


def plain_names(before: str, stem: str, names: "dict[str, Any]") -> "list[str]":
    """Names, and the arguments of the function that is being called."""
    import keyword

    known = set(names) | set(dir(builtins)) | set(keyword.kwlist)
    return arguments(before, stem, names) + without_private(known, stem)


def without_private(found: "Any", stem: str) -> "list[str]":
    """Those that begin with ``stem``, sorted; private ones only when asked for."""
    found = [str(name) for name in found if str(name).startswith(stem)]
    if not stem.startswith("_"):
        found = [name for name in found if not name.startswith("_")]
    return sorted(found)


def attributes(expression: str, stem: str, names: "dict[str, Any]") -> "list[str]":
    """The attributes of what an expression stands for."""
    try:
        return without_private(dir(evaluate(expression, names)), stem)
    except Exception:
        return []


def arguments(before: str, stem: str, names: "dict[str, Any]") -> "list[str]":
    """``name=`` for the arguments of the function whose brackets are open."""
    function = called_at(before)
    if not function:
        return []
    import inspect

    try:
        found = inspect.signature(look_up(function, names)).parameters.values()
    except Exception:
        return []
    named = [p.name + "=" for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [name for name in named if name.startswith(stem)]


def modules(word: str) -> "list[str]":
    """Modules whose full name begins with ``word``."""
    import pkgutil

    package, _, stem = word.rpartition(".")
    path = None
    if package:
        path = package_path(package)
        if path is None:
            return []
    found = {item[1] for item in pkgutil.iter_modules(path)}
    found |= set() if package else set(sys.builtin_module_names)
    prefix = package + "." if package else ""
    return [prefix + name for name in without_private(found, stem)]


def package_path(package: str) -> "Any":
    """Where a package's modules are; it is not imported for that, its parents may be."""
    if package in sys.modules:
        return getattr(sys.modules[package], "__path__", None)
    import importlib.util

    try:
        spec = importlib.util.find_spec(package)
    except Exception:
        return None
    return spec.submodule_search_locations if spec else None


def members(module: str, stem: str) -> "list[str]":
    """What can be imported from a module: it is imported to know."""
    import importlib

    try:
        found = set(dir(importlib.import_module(module)))
    except BaseException:
        return []
    return without_private(found | {n.rpartition(".")[2] for n in modules(module + ".")}, stem)


def magics(word: str) -> "list[str]":
    """Magics of the agent that begin with ``word``, signs included."""
    cells = ["%%" + n[5:] for n in globals() if n.startswith("cell_")] + [
        "%%" + n for n in PROGRAMS
    ]
    lines = ["%" + n[5:] for n in globals() if n.startswith("line_")] + ["%" + n for n in ALIASES]
    return [name for name in sorted(lines) + sorted(cells) if name.startswith(word)]


def open_string(line: str) -> "str | None":
    """What stands behind a quotation mark that is still open on this line; else None."""
    import re

    tokens = re.findall(r"'(?:\\.|[^'\\])*'?|\"(?:\\.|[^\"\\])*\"?|#.*", line)
    last = tokens[-1] if tokens and line.endswith(tokens[-1]) else "#"
    is_open = last[0] in "'\"" and (len(last) == 1 or last[-1] != last[0])
    return last[1:] if is_open else None


def in_string(before: str, text: str, names: "dict[str, Any]") -> "tuple[int, list[str]]":
    """The keys of what is being indexed, or file names."""
    head, quote = before[: -len(text) - 1], before[len(before) - len(text) - 1]
    if head.rstrip().endswith("["):
        try:
            found = keys(evaluate(trailing(head.rstrip()[:-1]), names))
        except Exception:
            found = []
        matches = [repr(key)[1:-1] for key in found if isinstance(key, str)]
        matches = [key for key in matches if key.startswith(text) and quote not in key]
        return len(before) - len(text), matches
    return paths(before, text)


def keys(value: "Any") -> "list[Any]":
    """What can stand between square brackets behind an object."""
    own = getattr(value, "_ipython_key_completions_", None)
    if own is not None:
        return list(own())
    if hasattr(value, "dtype") and getattr(value.dtype, "names", None):
        return list(value.dtype.names)
    return list(value.keys())[:10000]


def paths(before: str, text: str) -> "tuple[int, list[str]]":
    """File names that begin with ``text``; only the last part of a path is replaced."""
    folder, slash, stem = text.rpartition("/")
    try:
        found = os.listdir(os.path.expanduser(folder + slash) or ".")
    except OSError:
        found = []
    names = [name for name in sorted(found) if name.startswith(stem)]
    names = [name for name in names if stem.startswith(".") or not name.startswith(".")]
    whole = os.path.expanduser(folder + slash)
    ended = [name + "/" if os.path.isdir(whole + name) else name for name in names]
    return len(before) - len(stem), ended


def trailing(text: str) -> str:
    """The expression of names, dots, constants and square brackets at the end of ``text``."""
    at = len(text)
    while at:
        sign = text[at - 1]
        if sign == "]":
            depth = 0
            while at:
                at -= 1
                depth += {"]": 1, "[": -1}.get(text[at], 0)
                if not depth:
                    break
        elif sign in "'\"":
            at = max(text.rfind(sign, 0, at - 1), 0)
        elif sign.isalnum() or sign in "_.":
            at -= 1
        else:
            break
    return text[at:]


def evaluate(expression: str, names: "dict[str, Any]") -> "Any":
    """The value of names, attributes, constants and harmless indexing; calls nothing else.

    Raises:
        Exception: it has no value, or nobody can know without running the user's code.
    """
    import ast

    def value(node: "Any") -> "Any":
        if isinstance(node, ast.Name):
            return names[node.id] if node.id in names else getattr(builtins, node.id)
        if isinstance(node, ast.Attribute):
            return getattr(value(node.value), node.attr)
        if isinstance(node, ast.Subscript):
            of, inner = value(node.value), node.slice
            package = type(of).__module__.partition(".")[0]
            if type(of) in (dict, list, tuple, str) or package in ("pandas", "numpy", "polars"):
                return of[ast.literal_eval(getattr(inner, "value", inner) if not isinstance(
                    inner, ast.Constant) else inner)]  # fmt: skip
            raise ValueError(expression)
        return ast.literal_eval(node)

    return value(ast.parse(expression.strip(), mode="eval").body)


def look_up(name: str, names: "dict[str, Any]") -> "Any":
    """The object a dotted name stands for; calls nothing."""
    first, *rest = name.split(".")
    value = names[first] if first in names else getattr(builtins, first)
    for part in rest:
        value = getattr(value, part)
    return value


def do_inspect(command: "dict[str, Any]") -> "dict[str, Any]":
    """What the name at the cursor is."""
    name = name_at(command["code"], command["cursor_pos"])
    try:
        value = look_up(name, AGENT.names)
    except Exception:
        return {"status": "ok", "found": False, "data": {}, "metadata": {}}
    text = about(name, value, command.get("detail_level", 0))
    return {"status": "ok", "found": True, "data": {"text/plain": text}, "metadata": {}}


def name_at(code: str, cursor: int) -> str:
    """The dotted name at the cursor, or the function whose arguments it stands in."""
    import re

    end = cursor + len(re.findall(r"^\w*", code[cursor:])[0])
    name = re.findall(r"[A-Za-z_][\w.]*$|$", code[:end])[0]
    return str(name) or called_at(code[:cursor])


def called_at(before: str) -> str:
    """The function whose brackets are open at the end of ``before``; empty if there is none."""
    import re

    depth = 0
    for at in range(len(before) - 1, -1, -1):
        depth += {")": 1, "]": 1, "}": 1, "(": -1, "[": -1, "{": -1}.get(before[at], 0)
        if depth < 0:
            found = re.findall(r"[A-Za-z_][\w.]*$|$", before[:at])[0]
            return str(found) if before[at] == "(" else called_at(before[:at])
    return ""


def about(name: str, value: "Any", detail: int) -> str:
    """Signature, documentation and, if more is wanted, the source of an object."""
    import inspect

    parts = []

    def add(label: str, text: str) -> None:
        parts.append("%s%-15s%s%s" % (RED, label + ":", OFF, text))

    if callable(value):
        try:
            add("Signature", "%s%s" % (name.rpartition(".")[2], inspect.signature(value)))
        except (TypeError, ValueError):
            pass
    add("Type", type(value).__name__)
    if not callable(value):
        add("String form", pretty(value)[:1000])
        if hasattr(value, "__len__") and not isinstance(value, type):
            try:
                add("Length", str(len(value)))
            except Exception:
                pass
    try:
        add("File", inspect.getsourcefile(value) or inspect.getfile(value))
    except (TypeError, OSError):
        pass
    source = _source(value) if detail else ""
    if source:
        add("Source", "\n" + source)
    else:
        text = inspect.getdoc(value) or "<no docstring>"
        add("Docstring", "\n" + text if "\n" in text else text)
    return "\n".join(parts)


def _source(value: "Any") -> str:
    import inspect

    try:
        return inspect.getsource(value)
    except (TypeError, OSError):
        return ""


def do_is_complete(command: "dict[str, Any]") -> "dict[str, Any]":
    """Whether a console may run it."""
    import codeop
    import warnings

    code = command["code"]
    if code.lstrip().startswith("%%"):
        is_done = code.endswith("\n\n") or ("\n" not in code.strip() and code.endswith("\n"))
        return {"status": "complete"} if is_done else {"status": "incomplete", "indent": ""}
    code = with_magics(code)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiler = codeop.CommandCompiler()
            compiler.compiler.flags |= AWAIT if sys.version_info >= (3, 8) else 0
            done = compiler(code, symbol="exec" if "\n" in code.strip() else "single")
    except (SyntaxError, ValueError, OverflowError):
        return {"status": "invalid"}
    last = code.rstrip("\n").rpartition("\n")[2]
    if done is not None and not (last.startswith((" ", "\t")) and not code.endswith("\n")):
        return {"status": "complete"}
    indent = last[: len(last) - len(last.lstrip())]
    return {"status": "incomplete", "indent": indent + "    " * last.endswith(":")}


# Comms: what widgets of a page and of a cell say to each other


def after_comm(module: "Any") -> None:
    """The ``comm`` package leaves the sending to its kernel."""

    class Kernel:
        """What an output widget asks, to know which messages' outputs it takes."""

        @staticmethod
        def get_parent() -> "dict[str, Any]":
            return {"header": {"msg_id": AGENT.parent}}

    class Comm(module.BaseComm):  # type: ignore[misc]
        kernel = Kernel()

        def publish_msg(
            self,
            msg_type: str,
            data: "Any" = None,
            metadata: "Any" = None,
            buffers: "Any" = None,
            **keys: "Any",
        ) -> None:
            """Send a message to the page."""
            content = dict(keys, data=data or {}, comm_id=self.comm_id)
            send_comm(msg_type, content, metadata, buffers)

    module.create_comm = Comm


def send_comm(kind: str, content: "Any", metadata: "Any" = None, buffers: "Any" = None) -> None:
    """Publish a comm's message; buffers go as base64."""
    import base64

    packed = [base64.b64encode(bytes(memoryview(one).cast("B"))).decode() for one in buffers or ()]
    AGENT.channel.publish(kind, content, metadata=metadata or {}, buffers=packed)


def after_ipywidgets(module: "Any") -> None:
    """In IPython it would do this itself: the page may open widgets, and ask for all there are."""
    register = getattr(module, "register_comm_target", None)
    if register is not None:
        register()


def after_interaction(module: "Any") -> None:
    """The figures of an ``interact`` belong into its own output."""
    module.show_inline_matplotlib_plots = show_figures


def comm_manager() -> "Any":
    """The ``comm`` package's, where somebody has imported it."""
    module = sys.modules.get("comm")  # type: Any
    return module.get_comm_manager() if hasattr(module, "get_comm_manager") else None


def do_comm_info(command: "dict[str, Any]") -> "dict[str, Any]":
    """The comms that are open."""
    manager, wanted = comm_manager(), command.get("target_name")
    found = dict(manager.comms) if manager else {}
    comms = {
        key: {"target_name": comm.target_name}
        for key, comm in found.items()
        if wanted in (None, comm.target_name)
    }
    return {"status": "ok", "comms": comms}


def do_comm(command: "dict[str, Any]") -> "dict[str, Any]":
    """A message of the page's: open, msg or close."""
    import base64

    kind, content, manager = command["type"], command["content"], comm_manager()
    AGENT.parent = command["id"]
    AGENT.channel.send("begin", id=command["id"])
    is_known = manager is not None and (
        content.get("target_name") in manager.targets
        if kind == "comm_open"
        else content.get("comm_id") in manager.comms
    )
    message = {
        "header": command.get("header") or {},
        "msg_type": kind,
        "content": content,
        "metadata": command.get("metadata") or {},
        "buffers": [memoryview(base64.b64decode(one)) for one in command.get("buffers") or ()],
    }
    if is_known:
        failed = AGENT.guarded(lambda: getattr(manager, kind)(None, "", message))
        if "matplotlib.pyplot" in sys.modules:
            failed = AGENT.guarded(show_figures) or failed
        if failed:
            sys.stderr.write("\n".join(failed["traceback"]) + "\n")
    elif kind == "comm_open":
        send_comm("comm_close", {"comm_id": content.get("comm_id", ""), "data": {}})
    return {}
