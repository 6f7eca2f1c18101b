"""Libraries that look for IPython, in the Python agent: figures and widgets."""

from __future__ import annotations

import base64
import sys

import pytest

ONLY_HERE = "only the Python that runs the tests has it"


@pytest.fixture
def plots(agent):
    if agent.python != sys.executable:
        pytest.skip(ONLY_HERE)
    agent.run("import matplotlib.pyplot as plt; plt.close('all')")
    return agent


@pytest.mark.parametrize("code", ["", "plt.show()", "%matplotlib inline", "plt.gcf().show()"])
def test_figures_are_shown_once(plots, code):
    first, *rest = [code] if code.startswith("%") else ["", code]
    result = plots.run("\n".join([first, "plt.plot([1, 2]);", *rest]))
    assert result.err == ""
    pictures = result.shown("image/png")
    assert len(pictures) == (2 if "gcf" in code else 1)  # figure.show() closes nothing
    assert base64.b64decode(pictures[0]).startswith(b"\x89PNG")
    assert plots.run("plt.get_fignums()").shown() == ["[]"]


def test_show_stands_where_it_was_called(plots):
    result = plots.run("plt.plot([1]); print('a'); plt.show(); print('b')")
    assert [kind for kind, _ in result.log] == ["stdout", "display_data", "stdout"]


def test_a_figure_is_a_result(plots):
    result = plots.run("fig, ax = plt.subplots(); plt.close(fig); fig")
    assert [kind for kind, _ in result.events] == ["execute_result"]
    assert result.shown("image/png")


def test_figures_of_a_failed_cell_are_shown(plots):
    result = plots.run("plt.plot([1]); 1 / 0")
    assert result.reply["ename"] == "ZeroDivisionError"
    assert len(result.shown("image/png")) == 1


def test_the_format_of_figures(plots):
    plots.run("%config InlineBackend.figure_format = 'retina'")
    result = plots.run("plt.figure(figsize=(2, 1)); plt.plot([1]);")
    picture = base64.b64decode(result.shown("image/png")[0])
    width = int.from_bytes(picture[16:20], "big")
    assert result.events[0][1]["content"]["metadata"]["image/png"]["width"] == width // 2
    plots.run("%config InlineBackend.figure_format = 'svg'")
    assert plots.run("plt.plot([1]);").shown("image/svg+xml")[0].startswith("<?xml")
    plots.run("%config InlineBackend.figure_format = 'png'")


@pytest.fixture
def widgets(agent):
    if agent.python != sys.executable:
        pytest.skip(ONLY_HERE)
    agent.run("import ipywidgets")
    return agent


def comm_messages(log):
    return [(kind, event) for kind, event in log if kind.startswith("comm_")]


def send(agent, kind, **content):
    buffers = [base64.b64encode(b).decode() for b in content.pop("buffers", ())]
    agent.log = []
    about = {"version": "1.0.0"}
    agent.tell("comm", id="comm", type=kind, content=content, buffers=buffers, metadata=about)
    agent._until("reply", "comm")
    agent._drain()
    return agent.log


def test_a_widget_is_shown_and_answers(widgets):
    result = widgets.run(
        "s = ipywidgets.IntSlider(value=3)\ns.observe(lambda c: print('now', c['new']), 'value')\ns"
    )
    opened = [e["content"] for kind, e in comm_messages(result.log) if kind == "comm_open"]
    assert {c["target_name"] for c in opened} == {"jupyter.widget"}
    view = result.shown("application/vnd.jupyter.widget-view+json")[0]
    model = view["model_id"]
    assert model in [c["comm_id"] for c in opened]
    comms = widgets.ask("comm_info", target_name="jupyter.widget")["comms"]
    assert model in comms
    log = send(widgets, "comm_msg", comm_id=model, data={"method": "update", "state": {"value": 7}})
    assert ("stdout", "now 7\n") in log
    assert widgets.run("s.value").shown() == ["7"]
    assert any(
        e["content"]["comm_id"] == model for _, e in comm_messages(widgets.run("s.value = 9").log)
    )


def test_an_output_widget_takes_what_is_printed_in_it(widgets):
    widgets.run("out = ipywidgets.Output(); out")
    cell = widgets.start("with out:\n    print('inside')\nprint('outside')")
    log = widgets.finish(cell).log
    states = [e["content"]["data"]["state"] for kind, e in log if kind == "comm_msg"]
    assert [state["msg_id"] for state in states if "msg_id" in state] == [cell, ""]
    assert [kind for kind, _ in log] == ["comm_msg", "stdout", "comm_msg", "stdout"]


def test_interact_puts_figures_into_its_output(widgets, plots):
    code = "def f(n):\n    plt.plot(range(n))\ninteraction = ipywidgets.interact(f, n=(1, 5))"
    log = widgets.run(code).log
    at = [n for n, (kind, e) in enumerate(log) if "image/png" in str(e)]
    marks = [n for n, (_, e) in enumerate(log) if "'msg_id'" in str(e)]
    assert len(at) == 1
    assert marks[0] < at[0] < marks[-1]


def test_the_page_may_open_widgets(widgets):
    log = send(widgets, "comm_open", comm_id="p", target_name="jupyter.widget.control", data={},
               target_module=None)  # fmt: skip
    log += send(widgets, "comm_msg", comm_id="p", data={"method": "request_states"})
    assert any(e["content"]["data"].get("method") == "update_states" for _, e in comm_messages(log))


def test_comms_carry_buffers_both_ways(widgets):
    widgets.run(
        "import comm\n"
        "def opened(one, message):\n"
        "    one.on_msg(lambda m: one.send({'n': 1}, buffers=[bytes(m['buffers'][0])[::-1]]))\n"
        "comm.get_comm_manager().register_target('echo', opened)"
    )
    send(widgets, "comm_open", comm_id="c", target_name="echo", data={})
    log = send(widgets, "comm_msg", comm_id="c", data={}, buffers=[b"abc\0"])
    ((kind, event),) = comm_messages(log)
    assert (kind, event["content"]) == ("comm_msg", {"comm_id": "c", "data": {"n": 1}})
    assert [base64.b64decode(b) for b in event["buffers"]] == [b"\0cba"]
    send(widgets, "comm_close", comm_id="c", data={})
    assert "c" not in widgets.ask("comm_info")["comms"]


def test_an_unknown_target_is_closed(agent):
    ((kind, event),) = comm_messages(
        send(agent, "comm_open", comm_id="u", target_name="?", data={})
    )
    assert (kind, event["content"]["comm_id"]) == ("comm_close", "u")
    assert comm_messages(send(agent, "comm_msg", comm_id="u", data={})) == []


def test_an_error_in_a_callback_is_told(widgets):
    widgets.run("def opened(one, message): one.on_msg(lambda m: 1 / 0)\n"
                "comm.get_comm_manager().register_target('bad', opened)")  # fmt: skip
    send(widgets, "comm_open", comm_id="b", target_name="bad", data={})
    log = send(widgets, "comm_msg", comm_id="b", data={})
    assert "ZeroDivisionError" in "".join(text for kind, text in log if kind == "stderr")
