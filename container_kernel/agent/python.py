"""A notebook kernel in one file, for images that have ``python3`` (3.6 or newer) and nothing else.

It is run in the container as ``python3 -u agent.py COMMANDS EVENTS`` and talks to the host by
JSON lines through two FIFOs. The host speaks Jupyter; this file only runs code. What code and its
child processes print goes through the ordinary pipes, so it is in order by itself; an event that
must stand in order with it (a display) is acknowledged by the host, who first takes what was
printed before.

Whatever is not needed to start is imported when it is.
"""

import builtins
import os
import signal
import sys

try:
    import json
except ImportError:  # Debian's python3-minimal
    sys.exit("this image's python3 lacks most of its standard library: %apt python3 adds it")

MYPY = False
if MYPY:  # read by type checkers only: typing takes long to import
    from typing import Any

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
AWAIT, COROUTINE = 0x2000, 0x80  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, inspect.CO_COROUTINE
WIDTH = 79


class StdinNotImplementedError(NotImplementedError):
    """The front end cannot ask."""


# Talking to the host


class Channel:
    """The two FIFOs. ``guard`` keeps an interrupt from cutting a line in two."""

    def __init__(self, commands: str, events: str) -> None:
        self._commands = os.open(commands, os.O_RDONLY)
        self._events = os.open(events, os.O_WRONLY)
        self._buffer = b""
        self._waiting = []  # type: list[dict[str, Any]]
        self._depth = 0
        self._interrupted = False
        self.in_user_code = False
        self._main = _thread_id()
        self._lock = _lock()
        signal.signal(signal.SIGINT, self.on_interrupt)

    def on_interrupt(self, *_: "Any") -> None:
        """SIGINT: stop the user's code, but not in the middle of a line."""
        if self._depth:
            self._interrupted = True
        elif self.in_user_code:
            raise KeyboardInterrupt

    def __enter__(self) -> "Channel":
        if _thread_id() == self._main:
            self._depth += 1
        return self

    def __exit__(self, *_: "Any") -> None:
        if _thread_id() == self._main:
            self._depth -= 1
            if not self._depth and self._interrupted:
                self._interrupted = False
                if self.in_user_code:
                    raise KeyboardInterrupt

    def send(self, op: str, **fields: "Any") -> None:
        """Tell the host something."""
        flush()
        with self:
            data = json.dumps(dict(fields, op=op), default=repr).encode() + b"\n"
            with self._lock:
                while data:
                    data = data[os.write(self._events, data) :]

    def publish(self, kind: str, content: "dict[str, Any]") -> None:
        """Publish an output in order with what was printed before."""
        is_main = _thread_id() == self._main and self.in_user_code
        with self:
            self.send("publish", type=kind, content=content, sync=is_main)
            if is_main:
                self.wait_for("ack")

    def wait_for(self, op: str) -> "dict[str, Any]":
        """The next command ``op``; others keep their order for later."""
        while True:
            command = self._read()
            if command["op"] == op:
                return command
            self._waiting.append(command)

    def wait_interruptibly(self) -> None:
        """Wait for a command; an interrupt ends the wait and loses nothing."""
        import select

        if not self._buffer and not self._waiting:
            select.select([self._commands], [], [])

    def next(self) -> "dict[str, Any]":
        """The next command."""
        return self._waiting.pop(0) if self._waiting else self._read()

    def _read(self) -> "dict[str, Any]":
        while b"\n" not in self._buffer:
            data = os.read(self._commands, 1 << 16)
            if not data:
                sys.exit(0)
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return dict(json.loads(line.decode()))


def _thread_id() -> int:
    import _thread

    return _thread.get_ident()


def _lock() -> "Any":
    import _thread

    return _thread.RLock()


