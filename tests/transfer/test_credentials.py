"""Passwords: found where docker and podman keep them, and shown to nobody (threat row F 100)."""

from __future__ import annotations

import base64
import json
import os

import pytest

from container_kernel.errors import UsageError
from container_kernel.transfer.credentials import Credentials, Wallet

SECRET = "correct horse"
AUTH = base64.b64encode(f"alice:{SECRET}".encode()).decode()
HOST = "registry.example:5000"


def write(path, document, mode: int = 0o600):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(mode)
    return path


def auths(name: str = HOST, user: str = "alice") -> dict:
    pair = base64.b64encode(f"{user}:{SECRET}".encode()).decode()
    return {"auths": {name: {"auth": pair}}}


def find(wallet: Wallet, path: str = "a/b") -> tuple[Credentials | None, list[str]]:
    warnings: list[str] = []
    return wallet.find(HOST, path, warnings.append), warnings


@pytest.mark.parametrize(
    ("variable", "file"),
    [
        ("REGISTRY_AUTH_FILE", "given.json"),
        ("XDG_RUNTIME_DIR", "run/containers/auth.json"),
        ("XDG_CONFIG_HOME", "config/containers/auth.json"),
        ("DOCKER_CONFIG", "docker/config.json"),
        (None, ".config/containers/auth.json"),
        (None, ".docker/config.json"),
    ],
)
def test_every_place_is_looked_at(tmp_path, variable, file):
    write(tmp_path / file, auths())
    folder = tmp_path / (file if file == "given.json" else file.partition("/")[0])
    wallet = Wallet({variable: str(folder)} if variable else {}, tmp_path)
    assert find(wallet) == (Credentials("alice", SECRET), [])


def test_the_most_special_name_wins(tmp_path):
    documents = [auths(HOST, "all"), auths(f"{HOST}/a", "a"), auths(f"{HOST}/a/b", "ab")]
    merged = {"auths": {k: v for one in documents for k, v in one["auths"].items()}}
    write(tmp_path / ".docker/config.json", merged)
    wallet = Wallet({}, tmp_path)
    users = [wallet.find(HOST, path, print).user for path in ("a/b", "a/c", "x")]
    assert users == ["ab", "a", "all"]


def test_an_identity_token_is_no_password(tmp_path):
    write(tmp_path / ".docker/config.json", {"auths": {HOST: {"identitytoken": "t"}}})
    assert find(Wallet({}, tmp_path))[0] == Credentials("", "t")


def test_readable_passwords_are_warned_of(tmp_path):
    write(tmp_path / ".docker/config.json", auths(), mode=0o644)
    found, warnings = find(Wallet({}, tmp_path))
    assert found
    assert "chmod 600" in warnings[0]
    assert SECRET not in warnings[0]


@pytest.mark.parametrize("kind", ["folder", "fifo", "device"])
def test_what_is_no_file_is_passed_over(tmp_path, kind):
    path = tmp_path / ".docker/config.json"
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    found, _ = find(Wallet({}, tmp_path))
    assert found is None


@pytest.mark.privileged
def test_somebody_elses_file_is_passed_over(tmp_path):
    path = write(tmp_path / ".docker/config.json", auths(), mode=0o644)
    os.chown(path, 1234, 1234)
    found, warnings = find(Wallet({}, tmp_path))
    assert found is None
    assert "not a plain file of yours" in warnings[0]


@pytest.mark.parametrize(
    "document",
    ["", "[]", "{", "[" * 100_000, " " * (2 << 20) + "{}", {"auths": {HOST: {"auth": "???"}}}],
)
def test_a_broken_file_is_named(tmp_path, document):
    write(tmp_path / ".docker/config.json", document)
    with pytest.raises(UsageError, match=r"config\.json"):
        find(Wallet({}, tmp_path))


# ---------------------------------------------------------------- helpers


@pytest.fixture
def helper(tmp_path):
    """Make a credential helper of this script; a wallet that asks it."""

    def make(script: str, setting: str = "credsStore") -> Wallet:
        write(tmp_path / "bin/docker-credential-test", f"#!/bin/sh\n{script}\n", 0o755)
        value = "test" if setting == "credsStore" else {HOST: "test"}
        write(tmp_path / ".docker/config.json", {setting: value})
        return Wallet({"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}, tmp_path, helper_timeout_s=0.5)

    return make


@pytest.fixture(autouse=True)
def _on_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")


@pytest.mark.parametrize("setting", ["credsStore", "credHelpers"])
def test_a_helper_is_asked(helper, setting):
    answer = json.dumps({"ServerURL": HOST, "Username": "alice", "Secret": SECRET})
    wallet = helper(
        f"""read name; [ "$name" = {HOST} ] && [ "$1" = get ] && echo '{answer}'""", setting
    )
    assert find(wallet)[0] == Credentials("alice", SECRET)


def test_a_helper_that_knows_nothing_is_no_error(helper):
    assert find(helper("echo credentials not found in native keychain; exit 1"))[0] is None


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("sleep 20", "did not answer within 0.5 s"),
        (f"echo {SECRET} >&2; exit 3", "failed with 3"),
        (f"echo {SECRET}", "no credential"),
        ("echo '{\"Username\": 1}'", "no credential"),
    ],
)
def test_a_helper_that_fails_gives_no_secret_away(helper, script, message):
    with pytest.raises(UsageError, match=message) as caught:
        find(helper(script))
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__cause__)


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "x y", "-x"])
def test_a_helper_has_a_decent_name(tmp_path, name):
    write(tmp_path / ".docker/config.json", {"credHelpers": {HOST: name}})
    with pytest.raises(UsageError, match="cannot be the name"):
        find(Wallet({}, tmp_path))


def test_secrets_are_not_in_what_values_show():
    assert SECRET not in repr(Credentials("alice", SECRET))
    assert SECRET not in repr(Wallet({"TOKEN": SECRET}))
