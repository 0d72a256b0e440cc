"""What infra/ ships fits the programs that it starts, and names nobody's machines."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

INFRA = Path(__file__).parents[2] / "infra"
COMPOSE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
TEXTS = sorted(path for path in INFRA.rglob("*") if path.suffix in {".txt", ".yaml", ".service", ".Containerfile"})
IMAGE = (INFRA / "images" / "cloud.Containerfile").read_text()
TARGETS = dict(re.findall(r"^FROM base AS (\w+)$.*?^ENTRYPOINT (\[.*?\])$", IMAGE, re.MULTILINE | re.DOTALL))


def pins(name: str) -> dict[str, str]:
    text = (INFRA / "locks" / f"{name}.txt").read_text()
    return {entry.split("==")[0]: entry for entry in re.split(r"\n(?=\S)", text.strip())}


def help_of(module: str) -> str:
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize("name", ["gateway", "dispatcher", "auditor"])
def test_compose_and_image_pass_flags_that_the_process_knows(name: str) -> None:
    entry: list[str] = yaml.safe_load(TARGETS[name])
    flags = [word for word in (*entry, *COMPOSE["services"][name]["command"]) if word.startswith("--")]
    assert entry[:3] == ["python", "-m", f"fleetbatch.{name}"]
    assert {"--settings", "--cell"} <= set(flags)
    known = help_of(f"fleetbatch.{name}")
    assert [flag for flag in flags if flag not in known] == []


def test_every_service_is_built_from_a_target_and_gets_secrets_that_exist() -> None:
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            assert service["build"]["target"] in TARGETS, name
            assert (INFRA / service["build"]["context"] / service["build"]["dockerfile"]).is_file(), name
            assert service["read_only"], name
        assert set(service["secrets"]) <= COMPOSE["secrets"].keys(), name
        assert set(service["networks"]) <= COMPOSE["networks"].keys(), name


def test_only_the_gateway_is_seen_from_outside() -> None:
    assert COMPOSE["networks"]["cell"]["internal"]
    seen = [name for name, service in COMPOSE["services"].items() if service.get("ports")]
    assert seen == ["gateway"]


def test_the_units_command_passes_flags_that_the_runner_knows() -> None:
    unit = (INFRA / "runner.service").read_text()
    [command] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    known = help_of("fleetbatch.runner")
    assert [word for word in command.split() if word.startswith("--") and word not in known] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here to judge the unit")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = (INFRA / "runner.service").read_text().replace("/opt/fleetbatch/bin/python", sys.executable)
    (tmp_path / "runner.service").write_text(unit)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "runner.service")]
    judged = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "runner.service" not in judged.stderr


def test_airflow_waits_and_works_with_the_settings_that_are_mounted() -> None:
    values = yaml.safe_load((INFRA / "airflow-values.yaml").read_text())
    settings = {one["name"]: one["value"] for one in values["env"]}["FLEETBATCH_SETTINGS"]
    assert Path(settings).parent == Path(values["volumeMounts"][0]["mountPath"])
    assert {one["name"] for one in values["volumeMounts"]} == {one["name"] for one in values["volumes"]}
    assert values["triggerer"]["enabled"]


@pytest.mark.parametrize("part", ["car", "cloud"])
def test_a_part_of_the_lock_has_the_same_pins_and_hashes_and_all_that_its_extra_needs(part: str) -> None:
    whole, ours = pins("laptop"), pins(part)
    assert {name: whole[name] for name in ours} == ours
    command = [sys.executable, str(INFRA / "lock_part.py"), part]
    cut = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert cut == (INFRA / "locks" / f"{part}.txt").read_text()


def test_the_cars_lock_holds_nothing_of_the_trusted_side() -> None:
    assert not pins("car").keys() & {
        "apache-airflow",
        "psycopg",
        "deltalake",
        "obstore",
        "polars",
        "great-expectations",
    }
    assert "apache-airflow" not in pins("cloud")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_file_names_a_registry_or_an_index(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"index-url|find-links|--registry|pypi\.org|ghcr\.io|quay\.io|docker\.io|gcr\.io", text)
