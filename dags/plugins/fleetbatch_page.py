"""The Fleet page of Airflow's own pages: which cells have how many cars, and how far each open order is."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from airflow.plugins_manager import AirflowPlugin
from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse

from fleetbatch.errors import RejectedError, TransientError

REFRESH_S: Final = 5
"""The page looks again by itself after so many seconds."""

# A sub-application has no authentication of its own: Airflow's stands before every page of it.
app: Final = FastAPI(dependencies=[Depends(requires_access_view(AccessView.CLUSTER_ACTIVITY))], openapi_url=None)


@app.get("/", response_class=HTMLResponse)
def fleet() -> HTMLResponse:
    """Show the cells as their ledgers have them now."""
    from fleetbatch.settings import load_settings
    from fleetbatch.steps.fleet import fleet_page

    home = os.environ.get("AIRFLOW_HOME", str(Path.home() / "airflow"))
    settings = load_settings(Path(os.environ.get("FLEETBATCH_SETTINGS", f"{home}/fleetbatch.toml")))
    return HTMLResponse(fleet_page(settings, now=datetime.now(UTC)), headers={"Refresh": str(REFRESH_S)})


@app.exception_handler(TransientError)
@app.exception_handler(RejectedError)
def cannot_show(_request: object, error: Exception) -> PlainTextResponse:
    """Say why there is nothing to see, and look again."""
    return PlainTextResponse(f"The fleet cannot be shown now: {error}", 503, headers={"Refresh": str(REFRESH_S)})


class FleetPage(AirflowPlugin):
    """Puts the page into Airflow's navigation."""

    name = "fleetbatch"
    fastapi_apps = [{"app": app, "url_prefix": "/fleetbatch", "name": "Fleet"}]  # noqa: RUF012 # Airflow's way
    external_views = [  # noqa: RUF012 # Airflow's way
        {"name": "Fleet", "href": "/fleetbatch/", "destination": "nav", "url_route": "fleet", "nav_top_level": True}
    ]
