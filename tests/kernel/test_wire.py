import json
import random

import pytest
from jupyter_client.session import Session as JupyterSession

from container_kernel.kernel.wire import (
    DELIMITER,
    ConnectionInfo,
    History,
    MalformedMessage,
    Message,
    Session,
    Signer,
    dump,
    parse_object,
)

KEY = b"0123456789abcdef"
PORTS = {f"{name}_port": 1000 + n for n, name in enumerate(("shell", "iopub", "stdin", "control"))}
INFO = {**PORTS, "hb_port": 9, "ip": "127.0.0.1", "transport": "tcp", "key": "k"}


@pytest.fixture
def signer():
    return Signer(KEY)


@pytest.fixture
def frames(signer):
    return [b"client", *Session(signer).frames("execute_request", {"code": "1"})]


def test_jupyter_reads_what_we_write(signer):
    theirs = JupyterSession(key=KEY)
    frames = Session(signer).frames("stream", {"text": "ü\n"}, dump({"msg_id": "a"}))
    message = theirs.deserialize(theirs.feed_identities(frames)[1])
    assert message["content"] == {"text": "ü\n"}
    assert message["parent_header"]["msg_id"] == "a"


def test_we_read_what_jupyter_writes(signer):
    theirs = JupyterSession(key=KEY)
    sent = theirs.msg("execute_request", {"code": "x"}, metadata={"cellId": "c"})
    frames = [b"id", *theirs.serialize(sent), b"buffer"]
    message = Message.parse(frames, signer)
    assert message.identities == (b"id",)
    assert message.content == {"code": "x"}
    assert message.metadata == {"cellId": "c"}
    assert message.buffers == (b"buffer",)


@pytest.mark.parametrize("place", range(2, 7))
def test_a_changed_byte_is_noticed(frames, signer, place):
    frames[place] = frames[place][:-1] + bytes([frames[place][-1] ^ 1])
    with pytest.raises(MalformedMessage):
        Message.parse(frames, signer)


@pytest.mark.parametrize("key", [b"other", b""])
def test_another_key_is_refused(key):
    frames = Session(Signer(key)).frames("x", {})
    with pytest.raises(MalformedMessage, match="signature"):
        Message.parse(frames, Signer(KEY))


@pytest.mark.parametrize(
    "header", [b"", b"[]", b"{}", b'{"msg_id": 1, "msg_type": "x"}', b"\xff", b"[" * 100_000]
)
def test_a_header_that_is_none_is_refused(signer, header):
    dicts = [header, b"{}", b"{}", b"{}"]
    with pytest.raises(MalformedMessage, match="header"):
        Message.parse([DELIMITER, signer.sign(dicts), *dicts], signer)


def test_random_frames_are_refused_and_nothing_else(frames, signer):
    chance = random.Random(20)
    for _ in range(10_000):
        broken = [bytes(frame) for frame in frames]
        for _ in range(chance.randint(1, 4)):
            index = chance.randrange(len(broken))
            match chance.randrange(4):
                case 0:
                    broken[index] = chance.randbytes(chance.randrange(40))
                case 1:
                    del broken[index]
                case 2:
                    broken.insert(index, chance.choice(frames))
                case _:
                    broken[index] = broken[index][: chance.randrange(len(broken[index]) + 1)]
            if not broken:
                break
        try:
            Message.parse(broken, signer)
        except MalformedMessage:
            continue
        # Identities and buffers are not signed; what is, is whole.
        start = broken.index(DELIMITER)
        assert broken[start : start + 6] == frames[1:7]


def test_a_replay_is_noticed_and_memory_is_bounded():
    history = History(100)
    assert history.add(b"a")
    assert not history.add(b"a")
    for number in range(1000):
        history.add(b"%d" % number)
    assert len(history._seen) <= 101
    assert history.add(b"")
    assert history.add(b"")


@pytest.mark.parametrize("place", [1, 2, 3])
@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", '{"a": 1}'.encode("utf-16")])
def test_dicts_that_nobody_could_read_are_noticed(signer, frames, place, data):
    dicts = [*frames[3:7]]
    Message.parse([DELIMITER, signer.sign(dicts), *dicts], signer).check()
    dicts[place] = data
    message = Message.parse([DELIMITER, signer.sign(dicts), *dicts], signer)
    with pytest.raises(MalformedMessage, match="not a JSON object"):
        message.check()


def test_parse_object_takes_objects_only():
    assert parse_object(b'{"a": 1}') == {"a": 1}
    assert [parse_object(text) for text in (b"[]", b"1", b"", b"{", b"\xff", b"[" * 10**5)] == [
        {}
    ] * 6


def test_dump_writes_json_whatever_it_is_given():
    assert json.loads(dump({"a": float("nan"), "b": [float("inf")]})) == {"a": None, "b": [None]}
    assert json.loads(dump("\ud800")) == "\ud800"


def test_connection_file_round_trip():
    info = ConnectionInfo.from_json(json.dumps(INFO))
    assert ConnectionInfo.from_json(info.to_json()) == info
    assert info.address("shell") == "tcp://127.0.0.1:1000"


def test_ipc_ports_are_suffixes():
    info = ConnectionInfo.from_json(json.dumps({**INFO, "transport": "ipc", "ip": "/run/k"}))
    assert info.address("iopub") == "ipc:///run/k-1001"


@pytest.mark.parametrize(
    "change",
    [
        {"transport": "pgm"},
        {"signature_scheme": "none"},
        {"shell_port": "x"},
        {"hb_port": None},
        {"curve_publickey": "x"},
    ],
)
def test_a_connection_file_we_cannot_serve_is_refused(change):
    with pytest.raises(ValueError, match="not"):
        ConnectionInfo.from_json(json.dumps({**INFO, **change}))
