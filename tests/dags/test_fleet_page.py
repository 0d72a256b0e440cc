import subprocess
import sys
from pathlib import Path

from deployments import deployed

from fleetbatch.local.airflow import airflow_env, dags_folder
from fleetbatch.local.postgres import Postgres

ASK = """
from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.services.login import SimpleAuthManagerLogin
from fastapi.testclient import TestClient
from fleetbatch_page import app

create_auth_manager()
browser = TestClient(app)
print("stranger", browser.get("/").status_code)
token = SimpleAuthManagerLogin.create_token_all_admins()
guest = browser.get("/", headers={"Authorization": f"Bearer {token}"})
print("guest", guest.status_code, guest.text)
"""


def ask(env: dict[str, str]) -> str:
    with_plugins = env | {"PYTHONPATH": env["AIRFLOW__CORE__PLUGINS_FOLDER"]}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK],
        env=with_plugins,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_fleet_page_is_for_those_whom_airflow_lets_in(
    airflow: dict[str, str], postgres: Postgres, tmp_path: Path
) -> None:
    with deployed(tmp_path, postgres) as settings:
        env = airflow_env(airflow, home=Path(airflow["AIRFLOW_HOME"]).parent, settings=settings, dags=dags_folder())
        said = ask(env)
    assert "stranger 401" in said
    assert "guest 200" in said
    assert "Cell eu-1, region eu" in said
    assert "0 enrolled" in said


def test_the_fleet_page_says_why_there_is_nothing_to_see(airflow: dict[str, str], tmp_path: Path) -> None:
    home, settings = Path(airflow["AIRFLOW_HOME"]).parent, tmp_path / "none.toml"
    said = ask(airflow_env(airflow, home=home, settings=settings, dags=dags_folder()))
    assert "guest 503 The fleet cannot be shown now" in said
    assert "none.toml" in said
