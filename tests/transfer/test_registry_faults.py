"""Registries that break, lie and lead astray: threat rows F 88-98, on a scripted server."""

from __future__ import annotations

import base64
import email.utils
import json
import os
import ssl
import threading
import time

import pytest

from container_kernel.build.cancel import Cancel
from container_kernel.errors import ContainerKernelError, ImageError, Interrupted, RegistryError
from container_kernel.oci.reference import Reference
from container_kernel.transfer import registry_http
from container_kernel.transfer.credentials import Wallet
from container_kernel.transfer.load import load
from container_kernel.transfer.pull import pull
from container_kernel.transfer.push import push
from container_kernel.transfer.registry_http import Access, Patience
from tests.transfer import servers
from tests.transfer.layouts import CONFIG, INDEX, LAYER, MANIFEST, Layout, digest, layer_tar, text
from tests.transfer.scripted import Script
from tests.transfer.test_load import is_empty

pytestmark = pytest.mark.privileged

PATIENCE = Patience(tries=3, first_pause_s=0.01, longest_pause_s=0.05, silence_s=0.5)
TAR = layer_tar({"a": os.urandom(200_000)})
NAME = digest(TAR)
DAY = 86400


@pytest.fixture
def access(tmp_path):
    return Access(patience=PATIENCE, wallet=logged_in(tmp_path / "home"))