def flush() -> None:
    """Push out what is printed; somebody may have closed or replaced the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            continue


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
        if "image/png" not in data and is_figure(value):
            data["image/png"] = picture(value)
    data.setdefault("text/plain", pretty(value))
    return {mime: _as_text(item) for mime, item in data.items()}, metadata


def _call(value: "Any", method: str, **options: "Any") -> "Any":
    try:
        function = getattr(value, method, None)
        return function(**options) if callable(function) else None
    except NotImplementedError:
        return None
    except Exception:
        print_error("".join(format_error(*sys.exc_info())))
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
    plain = isinstance(value, (dict, list, tuple, set, frozenset))
    if plain and len(text) > WIDTH and "\n" not in text and len(text) < 1 << 20:
        import pprint

        options = {"sort_dicts": False} if sys.version_info >= (3, 8) else {}
        text = pprint.pformat(value, width=WIDTH + 1, **options)
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


def update_display(value: "Any", *, display_id: str, **options: "Any") -> None:
    """Change what was shown under ``display_id``."""
    display(value, display_id=display_id, update=True, **options)


def clear_output(wait: bool = False) -> None:
    """Clear the cell's output."""
    AGENT.channel.publish("clear_output", {"wait": bool(wait)})


def publish_display_data(
    data: "dict[str, Any]", metadata: "dict[str, Any] | None" = None, **options: "Any"
) -> None:
    """Show data that is ready by MIME type."""
    display(data, metadata=metadata, raw=True, **options)


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


class Shown:
    """``HTML("<b>x</b>")`` and its kin: text or bytes of one MIME type."""

    mime = "text/plain"

    def __init__(
        self,
        data: "str | bytes | None" = None,
        url: "str | None" = None,
        filename: "str | None" = None,
        **options: "Any",
    ) -> None:
        self.url, self.options = url, options
        if isinstance(data, str) and "<" not in data and self.mime.startswith("image/"):
            if data.startswith(("http://", "https://")):
                self.url = data
            else:
                filename = data
            data = None
        if filename is not None:
            with open(filename, "rb") as file:
                data = file.read()
        self.data = data

    def _repr_mimebundle_(self, **_: "Any") -> "dict[str, Any]":
        if self.data is None:
            return {"text/html": '<img src="%s"/>' % self.url}
        mime, data = self.mime, self.data
        if isinstance(data, bytes) and mime == "image/png":
            mime = "image/jpeg" if data[:2] == b"\xff\xd8" else mime
            mime = "image/gif" if data[:3] == b"GIF" else mime
        elif isinstance(data, bytes):
            data = data.decode()
        return {mime: data}

    def __repr__(self) -> str:
        return "<IPython.core.display.%s object>" % type(self).__name__


def shown(name: str, mime: str) -> type:
    """A class of ``IPython.display``."""
    return type(name, (Shown,), {"mime": mime})


# Libraries that must be told where they are: looked after when they are imported, not before


def is_figure(value: "Any") -> bool:
    """Whether it is a matplotlib figure."""
    figure = sys.modules.get("matplotlib.figure")
    return figure is not None and isinstance(value, figure.Figure)


def picture(figure: "Any") -> bytes:
    """A matplotlib figure as PNG."""
    import io

    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", dpi=figure.dpi)
    return file.getvalue()


