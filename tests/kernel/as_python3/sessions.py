"""How requests act on each other: counts, aborts, interrupts, input, comms, subshells."""

from __future__ import annotations

import time

from .client import Client, is_of
from .table import shared


def _status(told):
    return told["replies"][0]["content"]["status"]


@shared
def counts_go_on_for_what_is_stored(client):
    found = []
    for options in (
        {},
        {"store_history": False},
        {"silent": True},
        {"silent": True, "store_history": True},
        {},
    ):
        found.append(client.run("print('x'); 5", **options))
    return found


@shared
def user_expressions(client):
    wanted = {"sum": "1 + 1", "bad": "1 / 0", "html": "HTML('x')", "none": "None"}
    client.run("from IPython.display import HTML")
    return client.run("x = 1", user_expressions=wanted), client.run(
        "1 / 0", user_expressions=wanted
    )


@shared
def an_error_aborts_what_was_sent_with_it(client):
    asked = [client.execute(code) for code in ("import time; time.sleep(0.2); 1 / 0", "2", "3")]
    told = [client.told(msg_id) for msg_id in asked]
    return told, client.run("4")


@shared
def an_error_aborts_cells_only(client):
    asked = [client.execute("import time; time.sleep(0.2); 1 / 0"),
             client.send("is_complete_request", {"code": "1"}), client.execute("2")]  # fmt: skip
    return [_status(client.told(msg_id)) for msg_id in asked]


@shared
def an_error_that_stops_nothing(client):
    asked = [client.execute("import time; time.sleep(0.2); 1 / 0", stop_on_error=False),
             client.execute("2")]  # fmt: skip
    return [client.told(msg_id) for msg_id in asked]


@shared
def a_silent_error_stops_nothing(client):
    asked = [client.execute("import time; time.sleep(0.2); 1 / 0", silent=True),
             client.execute("2")]  # fmt: skip
    return [client.told(msg_id) for msg_id in asked]


def _interrupted(client, code, by_signal=False):
    msg_id = client.execute(code)
    client.text(msg_id, "on")
    time.sleep(0.1)
    if by_signal:
        client.manager.interrupt_kernel()
        return client.told(msg_id)
    control = client.ask("interrupt_request", {}, channel="control")
    return client.told(msg_id), control


LOOPS = {
    "a sleep": "import time; print('on', flush=True); time.sleep(60)",
    "a tight loop": "print('on', flush=True)\nwhile True: pass",
    "a child": "import subprocess; print('on', flush=True); subprocess.run(['sleep', '60'])",
    "await": (  # ipykernel sees a signal when its loop goes round
        "import asyncio; print('on', flush=True)\nfor _ in range(300): await asyncio.sleep(0.2)"
    ),
    "a cell that cleans up": (
        "import time\ntry:\n    print('on', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('caught'); 5"
    ),
}


@shared
def an_interrupt_message_ends_a_sleep(client):
    return _interrupted(client, LOOPS["a sleep"])


@shared
def an_interrupt_message_ends_a_tight_loop(client):
    return _interrupted(client, LOOPS["a tight loop"])


@shared
def an_interrupt_ends_a_child(client):
    """The traceback goes through Python's own files, which differ by their version."""
    told, _ = _interrupted(client, LOOPS["a child"])
    told["replies"][0]["content"].pop("traceback")
    return told["replies"]


@shared
def an_interrupt_ends_an_await(client):
    told, _ = _interrupted(client, LOOPS["await"])
    told["replies"][0]["content"].pop("traceback")
    return told["replies"]


@shared
def an_interrupt_may_be_caught(client):
    return _interrupted(client, LOOPS["a cell that cleans up"])


@shared
def the_managers_interrupt_ends_a_sleep(client):
    """By signal here and by message there: whatever the kernelspec says."""
    return _interrupted(client, LOOPS["a sleep"], by_signal=True)