def logged_in(home, host: str | None = None) -> Wallet:
    """A wallet with a password for ``host``, or for whoever asks on loopback."""
    home.mkdir(exist_ok=True)
    if host:
        auth = base64.b64encode(b"alice:correct horse").decode()
        (home / "auth.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
        (home / "auth.json").chmod(0o600)
    return Wallet({"REGISTRY_AUTH_FILE": str(home / "auth.json")}, home)


@pytest.fixture
def script():
    return Script(Layout(TAR))


def ref(host: str, tag: str = "1") -> Reference:
    return Reference.parse(f"{host}/a/b:{tag}")


def refused(script: Script, store, access, match: str, kind=RegistryError) -> None:
    """A pull fails, saying ``match``, and leaves no image behind."""
    with script.running() as host, pytest.raises(kind, match=match):
        pull(ref(host), store, access)
    assert is_empty(store)


# ---------------------------------------------------------------- 88-90: blobs that break


@pytest.mark.parametrize("count", [0, 1, len(TAR) // 2, len(TAR) - 1])
def test_a_broken_blob_goes_on_where_it_broke(store, script, access, count):
    script.when("GET", f"blobs/{NAME}", lambda h: h.cut(TAR, count), times=1)
    with script.running() as host:
        pull(ref(host), store, access)
    ranges = [headers.get("Range") for _, path, headers in script.asked if NAME in path]
    assert ranges == [None, f"bytes={count}-" if count else None]


def test_a_blob_that_always_breaks_is_given_up(store, script, access):
    script.when("GET", f"blobs/{NAME}", lambda h: h.cut(TAR, 0))
    refused(script, store, access, "cannot be reached")
    assert script.count("GET", NAME) == PATIENCE.tries


def test_a_connection_that_is_reset_is_made_again(store, script, access):
    def reset(handler) -> None:
        handler.connection.close()

    script.when("GET", f"blobs/{NAME}", reset, times=1)
    with script.running() as host:
        pull(ref(host), store, access)


def test_silence_is_not_waited_for_for_ever(store, script, access):
    def stall(handler) -> None:
        handler.say(200, TAR[:1000], length=len(TAR))
        handler.wfile.flush()
        time.sleep(1.5)

    script.when("GET", f"blobs/{NAME}", stall, times=1)
    with script.running() as host:
        pull(ref(host), store, access)
    assert script.count("GET", NAME) == 2


def test_a_range_may_be_answered_in_full(store, script, access):
    script.when("GET", f"blobs/{NAME}", lambda h: h.cut(TAR, 5000), times=1)
    script.when("GET", f"blobs/{NAME}", lambda h: h.say(200, TAR), times=1)
    with script.running() as host:
        pull(ref(host), store, access)


@pytest.mark.parametrize("span", ["bytes 0-99/200", "bytes 4999-9/9", "nonsense", ""])
def test_a_wrong_content_range_is_not_believed(store, script, access, span):
    script.when("GET", f"blobs/{NAME}", lambda h: h.cut(TAR, 5000), times=1)
    wrong = {"Content-Range": span}
    script.when("GET", f"blobs/{NAME}", lambda h: h.say(206, TAR[4999:], **wrong), times=1)
    with script.running() as host:
        pull(ref(host), store, access)
    assert script.count("GET", NAME) == 3


def shifted(handler) -> bool | None:
    if "Range" not in handler.headers:
        return False
    span = f"bytes 5000-{len(TAR) - 1}/{len(TAR)}"
    handler.say(206, TAR[4999:-1], **{"Content-Range": span})
    return None


def test_a_shifted_rest_is_noticed_and_all_is_fetched_again(store, script, access):
    script.when("GET", f"blobs/{NAME}", lambda h: h.cut(TAR, 5000), times=1)
    script.when("GET", f"blobs/{NAME}", shifted)
    with script.running() as host:
        pull(ref(host), store, access)


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_wrong_bytes_are_refused(store, access, which):
    layout = Layout(TAR)
    name = {"layer": NAME, "config": layout.manifest["config"]["digest"]}.get(which)
    script = Script(layout)
    if name:
        data = layout.blobs[name]
        script.blobs[name] = data[:-1] + bytes([data[-1] ^ 1])
        refused(script, store, access, "other bytes|hashes to", ImageError)
        return
    script.tags["1"] = layout.blobs[layout.descriptor["digest"]] + b" ", MANIFEST
    wanted = layout.descriptor["digest"]
    script.blobs[wanted] = script.tags["1"][0]
    with script.running() as host, pytest.raises(ImageError, match="hashes to"):
        pull(Reference.parse(f"{host}/a/b@{wanted}"), store, access)


@pytest.mark.parametrize("by", [1, -1])
def test_a_blob_of_another_size_is_refused(store, access, by):
    layout = Layout(TAR)
    layout.layers[0]["size"] += by
    refused(Script(layout.finish()), store, access, "bytes|reached", ContainerKernelError)


# ---------------------------------------------------------------- 91: passing trouble


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_waited_for(store, script, access, status):
    for part in ("manifests/1", f"blobs/{NAME}"):
        script.when("GET", part, lambda h: h.say(status), times=2)
    with script.running() as host:
        pull(ref(host), store, access)


@pytest.mark.parametrize(
    "after", ["1", "1000000000", "-5", "soon", "99999999999999999999", "²", "Wed, 32 Foo"]
)
def test_nobody_waits_longer_than_is_stated(after):
    patience = Patience(longest_pause_s=7.0)
    assert 0 < patience.pause_s(0, after) <= 7.0


def test_a_date_to_wait_for_is_read():
    soon = email.utils.formatdate(time.time() + 20, usegmt=True)
    assert 10 < Patience().pause_s(0, soon) < 21


def test_trouble_that_stays_is_reported(store, script, access):
    script.when("GET", "manifests/1", lambda h: h.say(503))
    refused(script, store, access, "answered 503")
    assert script.count("GET", "manifests/1") == PATIENCE.tries


def test_waiting_can_be_interrupted(store, script):
    cancel = Cancel()
    script.when("GET", "manifests/1", lambda h: (h.say(503), cancel.set()))
    access = Access(patience=Patience(first_pause_s=60, longest_pause_s=60), pause=cancel.pause)
    with script.running() as host, pytest.raises(Interrupted):
        pull(ref(host), store, access)


@pytest.mark.parametrize("part", ["manifests/1", f"blobs/{NAME}"])
def test_a_registry_that_says_nothing_is_not_waited_for_once_interrupted(store, script, part):
    cancel, is_over = Cancel(), threading.Event()

    def stall(handler) -> None:
        if "blobs" in part:
            handler.say(200, TAR[:1000], length=len(TAR))
            handler.wfile.flush()
        threading.Timer(0.2, cancel.set).start()
        is_over.wait(20)

    script.when("GET", part, stall)
    access = Access(pause=cancel.pause, when_stopped=cancel.when_set)
    start = time.monotonic()
    with script.running() as host:
        with pytest.raises(Interrupted):
            pull(ref(host), store, access)
        took = time.monotonic() - start
        is_over.set()
    assert took < 10  # a silence may last 30 s


# ---------------------------------------------------------------- 92: challenges and tokens


def challenged(script: Script, header: str) -> None:
    script.when("GET", "/v2/", lambda h: h.say(401, **{"WWW-Authenticate": header}))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Negotiate abc", "by 'Negotiate'"),
        ("Bearer", "names no place"),
        ('Bearer realm="', "names no place"),
        ("Basic realm=x", "a name and a password"),
        ('Bearer realm="file:///etc/passwd"', "leads to 'file:"),
        ('Bearer realm="http://192.0.2.1/token"', "refused"),
        ('Bearer realm="https://u:p@localhost/token"', "refused"),
        ("Bearer " + "a" * 20_000, "too long|names no place"),
    ],
)
def test_a_bad_challenge_is_refused(store, script, access, header, message):
    challenged(script, header)
    refused(script, store, access, message)


def test_a_challenge_is_answered_once(store, script, access):
    with script.running() as host:
        script.when("GET", "/token", lambda h: h.say(200, b'{"token": "t"}'))
        challenged(script, f'Bearer realm="http://{host}/token",service="s"')
        with pytest.raises(RegistryError, match="answered 401"):
            pull(ref(host), store, access)
    assert script.count("GET", "/token") == 1


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (b'{"token": "' + b"a" * (5 << 20) + b'"}', "longer than"),
        (b'{"token": "' + b"a" * 70_000 + b'"}', "is none"),
        (b'{"token": "a\\nX-Evil: 1"}', "is none"),
        (b'{"token": 7}', "is none"),
        (b"[" * 100_000, "is none"),
        (b"", "is none"),
    ],
)
def test_a_bad_token_is_refused(store, script, access, token, message):
    with script.running() as host:
        script.when("GET", "/token", lambda h: h.say(200, token))
        challenged(script, f'Bearer realm="http://{host}/token"')
        with pytest.raises(RegistryError, match=message):
            pull(ref(host), store, access)