def show_figures(*_: "Any", **__: "Any") -> None:
    """Show and close all figures that are open."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or not hasattr(pyplot, "get_fignums"):
        return
    try:
        for number in pyplot.get_fignums():
            display(pyplot.figure(number))
    finally:
        pyplot.close("all")


def _after_matplotlib(module: "Any") -> None:
    if "MPLBACKEND" not in os.environ:
        module.use("agg")


def _after_pyplot(module: "Any") -> None:
    module.show = show_figures


def _after_getpass(module: "Any") -> None:
    module.getpass = AGENT.getpass


def _after_display(module: "Any") -> None:
    for function in (display, update_display, clear_output, publish_display_data):
        setattr(module, function.__name__, function)


def _fill_display(module: "Any") -> None:
    """A small IPython.display, for images without IPython."""
    _after_display(module)
    module.DisplayHandle = DisplayHandle
    for name, mime in (
        ("HTML", "text/html"),
        ("Markdown", "text/markdown"),
        ("SVG", "image/svg+xml"),
        ("Image", "image/png"),
        ("Latex", "text/latex"),
        ("Math", "text/latex"),
        ("JSON", "application/json"),
        ("Javascript", "application/javascript"),
        ("Pretty", "text/plain"),
    ):
        setattr(module, name, shown(name, mime))


def _fill_ipython(module: "Any") -> None:
    module.__path__ = []
    module.get_ipython = lambda: None


class Finder:
    """Finds what Python's own finders find, and calls a function after the import."""

    after = {  # noqa: RUF012
        "matplotlib": _after_matplotlib,
        "matplotlib.pyplot": _after_pyplot,
        "getpass": _after_getpass,
        "IPython.display": _after_display,
        "IPython.core.display_functions": _after_display,
    }
    absent = {"IPython": _fill_ipython, "IPython.display": _fill_display}  # noqa: RUF012

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        """As importlib asks."""
        if name not in self.after and name not in self.absent:
            return None
        this = self  # type: Any
        for finder in sys.meta_path:
            spec = None if finder is this else finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            from importlib.machinery import ModuleSpec

            fill = self.absent.get(name)
            loader = Filler(fill)  # type: Any
            return ModuleSpec(name, loader, is_package=name == "IPython") if fill else None
        if name in self.after and spec.loader is not None:
            loader = After(spec.loader, self.after[name])
            spec.loader = loader
        return spec


class Filler:
    """Loads a module that a function fills."""

    def __init__(self, fill: "Any") -> None:
        self.fill = fill

    def create_module(self, spec: "Any") -> None:
        """The usual one."""

    def exec_module(self, module: "Any") -> None:
        """Fill it."""
        self.fill(module)


class After:
    """Loads as another loader does, then calls a function."""

    def __init__(self, loader: "Any", function: "Any") -> None:
        self.loader, self.function = loader, function

    def __getattr__(self, name: str) -> "Any":
        return getattr(self.loader, name)

    def create_module(self, spec: "Any") -> "Any":
        """The loader's own."""
        return self.loader.create_module(spec)

    def exec_module(self, module: "Any") -> None:
        """Load, then call."""
        self.loader.exec_module(module)
        self.function(module)


# Errors

RED, GREEN, CYAN, OFF = "\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[39m"


def print_error(text: str) -> None:
    """Write to standard error."""
    sys.stderr.write(text + "\n")


def format_error(kind: type, error: "BaseException", trace: "Any") -> "list[str]":
    """A traceback as IPython shows it, without the frames of this file."""
    lines = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and cause is not error:
        lines += format_error(type(cause), cause, cause.__traceback__)
        how = "The above exception was the direct cause of the following exception:"
        if error.__cause__ is None:
            how = "During handling of the above exception, another exception occurred:"
        lines += ["", how, ""]
    else:
        lines.append(RED + "-" * 75 + OFF)
    gap = " " * max(1, 75 - len(kind.__name__) - 33)
    lines.append(RED + kind.__name__ + OFF + gap + "Traceback (most recent call last)")
    if isinstance(error, SyntaxError):
        return [*lines, *_format_syntax(error)]
    for frame, number in _frames(trace):
        lines += _format_frame(frame, number)
    return [*lines, *_summary(kind, error)]


def _summary(kind: type, error: "BaseException") -> "list[str]":
    try:
        text = str(error)
    except Exception:
        text = "<exception str() failed>"
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    return [RED + kind.__name__ + OFF + (": " + text if text else ""), *notes]


def _frames(trace: "Any") -> "list[tuple[Any, int]]":
    found = []
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != __file__:
            found.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return found if len(found) < 60 else found[:30] + found[-30:]


