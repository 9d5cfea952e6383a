"""The roster: what is written is read back, what is ambiguous is refused, and a changed file is in force at once."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedunlearn.cli.main import app
from fedunlearn.deployment.roster import (
    Actor,
    ClientEntry,
    Roster,
    StaffEntry,
    canonical_key,
    new_token,
    token_hash,
)
from fedunlearn.deployment.roster_file import RosterFile, edit
from fedunlearn.errors import UserError

OPENSSH = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
PEM = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePublicKey:
    return ec.generate_private_key(curve or ec.SECP384R1()).public_key()


KEYS = [public_key().public_bytes(*OPENSSH).decode() for _ in range(4)]
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(lambda name: name != "local")
maybe = st.booleans()


@st.composite
def rosters(draw) -> Roster:
    numbers = draw(st.lists(st.integers(0, 300), unique=True, max_size=4))
    nodes = draw(st.lists(st.integers(1, 2**64 - 1), unique=True, min_size=4, max_size=4))
    clients = tuple(
        ClientEntry(
            number=number,
            public_key=key if draw(maybe) else None,
            node_id=str(node) if draw(maybe) else None,
            token_sha256=token_hash(f"client {number}") if draw(maybe) else None,
        )
        for number, key, node in zip(numbers, KEYS, nodes, strict=False)
    )
    staff = [draw(st.lists(names, unique=True, max_size=3)) for _ in range(2)]
    operators, monitors = (
        tuple(StaffEntry(name=name, token_sha256=token_hash(f"{role} {name}")) for name in found)
        for role, found in zip(("operator", "monitor"), staff, strict=True)
    )
    return Roster(clients, operators, monitors)


@given(rosters())
def test_what_is_written_is_read_back(roster) -> None:
    assert Roster.loads(roster.to_toml(), "there") == roster


@given(rosters())
def test_tokens_and_nodes_lead_to_whom_they_belong_and_nowhere_else(roster) -> None:
    for entry in roster.clients:
        actor = roster.actor_of_token(f"client {entry.number}")
        assert actor == (Actor("client", str(entry.number)) if entry.token_sha256 else None)
        if entry.node_id:
            assert roster.client_of_node(int(entry.node_id)) == entry.number
    for role, staff in (("operator", roster.operators), ("monitor", roster.monitors)):
        for one in staff:
            assert roster.actor_of_token(f"{role} {one.name}") == Actor(role, one.name)
            assert roster.actor_of_token(one.token_sha256) is None  # the hash is no token
    assert roster.actor_of_token("") is None
    assert roster.client_of_node(2**64) is None


@given(rosters())
def test_taking_somebody_out_takes_out_nobody_else(roster) -> None:
    for actor, entry in roster.entries:
        left = roster.without(actor)
        assert [kept for kept, _ in left.entries] == [kept for kept, _ in roster.entries if kept != actor]
        assert set(left.with_entry(actor.role, entry).entries) == set(roster.entries)


def test_a_key_is_the_same_in_every_form() -> None:
    key = public_key()
    forms = [key.public_bytes(*OPENSSH).decode(), key.public_bytes(*PEM).decode()]
    forms.append(f"{forms[0]} somebody@somewhere\n")
    assert {canonical_key(form) for form in forms} == {forms[0]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "ssh-rsa AAAA",
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(*OPENSSH).decode(),
        public_key(ec.SECP256K1()).public_bytes(*PEM).decode(),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    ],
    ids=["empty", "nonsense", "rsa", "ed25519", "secp256k1", "broken"],
)
def test_what_flower_would_not_accept_is_no_key(text) -> None:
    with pytest.raises(ValueError, match="ECDSA"):
        canonical_key(text)


HASH = token_hash("somebody's")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[client]]\nnumber = 1\n[[client]]\nnumber = 1", "client.number = 1"),
        ('[[client]]\nnumber = 1\nnode-id = "7"\n[[client]]\nnumber = 2\nnode-id = "7"', "client.node-id"),
        (
            f'[[client]]\nnumber = 1\ntoken-sha256 = "{HASH}"\n[[operator]]\nname = "a"\ntoken-sha256 = "{HASH}"',
            "token",
        ),
        (
            f'[[client]]\nnumber = 1\npublic-key = "{KEYS[0]}"\n'
            f'[[client]]\nnumber = 2\npublic-key = "{KEYS[0]} again"',
            "client.public-key",
        ),
        (
            "\n".join(f'[[operator]]\nname = "a"\ntoken-sha256 = "{token_hash(token)}"' for token in "xy"),
            'operator.name = "a" (',
        ),
        (
            "\n".join(f'[[monitor]]\nname = "a"\ntoken-sha256 = "{token_hash(token)}"' for token in "xy"),
            'monitor.name = "a" (',
        ),
        (f'[[operator]]\nname = "local"\ntoken-sha256 = "{HASH}"', 'operator.name = "local" ('),
        (
            f'[[operator]]\nname = "a b"\ntoken-sha256 = "{HASH}"',
            "may contain only letters, digits and . _ -",
        ),
        (f'[[operator]]\nname = ".a"\ntoken-sha256 = "{HASH}"', "must begin with a letter or a digit"),
        (f'[[operator]]\nname = "{"a" * 65}"\ntoken-sha256 = "{HASH}"', "have at most 64 characters"),
        ('[[operator]]\nname = "a"', "token-sha256"),
        ('[[operator]]\nname = "a"\ntoken-sha256 = "secret"', "never the token"),
        ("[[client]]\nnumber = -1", ">= 0"),
        ("[[client]]\nnumber = 1\nnode-id = 7", "in quotes"),
        ("[[client]]\nnumber = 1\ntoken = 'x'", "token"),
        ("[[admin]]\nname = 'x'", "admin"),
        ("[[client]", "not valid TOML"),
    ],
    ids=range(17),
)
def test_a_wrong_roster_is_refused_with_its_place(tmp_path, text, says) -> None:
    path = tmp_path / "roster.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"roster\.toml") as caught:
        Roster.load(path)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_roster_that_anyone_may_write_is_refused(tmp_path) -> None:
    path = tmp_path / "roster.toml"
    edit(path, lambda empty: empty, new=True)
    path.chmod(0o666)
    with pytest.raises(UserError, match="chmod 600"):
        Roster.load(path)


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100 and min(map(len, tokens)) >= 43  # 256 bits in base 64


def test_a_file_that_is_edited_by_several_at_once_loses_nothing(tmp_path) -> None:
    path = tmp_path / "roster.toml"
    edit(path, lambda empty: empty, new=True)

    def add(number: int) -> None:
        edit(path, lambda known: known.with_entry("client", ClientEntry(number=number)))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.number for entry in Roster.load(path).clients] == list(range(24))
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


def test_an_edit_that_would_be_wrong_changes_nothing(tmp_path) -> None:
    path = tmp_path / "roster.toml"
    edit(path, lambda known: known.with_entry("client", ClientEntry(number=1, node_id="7")), new=True)
    before = path.read_bytes()
    with pytest.raises(UserError, match="node-id"):
        edit(path, lambda known: known.with_entry("client", ClientEntry(number=2, node_id="7")))
    assert path.read_bytes() == before
    with pytest.raises(UserError, match="already"):
        edit(path, lambda known: known, new=True)
    with pytest.raises(UserError, match="no such file"):
        edit(tmp_path / "other.toml", lambda known: known)


def test_a_changed_file_is_in_force_at_once_and_a_broken_one_never(tmp_path) -> None:
    path = tmp_path / "roster.toml"
    entry = ClientEntry(number=1, token_sha256=token_hash("old"))
    edit(path, lambda known: known.with_entry("client", entry), new=True)
    followed = RosterFile(path)
    assert followed.current() is followed.current()
    edit(
        path, lambda known: known.with_entry("client", ClientEntry(number=1, token_sha256=token_hash("new")))
    )
    assert followed.current().actor_of_token("old") is None
    assert followed.current().actor_of_token("new") == Actor("client", "1")
    path.write_text("[[client]")
    assert followed.current().actor_of_token("new") == Actor("client", "1")
    assert "stays in force" in str(followed.problem)
    path.unlink()
    assert followed.current().actor_of_token("new") == Actor("client", "1")
    edit(path, lambda empty: empty, new=True)
    assert followed.current().actor_of_token("new") is None and followed.problem is None


# -- the command line -----------------------------------------------------------------------------------------


def run(*words: object) -> str:
    result = CliRunner().invoke(app, ["roster", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_commands_make_a_roster(tmp_path) -> None:
    path, key = tmp_path / "roster.toml", tmp_path / "key.pub"
    key.write_text(KEYS[0] + " node\n")
    run("init", path)
    token = run("add-client", path, "--number", 3, "--public-key", key).strip()
    run("set-node", path, 3, 2**64 - 1)
    run("add-client", path, "--number", 4, "--no-token", "--node-id", 9, "--num-examples", 50)
    run("set-examples", path, 3, 1200)
    alice = run("add-operator", path, "alice").strip()
    run("add-monitor", path, "eye", "--token-file", tmp_path / "eye")
    roster = Roster.load(path)
    assert roster.clients == (
        ClientEntry(
            number=3,
            public_key=KEYS[0],
            node_id=str(2**64 - 1),
            token_sha256=token_hash(token),
            num_examples=1200,
        ),
        ClientEntry(number=4, node_id="9", num_examples=50),
    )
    assert roster.examples == {3: 1200, 4: 50}
    assert roster.actor_of_token(alice) == Actor("operator", "alice")
    assert roster.actor_of_token((tmp_path / "eye").read_text().strip()) == Actor("monitor", "eye")
    assert (tmp_path / "eye").stat().st_mode & 0o777 == 0o600
    assert not {token, alice} & set(path.read_text().split('"'))
    shown = run("show", path)
    assert (
        "client:3" in shown
        and "at most 1200 examples" in shown
        and "operator:alice" in shown
        and "monitor:eye" in shown
    )
    assert token_hash(alice) not in shown

    renewed = run("rotate", path, "operator:alice").strip()
    assert Roster.load(path).actor_of_token(alice) is None
    assert Roster.load(path).actor_of_token(renewed) == Actor("operator", "alice")
    run("rotate", path, "client:4")
    assert Roster.load(path).client(4).token_sha256 and Roster.load(path).client(4).node_id == "9"
    run("remove", path, "operator:alice")
    assert Roster.load(path).actor_of_token(renewed) is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("add-client", "ROSTER", "--number", "1"), "client:1 is already in the roster"),
        (("add-operator", "ROSTER", "alice"), "operator:alice is already in the roster"),
        (("add-operator", "ROSTER", "local"), "another"),
        (("add-client", "ROSTER", "--number", "2", "--public-key", "NONE"), "--public-key"),
        (("add-client", "ROSTER", "--number", "2", "--public-key", "ROSTER"), "ECDSA"),
        (("add-client", "ROSTER", "--number", "2", "--node-id", "x"), "node-id"),
        (("add-client", "ROSTER", "--number", "2", "--token-file", "ROSTER"), "File exists"),
        (("set-node", "ROSTER", "5", "1"), "client:5 is not in the roster"),
        (("set-examples", "ROSTER", "5", "1"), "client:5 is not in the roster"),
        (("rotate", "ROSTER", "client:5"), "client:5: is not in the roster"),
        (("rotate", "ROSTER", "bob"), "bob: is not in the roster"),
        (("remove", "ROSTER", "operator:bob"), "operator:bob: is not in the roster"),
        (("init", "ROSTER"), "already"),
        (("init", "NONE/roster.toml"), "folder"),
        (("show", "NONE"), "no such file"),
    ],
)
def test_wrong_commands_exit_with_2_and_one_line_and_change_nothing(tmp_path, words, says) -> None:
    path = tmp_path / "roster.toml"
    run("init", path)
    run("add-client", path, "--number", 1)
    run("add-operator", path, "alice")
    before = path.read_bytes()
    places = {
        "ROSTER": str(path),
        "NONE": str(tmp_path / "none"),
        "NONE/roster.toml": str(tmp_path / "no" / "r"),
    }
    words = [places.get(word, word) for word in words]
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, ["roster", *words], catch_exceptions=False)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_token_whose_roster_was_refused_is_not_left_lying(tmp_path) -> None:
    path = tmp_path / "roster.toml"
    run("init", path)
    with pytest.raises(UserError):
        CliRunner().invoke(
            app,
            ["roster", "add-operator", str(path), "local", "--token-file", str(tmp_path / "t")],
            catch_exceptions=False,
        )
    assert not (tmp_path / "t").exists()


def test_the_server_reads_a_roster_without_a_web_framework() -> None:
    """The ServerApp and the nodes need the roster, not the door."""
    code = "import sys, fedunlearn.deployment.roster_file; assert not {'fastapi', 'torch', 'flwr'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=os.environ, cwd=Path.cwd())