def test_a_token_that_expires_meanwhile_is_renewed(store, script, access):
    valid = ["t1"]

    def guard(handler) -> bool | None:
        if handler.headers.get("Authorization") == f"Bearer {valid[-1]}":
            return False
        handler.say(401, **{"WWW-Authenticate": f'Bearer realm="http://{host}/token"'})
        return None

    def expire(handler) -> bool:
        valid.append("t2")
        return False

    with script.running() as host:
        script.when("GET", "/token", lambda h: h.say(200, text({"token": valid[-1]})))
        script.when("GET", f"blobs/{NAME}", expire, times=1)
        script.when("GET", "/v2/", guard)
        pull(ref(host), store, access)
    assert script.count("GET", "/token") == 2


# ---------------------------------------------------------------- 93: redirects


def redirect(target: str):
    return lambda handler: handler.say(307, Location=target)


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://localhost/x",
        "gopher://x",
        "http://192.0.2.7/x",
        "//",
        "http://[",
    ],
)
def test_a_redirect_may_not_lead_anywhere(store, script, access, target):
    script.when("GET", f"blobs/{NAME}", redirect(target))
    refused(script, store, access, "refused|redirects")


def test_redirects_are_counted(store, script, access):
    script.when("GET", f"blobs/{NAME}", lambda h: h.say(307, Location=h.path + "x"))
    refused(script, store, access, "redirects more than 5 times")


def test_a_loop_of_redirects_ends(store, script, access):
    script.when("GET", f"blobs/{NAME}", lambda h: h.say(302, Location=h.path))
    refused(script, store, access, "redirects more than 5 times")


def test_credentials_stay_with_the_registry(store, script, tmp_path):
    """As registries do that keep blobs in somebody else's storage."""
    storage = Script(Layout(TAR))

    def guard(handler) -> bool | None:
        if "Authorization" in handler.headers:
            return False
        handler.say(401, **{"WWW-Authenticate": "Basic realm=x"})
        return None

    with script.running() as host, storage.running() as elsewhere:
        script.when("GET", "/v2/", guard)
        script.when(
            "GET", f"blobs/{NAME}", lambda h: h.say(307, Location=f"http://{elsewhere}{h.path}")
        )
        pull(ref(host), store, Access(patience=PATIENCE, wallet=logged_in(tmp_path, host)))
    assert storage.count("GET", NAME) == 1
    assert all("Authorization" not in headers for _, _, headers in storage.asked)
    assert any("Authorization" in headers for _, _, headers in script.asked)


def test_a_stranger_may_not_send_us_into_our_own_net(monkeypatch):
    client = object.__new__(registry_http.Client)
    client.registry = client._host = "registry.example"
    client._may_be_plain, client._origin = False, "https://registry.example"
    for url in ("https://127.0.0.1/", "https://169.254.169.254/latest", "https://[::1]/"):
        with pytest.raises(RegistryError, match="this host's net"):
            client._check_url(url, "a redirect")
    with pytest.raises(RegistryError, match="refused"):
        client._check_url("http://registry.example/", "a redirect")


# ---------------------------------------------------------------- 94: TLS