@shared
def an_interrupt_of_nothing_does_nothing(client):
    control = client.ask("interrupt_request", {}, channel="control")
    client.manager.interrupt_kernel()
    time.sleep(0.2)
    return control, _status(client.run("1"))


@shared
def an_interrupt_aborts_what_waits(client):
    first, second = client.execute(LOOPS["a sleep"]), client.execute("2")
    client.text(first, "on")
    client.ask("interrupt_request", {}, channel="control")
    return [_status(client.told(one)) for one in (first, second)]


def _asked(client, code, value, **options):
    msg_id = client.execute(code, allow_stdin=True, **options)
    request = client.wait(lambda m: m["channel"] == "stdin" and is_of(m, msg_id))
    client.send("input_reply", {"value": value}, channel="stdin")
    client.idle(msg_id)
    parts = [request["msg_type"], request["content"], sorted(request["parent_header"])]
    return client.told(msg_id), parts


@shared
def input_is_asked_for(client):
    return _asked(client, "print(input('name? '))", "Ann")


@shared
def a_password_is_asked_for(client):
    return _asked(client, "import getpass; print(len(getpass.getpass('pw? ')))", "secret")


@shared
def input_may_end(client):
    return _asked(client, "try:\n    input()\nexcept EOFError: print('end')", "\x04")


@shared
def input_comes_behind_what_was_printed(client):
    return _asked(client, "print('before'); input(); print('behind')", "x")


@shared
def input_without_anybody_is_an_error(client):
    told = client.run("input('name? ')")
    told["replies"][0]["content"].pop("traceback")
    password = client.run("import getpass; getpass.getpass()")["replies"][0]["content"]
    return told["replies"], password["ename"], password["evalue"]


@shared
def input_is_interrupted(client):
    msg_id = client.execute("input()", allow_stdin=True)
    client.wait(lambda m: m["channel"] == "stdin" and is_of(m, msg_id))
    client.ask("interrupt_request", {}, channel="control")
    # Its text depends on where in its wait the interrupt finds ipykernel.
    return client.told(msg_id)["replies"][-1]["content"]["ename"]


@shared
def pdb_asks_and_goes_on(client):
    msg_id = client.execute(
        "import pdb; x = 41\npdb.set_trace()\nx += 1; print(x)", allow_stdin=True
    )
    request = client.wait(lambda m: m["channel"] == "stdin" and is_of(m, msg_id))
    client.send("input_reply", {"value": "c"}, channel="stdin")
    client.idle(msg_id)
    return request["content"], client.printed(msg_id)[-3:]


@shared
def two_clients_see_each_other_and_answer_for_themselves(client):
    other = Client(client.manager, client.folder)
    msg_id = client.execute("print(input('?'))", allow_stdin=True)
    client.wait(lambda m: m["channel"] == "stdin" and is_of(m, msg_id))
    other.wait(lambda m: is_of(m, msg_id) and m["msg_type"] == "execute_input")
    client.send("input_reply", {"value": "mine"}, channel="stdin")
    other.idle(msg_id)
    seen = [m["channel"] for m in other.of(msg_id)]
    own = other.run("1")
    other.close()
    return client.told(msg_id), sorted(set(seen)), own


# Comms


@shared
def a_comm_of_the_front_end(client):
    client.run(
        "def opened(comm, message):\n"
        "    comm.on_msg(lambda m: comm.send({'got': m['content']['data'], 'bytes': "
        "bytes(m['buffers'][0]).decode('latin-1') if m['buffers'] else ''}, "
        "buffers=m['buffers']))\n"
        "    comm.on_close(lambda m: print('closed', m['content']['data']))\n"
        "    comm.send({'hello': message['content']['data']})\n"
        "get_ipython().kernel.comm_manager.register_target('mine', opened)"
    )
    found = []
    for kind, data, buffers in (
        ("comm_open", {"k": 1}, None),
        ("comm_msg", {"k": 2}, [b"\0\1\xff", b"more"]),
        ("comm_close", {"k": 3}, None),
    ):
        content = {"comm_id": "c-1", "data": data, "target_name": "mine"}
        msg_id = client.send(kind, content, buffers=buffers)
        client.idle(msg_id)
        found.append(client.told(msg_id, has_reply=False))
    return found


