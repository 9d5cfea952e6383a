"""What the Dockerfile and the compose files promise: nobody is root, little is published, and who reaches whom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
FILES = (
    "docker-compose.yml",
    "deploy/compose.server.yml",
    "deploy/compose.client.yml",
    "deploy/compose.ray.yml",
)


class Loader(yaml.SafeLoader):
    """Reads compose's own tags as what they are put on."""


Loader.add_multi_constructor("!", lambda loader, _tag, node: _plain(loader, node))


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return None if node.value == "null" else loader.construct_scalar(node)


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.load((ROOT / name).read_text(), Loader)
    return document


DOCUMENTS = {name: read(name) for name in FILES}


def extended(service: dict[str, Any]) -> dict[str, Any]:
    """Return a service with what it extends filled in, key by key; enough for keys that are not merged."""
    parent = service.get("extends")
    if parent is None:
        return service
    return {**extended(DOCUMENTS[parent["file"]]["services"][parent["service"]]), **service}


SERVICES = {
    (name, service): extended(settings)
    for name, document in DOCUMENTS.items()
    for service, settings in document["services"].items()
}
LASTING = {key: service for key, service in SERVICES.items() if service.get("restart") == "unless-stopped"}
ONE_HOST = {
    service: settings
    for (name, service), settings in SERVICES.items()
    if name in ("docker-compose.yml", "deploy/compose.server.yml")
}