def tls(certificate, version: ssl.TLSVersion | None = None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if version:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return lambda plain: context.wrap_socket(plain, server_side=True)


def trusting(tmp_path, host: str, certificate) -> Access:
    place = tmp_path / "certs" / host
    place.mkdir(parents=True)
    (place / "ca.crt").write_bytes(certificate.read_bytes())
    return Access(patience=PATIENCE, certificates=(tmp_path / "certs",))


@pytest.mark.parametrize(
    ("options", "is_trusted", "message"),
    [
        ({}, False, "self-signed certificate"),
        ({"name": "elsewhere.example"}, True, "not valid for"),
        ({"is_expired": True}, True, "expired"),
    ],
)
def test_a_certificate_must_be_right(store, script, tmp_path, options, is_trusted, message):
    certificate = servers.make_certificate(tmp_path, **options)
    with script.running(tls(certificate)) as host:
        access = trusting(tmp_path, host, certificate) if is_trusted else Access(patience=PATIENCE)
        with pytest.raises(RegistryError, match=f"not trusted.*{message}"):
            pull(ref(host), store, access)
    assert not script.asked


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused_and_not_replaced_by_none(store, script, tmp_path):
    certificate = servers.make_certificate(tmp_path)
    with (
        script.running(tls(certificate, ssl.TLSVersion.TLSv1)) as host,
        pytest.raises(RegistryError, match=r"not trusted|reset"),
    ):
        pull(ref(host), store, trusting(tmp_path, host, certificate))
    assert not script.asked


def test_plain_http_is_for_this_host_or_where_allowed(monkeypatch):
    monkeypatch.setattr(registry_http, "speaks_tls", lambda *_: False)
    made = [
        registry_http.Client(host, "a", Access(plain_http=("allowed.example",)))._origin
        for host in ("localhost:1", "127.0.0.9:1", "allowed.example", "other.example")
    ]
    assert [origin.partition(":")[0] for origin in made] == ["http", "http", "http", "https"]


# ---------------------------------------------------------------- 95, 96: lies, other places


@pytest.mark.parametrize("header", [digest(b"x"), "sha256:x", ""])
def test_the_body_decides_what_a_manifest_is_called(store, script, access, header):
    data, media_type = script.tags["1"]
    said = {"Content-Type": media_type, "Docker-Content-Digest": header}
    script.when("GET", "manifests/1", lambda h: h.say(200, data, **said))
    with script.running() as host:
        assert str(pull(ref(host), store, access).digest) == digest(data)


def test_a_content_type_that_contradicts_the_manifest_is_refused(store, script, access):
    script.tags["1"] = script.tags["1"][0], INDEX
    refused(script, store, access, "says it is|two things", ImageError)


@pytest.mark.parametrize("media_type", ["application/json", "text/plain; charset=utf-8"])
def test_a_content_type_that_says_nothing_does_no_harm(store, script, access, media_type):
    script.tags["1"] = script.tags["1"][0], media_type
    with script.running() as host:
        pull(ref(host), store, access)


def test_an_answer_that_is_no_manifest_is_refused(store, script, access):
    script.tags["1"] = b"<html>", "text/html"
    refused(script, store, access, "is no image", ImageError)


def test_a_manifest_is_at_most_4_mib(store, script, access):
    script.tags["1"] = b" " * (5 << 20), MANIFEST
    refused(script, store, access, "longer than")


def test_urls_of_a_descriptor_are_not_fetched(store, access):
    elsewhere = Script(Layout(TAR))
    with elsewhere.running() as other_host:
        layout = Layout(TAR)
        layout.layers[0]["urls"] = [f"http://{other_host}/blobs/{NAME}"]
        script = Script(layout.finish())
        del script.blobs[NAME]
        refused(script, store, access, "answered 404")
    assert not elsewhere.asked


# ---------------------------------------------------------------- 97, 98: push


@pytest.fixture
def image(store, tmp_path):
    (tmp_path / "layout").mkdir()
    ((_, image),) = load(Layout(TAR).write(tmp_path / "layout"), store)
    return image


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr("container_kernel.transfer.upload.PIECE_BYTES", 50_000)


def arrived(script: Script, store, image) -> bool:
    manifest = store.manifest(image)
    names = [str(one.digest) for one in (manifest.config, *manifest.layers)]
    return all(name in script.blobs for name in names) and "1" in script.tags


def pushed(script: Script, store, image, access) -> bool:
    with script.running() as host:
        push(image, ref(host), store, access, compression="none")
    return arrived(script, store, image)


def vanish(handler) -> None:
    handler.script.uploads.clear()
    handler.say(404)


def half(handler) -> None:
    """Take half of a piece, then break."""
    name = handler.path.partition("?")[0].rpartition("/")[2]
    handler.script.uploads[name] += handler.body[:20_000]
    handler.close_connection = True


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        ("PATCH", vanish),
        ("PATCH", half),
        ("PATCH", lambda h: h.say(416)),
        ("PATCH", lambda h: h.say(500)),
        ("PUT", vanish),
        ("PUT", lambda h: h.say(503)),
        ("PUT", lambda h: h.connection.close()),
        ("POST", lambda h: h.say(503)),
    ],
)
@pytest.mark.usefixtures("small_pieces")
def test_an_upload_that_breaks_goes_on(store, image, access, method, rule):
    script = Script()
    script.when(method, "/blobs/uploads/", rule, times=1)
    assert pushed(script, store, image, access)