def _place(filename: str, number: "int | None", function: str = "") -> str:
    if filename.startswith("<cell "):
        return "%sCell In[%s], line %s%s" % (CYAN, filename[6:-1], number, OFF)
    return "%sFile %s:%s%s" % (CYAN, filename, number, OFF) + function


def _format_frame(frame: "Any", number: int) -> "list[str]":
    import linecache

    code = frame.f_code
    function = "" if code.co_name == "<module>" else ", in %s(...)" % code.co_name
    lines = [_place(code.co_filename, number, function)]
    for at in range(max(1, number - 2), number + 3):
        text = linecache.getline(code.co_filename, at, frame.f_globals).rstrip("\n")
        if at == number and text:
            lines.append("%s----> %d%s %s" % (GREEN, at, OFF, text))
        elif text:
            lines.append("%s%7d%s %s" % (GREEN, at, OFF, text))
    return [*lines, ""]


def _format_syntax(error: SyntaxError) -> "list[str]":
    lines = [_place(error.filename or "?", error.lineno)]
    if error.text:
        text = error.text.rstrip("\n")
        lines.append("    " + text)
        lines.append("    " + " " * max(0, (error.offset or 1) - 1) + "^")
    return [*lines, RED + type(error).__name__ + OFF + ": " + str(error.msg)]


# Running code


