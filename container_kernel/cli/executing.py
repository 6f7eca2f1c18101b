"""Executing: a notebook's cells by nbclient, one after the other, in one kernel of ours."""

from __future__ import annotations

import asyncio
import atexit
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_async
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from .. import errors
from ..display.log import plain
from ..errors import HostError
from ..kernel import frozen, marking, staleness
from ..kernel.magics import is_for_live_sessions
from ..kernel.provisioner import SpareProvisioner
from ..kernel.spare import Spare
from ..record import field, record
from .progress import Progress
from .report import Report

STARTUP_TIMEOUT_S = 60
_LOOKS_EVERY_S = 0.5


@record
class Kernel:
    """How the kernel is started, and the process that waits to be it."""

    command: Sequence[str]
    environ: Mapping[str, str]
    spare: Spare


class OwnKernelSpec(KernelSpecManager):
    """Knows our kernel only, as this Python runs it: no kernelspec needs to be installed."""

    command: Sequence[str]
    notebook_kernel = frozen.PLAIN
    """What the notebook's own kernel is called."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Our kernel; on the image of the notebook's own kernel, if that is a frozen one."""
        try:
            arguments = frozen.arguments(super().get_kernel_spec(self.notebook_kernel).argv)
        except NoSuchKernel:
            arguments = []
        return KernelSpec(
            argv=[*self.command, *arguments],
            name=kernel_name,
            display_name="Container",
            language="python",
            interrupt_mode="message",
            metadata={"kernel_provisioner": {"provisioner_name": "container-kernel-spare"}},
        )


@record(frozen=False)
class Outcome:
    """How the execution went."""

    seconds: float = 0.0
    cells: int = 0
    stages: Mapping[str, object] = field(default_factory=dict)
    failure: CellExecutionError | DeadKernelError | None = None
    failed_cell: Any = None
    is_interrupted: bool = False

    def tell(self, report: Report) -> int:
        """Say so; returns the exit code."""
        said = self._failed
        data: dict[str, object] = {
            "status": "error" if said else "ok",
            "cells": self.cells,
            "stages": self.stages,
            "seconds": round(self.seconds, 3),
        }
        if said:
            data["error"] = {"cell": self.failed_cell and self.failed_cell.get("id"), **said}
            report.note(f"{self._where}{said['traceback']}")
        report.result(data, _text(self))
        return _exit_code(said["ename"]) if said else 0

    @property
    def _failed(self) -> dict[str, str]:
        """What went wrong; empty where nothing did."""
        is_dead = isinstance(self.failure, DeadKernelError)
        if self.is_interrupted and (is_dead or not self.failure):
            what = "its kernel was ended" if is_dead else "no other cell was executed"
            text = f"interrupted: {what}"
            return {"ename": "KeyboardInterrupt", "evalue": text, "traceback": text}
        return _described(self.failure) if self.failure else {}

    @property
    def _where(self) -> str:
        if not self.failed_cell:
            return ""
        source = "\n".join(f"    {line}" for line in self.failed_cell.source.splitlines())
        return f"the cell that failed:\n{source}\n\n"


class Client(NotebookClient):
    """Tells ``progress`` what it is doing, and can be stopped: the cell first, then the kernel."""

    progress: Progress
    ids: Collection[str] = ()
    with_meters = False
    is_stopped = is_ended = False

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        """Start it. Signals are ours from then on: nbclient ends the kernel at the first one."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._stop)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup(1)
                loop.add_signal_handler(number, lambda: self._stop(at_once=True))
        await super().async_start_new_kernel(**kwargs)

    def _stop(self, *, at_once: bool = False) -> None:
        """Interrupt the cell; who asks twice has the kernel ended. No other cell is executed."""
        self.is_ended = self.is_stopped or at_once
        self.is_stopped = True
        self._stopping = asyncio.ensure_future(self._signal())

    async def _signal(self) -> None:
        if self.km is None or not self.km.has_kernel:
            return
        with suppress(RuntimeError):  # it has ended by itself
            if self.is_ended:
                await ensure_async(self.km.signal_kernel(signal.SIGKILL))
            else:
                await ensure_async(self.km.interrupt_kernel())

    async def execute_known(self, cell: Any, index: int, number: int) -> None:
        """Execute a cell, and say which it is, as front ends do.

        Raises:
            CellExecutionError: it went wrong.
            DeadKernelError: the kernel has ended.
        """
        assert self.kc is not None
        session = self.kc.session
        if cell.get("id") in self.ids:  # else nbformat has made it up
            session.metadata = {"cellId": cell.id}
        try:
            await self.async_execute_cell(cell, index, execution_count=number)
        finally:
            session.metadata = {}

    def note_environment(self, cell: Any, execute_reply: Any, **_: object) -> None:
        """Keep where a cell ran; without meters, which differ from run to run."""
        cell.metadata.pop(marking.KEY, None)
        found = dict(execute_reply["metadata"].get(marking.KEY, {}))
        if not self.with_meters:
            for name in ("cpu_seconds", "peak_memory_bytes"):
                found.pop(name, None)
        if found:
            cell.metadata[marking.KEY] = found

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Show a build's cards while they are drawn, then keep outputs as ever."""
        if msg["msg_type"] in ("display_data", "update_display_data"):
            self.progress.on_display(msg["content"])
        return super().process_message(msg, cell, cell_index)


