"""A deployment in a test's own folder: settings file, key, store, and one fresh ledger a cell."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from turned_clock import migrate_with_turned_clock

from fleetbatch.local.postgres import Postgres, fresh_database
from fleetbatch.settings import KEY_BYTES

CELLS = (("eu-1", "eu"), ("us-1", "us"))


@contextlib.contextmanager
def deployed(home: Path, postgres: Postgres, *, cells: int = 2, engine: str = "local") -> Iterator[Path]:
    """Give the settings file of a deployment with so many cells, and take its databases away afterwards."""
    (home / "deployment.key").write_text(secrets.token_hex(KEY_BYTES))
    lines = [f'store = "{(home / "store").as_uri()}"', 'deployment_key_file = "deployment.key"', f'engine = "{engine}"']
    with contextlib.ExitStack() as stack:
        for name, region in CELLS[:cells]:
            url = stack.enter_context(fresh_database(postgres))
            migrate_with_turned_clock(url)
            lines += ["[[cells]]", f'name = "{name}"', f'region = "{region}"', f'ledger_url = "{url}"']
            lines += [f'gateway_ledger_url = "{url}"', f'gateway_url = "http://{name}.invalid"']
        settings = home / "settings.toml"
        settings.write_text("\n".join(lines))
        yield settings