class Agent:
    """Runs cells in one namespace."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.module = type(sys)("__main__")  # type: Any
        self.names = self.module.__dict__
        self.names.update(__builtins__=builtins, In=[""], Out={}, _="")
        self.history = []  # type: list[tuple[int, str]]
        self.count = 0
        self.allow_stdin = False
        self._loop = None  # type: Any

    def serve(self) -> None:
        """Answer commands, for ever."""
        while True:
            with self.channel:
                command = self.channel.next()
            answer = getattr(self, "do_" + command["op"], None)
            if answer is None:
                continue
            try:
                content = answer(command)
            except BaseException as error:  # an interrupt may come a moment too late
                content = self.describe(type(error), error, error.__traceback__)
            self.channel.send("reply", id=command.get("id"), content=content)

    def do_execute(self, command: "dict[str, Any]") -> "dict[str, Any]":
        """Run a cell."""
        self.count = command["count"]
        self.allow_stdin = command.get("allow_stdin", False)
        code, silent = command["code"], command.get("silent", False)
        if command.get("store_history", True) and not silent and code.strip():
            self.history.append((self.count, code))
            self.names["In"].append(code)
        sys.displayhook = (lambda value: None) if silent else self.show_result
        failed = self.guarded(lambda: self.run(code))
        failed = failed or self.guarded(show_figures)
        if failed:
            return failed
        wanted = command.get("user_expressions") or {}
        found = {name: self.expression(text) for name, text in wanted.items()}
        return {"status": "ok", "user_expressions": found, "payload": []}

    def guarded(self, function: "Any") -> "dict[str, Any] | None":
        """Call what is the user's; describe what it raises."""
        try:
            self.channel.in_user_code = True
            function()
            self.channel.in_user_code = False
        except BaseException as error:
            self.channel.in_user_code = False
            return self.describe(type(error), error, error.__traceback__)
        return None

    def describe(self, kind: type, error: BaseException, trace: "Any") -> "dict[str, Any]":
        """An error's three fields."""
        sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
        if kind is SystemExit:
            print_error("SystemExit: the kernel goes on; restart it to begin afresh")
        try:
            shown = format_error(kind, error, trace)
        except Exception as problem:
            shown = ["%s (its traceback cannot be shown: %r)" % (kind.__name__, problem)]
        value = _summary(kind, error)[0].partition(": ")[2]
        return {"status": "error", "ename": kind.__name__, "evalue": value, "traceback": shown}

    def run(self, code: str) -> None:
        """Run a cell; the last expression's value is shown."""
        import ast

        name = "<cell %d>" % self.count
        tree = self.parse(code, name)
        last = []
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not _ends_quietly(code):
            last = [tree.body.pop()]
        module = ast.parse("")
        module.body = tree.body
        self.evaluate(compile(module, name, "exec", self.flags(), True))
        if last:
            single = ast.Interactive(last)
            self.evaluate(compile(single, name, "single", self.flags(), True))

    def parse(self, code: str, name: str) -> "Any":
        """The cell's syntax tree. ``!`` and ``?`` are tried where Python sees no sense."""
        import ast
        import linecache

        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        try:
            return compile(code, name, "exec", ast.PyCF_ONLY_AST | self.flags(), True)
        except SyntaxError:
            other = with_shell(code)
            if other == code:
                raise
            return compile(other, name, "exec", ast.PyCF_ONLY_AST | self.flags(), True)

    @staticmethod
    def flags() -> int:
        """What the compiler allows on top."""
        return AWAIT if sys.version_info >= (3, 8) else 0

    def evaluate(self, code: "Any") -> None:
        """Run a code object, or wait for it if it awaits."""
        if not code.co_flags & COROUTINE:
            exec(code, self.names)
            return
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(eval(code, self.names))
        try:
            self._loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise

    def show_result(self, value: "Any") -> None:
        """Python's display hook."""
        if value is None:
            return
        names = self.names
        names["__"], names["_"] = names.get("_", ""), value
        names["Out"][self.count] = value
        data, metadata = mime_bundle(value)
        content = {"data": data, "metadata": metadata, "execution_count": self.count}
        self.channel.publish("execute_result", content)

    def expression(self, text: str) -> "dict[str, Any]":
        """One of ``user_expressions``."""
        try:
            data, metadata = mime_bundle(eval(text, self.names))
        except Exception as error:
            return self.describe(type(error), error, error.__traceback__)
        return {"status": "ok", "data": data, "metadata": metadata}

    def input(self, prompt: "Any" = "") -> str:
        """``input()``: the front end asks."""
        return self.ask(str(prompt), False)

    def getpass(self, prompt: str = "Password: ", stream: "Any" = None) -> str:
        """``getpass.getpass()``: the front end asks and shows nothing."""
        return self.ask(prompt, True)

    def ask(self, prompt: str, password: bool) -> str:
        """Have the front end ask."""
        if not self.allow_stdin:
            raise StdinNotImplementedError(
                "input was called, but this front end does not support input requests."
            )
        self.channel.send("input_request", prompt=prompt, password=password)
        self.channel.wait_interruptibly()
        with self.channel:
            answer = self.channel.wait_for("input_reply")
        return str(answer.get("value", ""))

    # Looking things up

    def do_complete(self, command: "dict[str, Any]") -> "dict[str, Any]":
        """Names that may stand at the cursor."""
        code, cursor = command["code"], command["cursor_pos"]
        start, matches = complete(code[:cursor], self.names)
        return {
            "status": "ok",
            "matches": matches,
            "cursor_start": start,
            "cursor_end": cursor,
            "metadata": {},
        }

    def do_inspect(self, command: "dict[str, Any]") -> "dict[str, Any]":
        """What the name at the cursor is."""
        name = name_at(command["code"], command["cursor_pos"])
        try:
            value = look_up(name, self.names)
        except Exception:
            return {"status": "ok", "found": False, "data": {}, "metadata": {}}
        text = about(name, value, command.get("detail_level", 0))
        return {"status": "ok", "found": True, "data": {"text/plain": text}, "metadata": {}}

    def do_is_complete(self, command: "dict[str, Any]") -> "dict[str, Any]":
        """Whether a console may run it."""
        import codeop
        import warnings

        code = with_shell(command["code"])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compiler = codeop.CommandCompiler()
                compiler.compiler.flags |= self.flags()
                done = compiler(code, symbol="exec" if "\n" in code.strip() else "single")
        except (SyntaxError, ValueError, OverflowError):
            return {"status": "invalid"}
        last = code.rstrip("\n").rpartition("\n")[2]
        if done is not None and not (last.startswith((" ", "\t")) and not code.endswith("\n")):
            return {"status": "complete"}
        indent = last[: len(last) - len(last.lstrip())]
        return {"status": "incomplete", "indent": indent + "    " * last.endswith(":")}

    def do_history(self, command: "dict[str, Any]") -> "dict[str, Any]":
        """Cells run before."""
        items = [(0, count, code) for count, code in self.history]  # type: list[Any]
        kind, number = command.get("hist_access_type"), command.get("n") or 10
        if kind == "search":
            import fnmatch

            pattern = command.get("pattern") or "*"
            items = [item for item in items if fnmatch.fnmatch(item[2], pattern)]
            if command.get("unique"):
                items = list({item[2]: item for item in items}.values())
        if kind == "range":
            start, stop = command.get("start") or 0, command.get("stop") or len(items)
            items = [item for item in items if start <= item[1] < stop]
        else:
            items = items[-number:]
        if command.get("output"):
            out = self.names["Out"]
            items = [(s, n, (c, repr(out[n]) if n in out else None)) for s, n, c in items]
        return {"status": "ok", "history": items}