def execute(
    notebook: Any,
    path: Path,
    kernel: Kernel,
    progress: Progress,
    *,
    ids: Collection[str],
    only_stale: bool = False,
    with_meters: bool = False,
) -> Outcome:
    """Execute the notebook whose file is ``path``, with cells of these ``ids`` in it; its cells get
    their outputs.

    Raises:
        HostError: the kernel did not start.
    """
    specs = OwnKernelSpec()
    specs.command = kernel.command
    specs.notebook_kernel = notebook.metadata.get("kernelspec", {}).get("name") or frozen.PLAIN
    client = Client(
        notebook,
        km=AsyncKernelManager(kernel_name=frozen.PLAIN, kernel_spec_manager=specs),
        timeout=None,
        startup_timeout=STARTUP_TIMEOUT_S,
        record_timing=False,  # the same notebook, run again, is the same file
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.progress, client.ids = progress, ids
    client.with_meters = with_meters
    client.on_cell_executed = client.note_environment
    SpareProvisioner.keep(kernel.spare)
    return asyncio.run(_execute(client, kernel.environ, str(path.parent), only_stale=only_stale))


async def _execute(
    client: Client, environ: Mapping[str, str], cwd: str, *, only_stale: bool
) -> Outcome:
    started = time.monotonic()
    outcome = Outcome()
    try:
        async with client.async_setup_kernel(env=dict(environ), cwd=cwd, cleanup_kc=True):
            await _execute_cells(client, outcome, only_stale=only_stale)
            outcome.is_interrupted = client.is_stopped
            outcome.stages = await _stages(client.kc)
    except RuntimeError as error:
        # What is raised when the kernel ends before it answers. nbclient would stumble over its
        # absence once more, when Python ends.
        atexit.unregister(client._cleanup_kernel)
        outcome.is_interrupted = client.is_stopped
        if not client.is_stopped:
            raise HostError(f"the kernel did not start: {error}") from error
    outcome.seconds = time.monotonic() - started
    return outcome


async def _execute_cells(client: Client, outcome: Outcome, *, only_stale: bool) -> None:
    cells = client.nb.cells
    total = sum(_is_run(cell) for cell in cells)
    for index, cell in enumerate(cells):
        if client.is_stopped:
            return
        if not _is_run(cell):
            continue
        if only_stale and marking.KEY in cell.metadata:
            if not staleness.is_stale(cell.metadata[marking.KEY], await _stages(client.kc)):
                continue
        if is_for_live_sessions(cell.source):
            client.progress.pass_over(cell.source)
            continue
        client.progress.start(outcome.cells + 1, total, cell.source)
        try:
            await client.execute_known(cell, index, outcome.cells + 1)
        except (CellExecutionError, DeadKernelError) as error:
            outcome.failure, outcome.failed_cell = error, cell
            return
        finally:
            cell.outputs = _joined(cell.outputs)
            client.progress.end()
        outcome.cells += 1
    client.set_widgets_metadata()


def _joined(outputs: list[Any]) -> list[Any]:
    """Neighbouring pieces of one stream as one output: how it was cut is a matter of timing."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else {}
        is_stream = output["output_type"] == "stream" == last.get("output_type")
        if is_stream and output["name"] == last["name"]:
            last["text"] += output["text"]
        else:
            joined.append(output)
    return joined


def _is_run(cell: Any) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


async def _stages(client: Any) -> Mapping[str, object]:
    """What every stage of the notebook is now, asked of the kernel itself, while it lives."""
    if not client or not client.channels_running:
        return {}
    sent = client.execute("%layers --json", store_history=False)
    while await client.is_alive():
        try:
            message = await client.get_iopub_msg(timeout=_LOOKS_EVERY_S)
        except Empty:
            continue
        if message["parent_header"].get("msg_id") != sent:
            continue
        content = message["content"]
        if data := content.get("data", {}).get("application/json"):
            stages: Mapping[str, object] = data["stages"]
            return stages
        if content.get("execution_state") == "idle":
            break
    return {}


def _exit_code(ename: str) -> int:
    """1 for a cell's own error; what the class says when it was this host's or the store's."""
    kind = getattr(errors, ename, None)
    if isinstance(kind, type) and issubclass(kind, errors.ContainerKernelError):
        return kind.process_exit_code
    return 1


def _described(failure: CellExecutionError | DeadKernelError) -> dict[str, str]:
    if isinstance(failure, DeadKernelError):
        return {"ename": "DeadKernel", "evalue": str(failure), "traceback": str(failure)}
    shown = "\n".join(plain(line) for line in failure.traceback.splitlines())
    return {"ename": failure.ename, "evalue": failure.evalue, "traceback": _last_part(shown)}


def _last_part(traceback: str) -> str:
    """What follows the cell that nbclient puts above the traceback."""
    return traceback.rpartition("------------------\n\n")[2].strip("\n")


def _text(outcome: Outcome) -> str:
    lines = [
        f"{name}  {stage['digest'] or 'not built'}  {len(stage['layers'])} layers"
        for name, stage in outcome.stages.items()
        if isinstance(stage, dict)
    ]
    cells = f"{outcome.cells} cell{'' if outcome.cells == 1 else 's'} executed"
    return "\n".join([*lines, f"{cells} in {outcome.seconds:.1f} s"])