@shared
def a_comm_to_nobody_is_closed(client):
    content = {"comm_id": "c-2", "data": {}, "target_name": "nobody"}
    msg_id = client.send("comm_open", content)
    found = [client.told(msg_id, has_reply=False)]
    msg_id = client.send("comm_msg", {"comm_id": "c-9", "data": {}})
    found.append(client.told(msg_id, has_reply=False))
    return found


@shared
def a_comm_of_the_kernel(client):
    told = client.run(
        "from comm import create_comm\n"
        "c = create_comm(target_name='theirs', comm_id='k-1', data={'a': 1}, metadata={'m': 1}, "
        "buffers=[b'\\x00\\xff'])\n"
        "c.on_msg(lambda m: print('got', m['content']['data']))\nc.send({'b': 2}, buffers=[b'x'])"
    )
    info = client.ask("comm_info_request", {"target_name": "theirs"})
    msg_id = client.send("comm_msg", {"comm_id": "k-1", "data": {"d": 1}})
    client.idle(msg_id)
    return told, info, client.told(msg_id, has_reply=False), client.run("c.close({'bye': 1})")


# Subshells


def _subshell(client):
    created = client.ask("create_subshell_request", {}, channel="control")
    msg_id = next(m for m in reversed(client.inbox) if m["msg_type"] == "create_subshell_reply")
    return created, msg_id["content"]["subshell_id"]


@shared
def a_subshell_lives_and_ends(client):
    created, name = _subshell(client)
    listed = client.ask("list_subshell_request", {}, channel="control")
    deleted = client.ask("delete_subshell_request", {"subshell_id": name}, channel="control")
    again = client.ask("delete_subshell_request", {"subshell_id": name}, channel="control")
    return (
        created,
        listed,
        deleted,
        again,
        client.ask("list_subshell_request", {}, channel="control"),
    )


@shared
def a_subshell_runs_beside_the_main_shell(client):
    _, name = _subshell(client)
    client.run("import threading; main = threading.get_ident(); go = threading.Event()")
    first = client.execute("print('on', flush=True); go.wait(10); print('main')")
    client.text(first, "on")  # IPython counts when it begins to run, a little after it says so
    code = "print('sub', threading.get_ident() != main); go.set()"
    second = client.execute(code, header={"subshell_id": name})
    told = [client.told(second), client.told(first)]
    client.ask("delete_subshell_request", {"subshell_id": name}, channel="control")
    return told


@shared
def a_subshell_answers_look_ups_while_the_main_shell_is_busy(client):
    _, name = _subshell(client)
    first = client.execute("go.clear(); go.wait(10)")
    client.wait(lambda m: is_of(m, first) and m["msg_type"] == "execute_input")
    found = []
    for kind, content in (
        ("complete_request", {"code": "thread", "cursor_pos": 6}),
        ("is_complete_request", {"code": "1"}),
        ("comm_info_request", {"target_name": "none"}),
    ):
        found.append(client.ask(kind, content, header={"subshell_id": name}))
    client.told(client.execute("go.set()", header={"subshell_id": name}))
    client.told(first)
    client.ask("delete_subshell_request", {"subshell_id": name}, channel="control")
    return found


@shared
def an_error_in_a_subshell_stops_that_one_only(client):
    _, name = _subshell(client)
    head = {"subshell_id": name}
    main = client.execute("import time; time.sleep(0.4); 1")
    asked = [client.execute("import time; time.sleep(0.1); 1 / 0", header=head),
             client.execute("2", header=head), main]  # fmt: skip
    found = [_status(client.told(one)) for one in asked]
    client.ask("delete_subshell_request", {"subshell_id": name}, channel="control")
    return found


@shared
def a_subshell_that_is_not_there(client):
    return client.run("1", header={"subshell_id": "nowhere"}), client.run("1")