def _ends_quietly(code: str) -> bool:
    return code.rstrip().endswith(";")


def complete(before: str, names: "dict[str, Any]") -> "tuple[int, list[str]]":
    """Where the word at the end of ``before`` starts, and what it may become."""
    import re

    word = re.findall(r"[\w.]*$", before)[0]
    line = before.rpartition("\n")[2]
    if re.match(r"\s*(import|from)\s+[\w.]*$", line):
        return len(before) - len(word), modules(word)
    base, dot, stem = word.rpartition(".")
    if not dot:
        import keyword

        known = set(names) | set(dir(builtins)) | set(keyword.kwlist)
        found = [name for name in known if name.startswith(stem)]
    else:
        try:
            found = [name for name in dir(look_up(base, names)) if name.startswith(stem)]
        except Exception:
            found = []
    if not stem.startswith("_"):
        found = [name for name in found if not name.startswith("_")]
    return len(before) - len(stem), sorted(str(name) for name in found)


def modules(word: str) -> "list[str]":
    """Modules whose full name begins with ``word``."""
    import pkgutil

    package, _, stem = word.rpartition(".")
    path = None
    if package:
        path = getattr(sys.modules.get(package), "__path__", None)
        if path is None:
            return []
    found = {item[1] for item in pkgutil.iter_modules(path)}
    found |= set() if package else set(sys.builtin_module_names)
    prefix = package + "." if package else ""
    return sorted(prefix + name for name in found if name.startswith(stem))


def look_up(name: str, names: "dict[str, Any]") -> "Any":
    """The object a dotted name stands for; calls nothing."""
    first, *rest = name.split(".")
    value = names[first] if first in names else getattr(builtins, first)
    for part in rest:
        value = getattr(value, part)
    return value


