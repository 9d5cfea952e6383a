"""The signing key: made once, kept outside, and nothing else verifies what it signed."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.certificates.keys import KEY_VARIABLE, PublicKey, SigningKey, find_key, new_key
from fedunlearn.certificates.signing import CERTIFICATE, HEAD, sign, signed_bytes, verifies
from fedunlearn.errors import UserError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(st.text(), JSON, max_size=4)


def some_key(seed: int = 1) -> SigningKey:
    return SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def test_a_new_key_is_private_and_reads_back(tmp_path: Path) -> None:
    made = new_key(tmp_path / "signing.pem")
    assert stat.S_IMODE((tmp_path / "signing.pem").stat().st_mode) == 0o600
    assert b"PRIVATE" not in (tmp_path / "signing.pem.pub").read_bytes()
    read = SigningKey.load(tmp_path / "signing.pem")
    public = PublicKey.load(tmp_path / "signing.pem.pub")
    assert made.public == read.public == public == PublicKey.from_text(public.text)
    assert public.verifies(read.sign(b"x"), b"x")
    assert len(public.key_id) == 16 and public.key_id == made.key_id


def test_two_keys_differ_and_do_not_verify_each_other(tmp_path: Path) -> None:
    one, other = new_key(tmp_path / "a"), new_key(tmp_path / "b")
    assert one.key_id != other.key_id
    assert not other.public.verifies(one.sign(b"x"), b"x")


@pytest.mark.parametrize("there", ["key.pem", "key.pem.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("something dear")
    with pytest.raises(UserError, match="never overwritten"):
        new_key(tmp_path / "key.pem")
    assert (tmp_path / there).read_text() == "something dear"
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_a_key_inside_the_run_directory_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "deep").mkdir(parents=True)
    new_key(run / "deep" / "key.pem")
    (tmp_path / "link.pem").symlink_to(run / "deep" / "key.pem")
    for path in (run / "deep" / "key.pem", tmp_path / "link.pem"):
        with pytest.raises(UserError, match="inside the run directory"):
            SigningKey.load(path, run_folder=run)
    new_key(tmp_path / "key.pem")
    SigningKey.load(tmp_path / "key.pem", run_folder=run)


def test_what_is_no_key_is_refused_by_name(tmp_path: Path) -> None:
    place = tmp_path / "key.pem"
    with pytest.raises(UserError, match=r"key\.pem: the signing key cannot be read"):
        SigningKey.load(place)
    place.write_text("nonsense")
    with pytest.raises(UserError, match="holds no Ed25519 private key"):
        SigningKey.load(place)
    elliptic = ec.generate_private_key(ec.SECP256R1())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    place.write_bytes(elliptic.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    with pytest.raises(UserError, match="holds no Ed25519 private key"):
        SigningKey.load(place)
    locked = ed25519.Ed25519PrivateKey.generate()
    place.write_bytes(locked.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(UserError, match="passphrase"):
        SigningKey.load(place)
    with pytest.raises(UserError, match="holds no Ed25519 public key"):
        PublicKey.load(place)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o606])
def test_a_key_that_others_may_read_or_change_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "key.pem"
    made = new_key(place)
    place.chmod(mode)
    with pytest.raises(UserError) as refused:
        SigningKey.load(place)
    said = str(refused.value)
    assert f"mode {mode:04o}" in said and f"chmod 600 {place}" in said and "\n" not in said
    for private in (0o600, 0o400):
        place.chmod(private)
        assert SigningKey.load(place).public == made.public


def test_the_option_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, other = new_key(tmp_path / "named"), new_key(tmp_path / "other")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert find_key(None, run_folder=tmp_path / "run") is None
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "other"))
    from_environment = find_key(None, run_folder=tmp_path / "run")
    from_option = find_key(tmp_path / "named", run_folder=tmp_path / "run")
    assert from_environment is not None and from_environment.public == other.public
    assert from_option is not None and from_option.public == named.public


@given(DOCUMENTS, DOCUMENTS)
def test_a_signature_holds_for_one_document_of_one_kind(document: dict, other: dict) -> None:
    key = some_key()
    signature = sign(CERTIFICATE, document, key)
    assert verifies(CERTIFICATE, dict(reversed(document.items())), signature, key.public)
    assert not verifies(HEAD, document, signature, key.public)
    assert not verifies(CERTIFICATE, document, signature, some_key(2).public)
    same = signed_bytes(CERTIFICATE, other) == signed_bytes(CERTIFICATE, document)
    assert verifies(CERTIFICATE, other, signature, key.public) == same


@given(st.text())
def test_what_is_no_signature_verifies_nothing(text: str) -> None:
    assert not verifies(CERTIFICATE, {"a": 1}, text, some_key().public)


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        new_key(tmp_path / "missing" / "key.pem")
    assert not list(tmp_path.iterdir())