@pytest.mark.usefixtures("small_pieces")
def test_what_arrived_is_not_sent_again(store, image, access):
    script = Script()
    script.when("PATCH", "/blobs/uploads/", half, times=1)
    assert pushed(script, store, image, access)
    spans = [h.get("Content-Range") for m, _, h in script.asked if m == "PATCH"]
    assert spans[:3] == ["0-49999", "20000-69999", "70000-119999"]


@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
@pytest.mark.usefixtures("small_pieces")
def test_an_upload_that_always_breaks_is_given_up_without_a_manifest(store, image, access, method):
    script = Script()
    script.when(method, "/blobs/uploads/", lambda h: h.say(500))
    with pytest.raises(RegistryError):
        pushed(script, store, image, access)
    assert not script.tags
    assert len(script.asked) < 60


def test_an_upload_is_not_believed_that_made_something_else(store, image, access):
    script = Script()
    wrong = {"Docker-Content-Digest": digest(b"x")}
    script.when("PUT", "/blobs/uploads/", lambda h: h.say(201, **wrong))
    with pytest.raises(RegistryError, match="answered 201"):
        pushed(script, store, image, access)
    assert not script.tags


def test_a_manifest_that_was_not_taken_is_no_success(store, image, access):
    script = Script()
    script.when("PUT", "/manifests/", lambda h: h.say(202))
    with pytest.raises(RegistryError, match="answered 202"):
        pushed(script, store, image, access)


def test_the_manifest_goes_last(store, image, access):
    script = Script()
    assert pushed(script, store, image, access)
    puts = [path for method, path, _ in script.asked if method == "PUT"]
    assert ["manifests" in path for path in puts] == [False, False, True]


def test_uploads_are_not_redirected(store, image, access):
    script = Script()
    script.when("POST", "/blobs/uploads/", redirect("http://127.0.0.1:1/x"))
    with pytest.raises(RegistryError, match="elsewhere"):
        pushed(script, store, image, access)


def test_a_place_to_upload_to_elsewhere_gets_no_credentials(store, image, tmp_path):
    script, elsewhere = Script(), Script()
    guard = {"WWW-Authenticate": "Basic realm=x"}

    def ask(handler) -> bool | None:
        return False if "Authorization" in handler.headers else handler.say(401, **guard)

    with script.running() as host, elsewhere.running() as there:
        script.when("*", "/v2/", ask)
        place = f"http://{there}/v2/a/b/blobs/uploads/9"
        script.when("POST", "/uploads/", lambda h: h.say(202, Location=place))
        access = Access(patience=PATIENCE, wallet=logged_in(tmp_path / "w", host))
        with pytest.raises(RegistryError):
            push(image, ref(host), store, access, compression="none")
    assert elsewhere.asked
    assert all("Authorization" not in headers for _, _, headers in elsewhere.asked)


def test_our_own_damaged_blob_does_not_leave(store, image, access):
    (layer,) = store.manifest(image).layers
    path = store.content.path(layer.digest)
    path.write_bytes(b"x" * layer.size)
    script = Script()
    with pytest.raises(ContainerKernelError, match="damaged"):
        pushed(script, store, image, access)
    assert not script.tags


def test_config_and_layer_types_are_checked_before_anything_is_fetched(store, access):
    layout = Layout(TAR)
    layout.layers[0]["mediaType"] = LAYER + "+encrypted"
    script = Script(layout.finish())
    refused(script, store, access, "encrypted", ImageError)
    assert not script.count("GET", "blobs")
    assert layout.manifest["config"]["mediaType"] == CONFIG