def name_at(code: str, cursor: int) -> str:
    """The dotted name at the cursor, or the function whose arguments it stands in."""
    import re

    end = cursor + len(re.findall(r"^\w*", code[cursor:])[0])
    name = re.findall(r"[A-Za-z_][\w.]*$|$", code[:end])[0]
    if name:
        return str(name)
    depth = 0
    for at in range(cursor - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(code[at], 0)
        if depth < 0:
            return str(re.findall(r"[A-Za-z_][\w.]*$|$", code[:at])[0])
    return ""


def about(name: str, value: "Any", detail: int) -> str:
    """Signature, documentation and, if more is wanted, the source of an object."""
    import inspect

    parts = []
    if callable(value):
        try:
            sign = "%s%s" % (name.rpartition(".")[2], inspect.signature(value))
            parts.append("%sSignature:%s %s" % (RED, OFF, sign))
        except (TypeError, ValueError):
            pass
    else:
        parts.append("%sString form:%s %s" % (RED, OFF, pretty(value)[:1000]))
    parts.append("%sType:%s      %s" % (RED, OFF, type(value).__name__))
    if detail:
        try:
            parts.append("%sSource:%s\n%s" % (RED, OFF, inspect.getsource(value)))
        except (TypeError, OSError):
            pass
    parts.append("%sDocstring:%s %s" % (RED, OFF, inspect.getdoc(value) or "<no docstring>"))
    return "\n".join(parts)


def with_shell(code: str) -> str:
    """``!cmd`` and ``x = !cmd`` and ``name?`` as calls; nothing else is changed."""
    import re

    lines = []
    for line in code.split("\n"):
        plain = re.match(r"(\s*)!(?!=)(.+)$", line)
        kept = re.match(r"(\s*)([A-Za-z_][\w.]*)\s*=\s*!(.+)$", line)
        asked = re.match(r"(\s*)\??([A-Za-z_][\w.]*)(\?{1,2})\s*$", line)
        if plain:
            line = "%s__import__('builtins')._shell(%r)" % plain.groups()
        elif kept:
            line = "%s%s = __import__('builtins')._shell_lines(%r)" % kept.groups()
        elif asked:
            line = "%s__import__('builtins')._about(%r, %r)" % asked.groups()
        lines.append(line)
    return "\n".join(lines)


def filled(command: str) -> str:
    """A command with ``{name}`` and ``$name`` filled in where there is such a variable."""
    import re

    names = AGENT.names

    def fill(match: "Any") -> str:
        name = match.group(1) or match.group(2)
        known = name in names and not name.startswith("__")
        return str(names[name]) if known else match.group()

    return re.sub(r"\{([A-Za-z_]\w*)\}|\$([A-Za-z_]\w*)", fill, command)


def shell(command: str) -> None:
    """``!cmd``."""
    import subprocess

    flush()
    AGENT.names["_exit_code"] = subprocess.call(filled(command), shell=True)


def shell_lines(command: str) -> "list[str]":
    """``x = !cmd``."""
    import subprocess

    flush()
    done = subprocess.Popen(filled(command), shell=True, stdout=subprocess.PIPE)
    text = done.communicate()[0].decode("utf-8", "replace")
    AGENT.names["_exit_code"] = done.returncode
    return text.splitlines()


def show_about(name: str, marks: str) -> None:
    """``name?``."""
    print(about(name, look_up(name, AGENT.names), len(marks) - 1))


def info() -> "dict[str, Any]":
    """What kernel_info tells of us."""
    version = "%d.%d.%d" % sys.version_info[:3]
    return {
        "implementation": "container_kernel.agent",
        "banner": "Python " + sys.version.replace("\n", ""),
        "language_info": {
            "name": "python",
            "version": version,
            "mimetype": "text/x-python",
            "codemirror_mode": {"name": "ipython", "version": 3},
            "pygments_lexer": "ipython3",
            "nbconvert_exporter": "python",
            "file_extension": ".py",
        },
    }


def open_streams() -> None:
    """Text goes out as it is written, in UTF-8 whatever the image's locale is."""
    import io

    for name, fd in (("stdout", 1), ("stderr", 2)):
        raw = io.FileIO(fd, "w", closefd=False)
        stream = io.TextIOWrapper(
            raw, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True
        )
        setattr(sys, name, stream)
        setattr(sys, "__%s__" % name, stream)


def main() -> None:
    """Be the agent."""
    global AGENT
    open_streams()
    AGENT = Agent(Channel(sys.argv[1], sys.argv[2]))
    builtins.input = AGENT.input
    added = {"display": display, "_shell": shell, "_shell_lines": shell_lines, "_about": show_about}
    vars(builtins).update(added)
    finder = Finder()  # type: Any
    sys.meta_path.insert(0, finder)
    sys.argv, sys.path[0] = [""], ""
    sys.modules["__main__"] = AGENT.module
    AGENT.channel.send("ready", info=info())
    AGENT.serve()


AGENT = None  # type: Any

if __name__ == "__main__":
    main()