def networks(service: dict[str, Any]) -> set[str]:
    return set(service.get("networks", {"default"})) if service.get("network_mode") != "none" else set()


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Return path in the container → (volume, whether it is read-only)."""
    found = {}
    for text in service.get("volumes", ()):
        source, _, rest = re.sub(r"\$\{[A-Z_]+:-(.*?)\}", r"\1", text).partition(":")
        path, _, mode = rest.partition(":")
        found[path or source] = (source if path else "", mode == "ro")
    return found


class TestDockerfile:
    def test_there_is_one_base_and_it_is_pinned_by_name_only(self) -> None:
        stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE, re.M)
        outside = {image for image, _ in stages} - {stage for _, stage in stages}
        assert outside == {"python:3.11-slim-bookworm"}
        assert "syntax" not in DOCKERFILE.splitlines()[0]
        assert "@sha256" not in DOCKERFILE

    def test_pytorch_depends_on_its_own_pins_alone(self) -> None:
        stage = DOCKERFILE.split("FROM base AS torch")[1].split("\nFROM ")[0]
        assert re.findall(r"^COPY (.*)$", stage, re.M) == ["--from=pins /pins/torch.txt /tmp/torch.txt"]
        (kept,) = re.findall(r"grep -E '(.*?)' /pins/constraints.txt >/pins/torch.txt", DOCKERFILE)
        pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if re.match(kept, line)]
        assert {"torch", "torchvision"} <= {pin.split("==")[0] for pin in pins}
        assert not [pin for pin in pins if not re.match("torch|triton|nvidia|cuda", pin)]

    def test_the_index_of_pytorch_can_be_another(self) -> None:
        assert re.search(r"^ARG TORCH_INDEX_URL=$", DOCKERFILE, re.M)

    def test_no_image_runs_as_root(self) -> None:
        for target in ("proxy", "fedunlearn"):
            stage = re.split(r"^FROM \S+ AS ", DOCKERFILE, flags=re.M)
            (body,) = [text for text in stage if text.startswith(f"{target}\n")]
            assert re.findall(r"^USER (.*)$", body, re.M) == ["10001:10001"], target


class TestEveryService:
    @pytest.mark.parametrize("key", SERVICES, ids="/".join)
    def test_has_no_rights_that_it_does_not_need(self, key: tuple[str, str]) -> None:
        service = SERVICES[key]
        assert "privileged" not in service and "user" not in service and "cap_add" not in service
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert service["init"] is True

    @pytest.mark.parametrize("key", SERVICES, ids="/".join)
    def test_cannot_fill_the_disk_with_what_it_says(self, key: tuple[str, str]) -> None:
        assert SERVICES[key]["logging"] == {"driver": "local"}  # which keeps five files of 20 MB

    @pytest.mark.parametrize("key", SERVICES, ids="/".join)
    def test_publishes_on_the_loopback_address_until_told_otherwise(self, key: tuple[str, str]) -> None:
        for port in SERVICES[key].get("ports", ()):
            assert port.startswith("${FEDUNLEARN_LISTEN:-127.0.0.1}:"), port

    @pytest.mark.parametrize("key", LASTING, ids="/".join)
    def test_that_lasts_is_watched(self, key: tuple[str, str]) -> None:
        if key[1] not in ("supervisor", "ray-worker"):  # which serve nobody
            assert "test" in LASTING[key]["healthcheck"]

    def test_that_has_to_come_first_is_waited_for_until_it_is_ready(self) -> None:
        for service in SERVICES.values():
            for condition in service.get("depends_on", {}).values():
                assert condition["condition"] in ("service_healthy", "service_completed_successfully")

    def test_that_serves_others_is_there_in_every_part(self) -> None:
        assert {"superlink", "serverapp", "proxy", "door"} <= {name for _, name in LASTING}
        assert {f"{kind}-{k}" for kind in ("supernode", "clientapp") for k in range(3)} <= set(ONE_HOST)


class TestNetworks:
    def test_control_and_sites_have_no_way_out_and_none_to_the_machine(self) -> None:
        declared = {
            name: net for document in DOCUMENTS.values() for name, net in document.get("networks", {}).items()
        }
        for name in ("control", "fleet", "site", "site-0", "site-1", "site-2", "ray"):
            assert declared[name]["internal"] is True, name
            assert declared[name]["driver_opts"]["com.docker.network.bridge.inhibit_ipv4"] == "true", name

    def test_nobody_but_the_servers_own_reaches_the_superlink(self) -> None:
        on = {name for name, service in ONE_HOST.items() if "control" in networks(service)}
        assert on == {"superlink", "serverapp", "proxy", "register", "join", "supervisor"}
        assert networks(ONE_HOST["superlink"]) == {"control"}

    @pytest.mark.parametrize("k", range(3))
    def test_a_clients_executor_reaches_its_supernode_only(self, k: int) -> None:
        assert networks(ONE_HOST[f"clientapp-{k}"]) == {f"site-{k}"}
        assert {name for name, service in ONE_HOST.items() if f"site-{k}" in networks(service)} == {
            f"supernode-{k}",
            f"clientapp-{k}",
        }

    def test_supernodes_see_the_proxy_and_no_executor(self) -> None:
        on = {name for name, service in ONE_HOST.items() if "fleet" in networks(service)}
        assert on == {"proxy", "supernode-0", "supernode-1", "supernode-2"}

    def test_only_proxy_and_door_are_published(self) -> None:
        assert {name for name, service in ONE_HOST.items() if service.get("ports")} == {"proxy", "door"}


class TestVolumes:
    def test_secrets_are_written_by_their_makers_only(self) -> None:
        makers = {"server-keys", "register", "join", "keys", "keys-0", "keys-1", "keys-2"}
        for (_, name), service in SERVICES.items():
            for path, (_, read_only) in mounts(service).items():
                if path.startswith("/keys") and name not in makers:
                    assert read_only, f"{name}: {path}"

    def test_the_authoritys_key_is_mounted_where_it_signs_and_nowhere_else(self) -> None:
        holders = {name for name, service in ONE_HOST.items() if "/keys/authority" in mounts(service)}
        assert holders == {"server-keys"}

    def test_a_clients_data_are_in_its_executor_and_nowhere_else(self) -> None:
        for k in range(3):
            holders = {
                name
                for name, service in ONE_HOST.items()
                if f"client-{k}-data" in {volume for volume, _ in mounts(service).values()}
            }
            assert holders == {
                f"clientapp-{k}",
                f"keys-{k}",
            }  # the second deals them out, in the demonstration
            assert mounts(ONE_HOST[f"clientapp-{k}"])["/data"][1], "a ClientApp can write to the data"

    def test_the_signing_key_is_not_in_the_run_directorys_volume(self) -> None:
        serverapp = mounts(ONE_HOST["serverapp"])
        key = Path(ONE_HOST["serverapp"]["environment"]["FEDUNLEARN_SIGNING_KEY"])
        assert serverapp[str(key.parent)][0] != serverapp["/federation"][0]

    def test_ledger_and_checkpoints_are_in_a_named_volume(self) -> None:
        named = DOCUMENTS["deploy/compose.server.yml"]["volumes"]
        for name in ("serverapp", "door", "supervisor"):
            assert mounts(ONE_HOST[name])["/federation"] == ("federation", False)
        assert {"federation", "superlink", "roster"} <= set(named)
