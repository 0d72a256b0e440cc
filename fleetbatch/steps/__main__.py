"""One step as a process: `python -m fleetbatch.steps STEP WORDS ANSWER`, with words in JSON and the answer in a file.

Whoever started it holds its standard input open: when that closes, the step and its workers end, so that a killed task
leaves nothing behind. Everything printed goes to the task's log.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.logs import log_to_stderr
from fleetbatch.nouns import OrderKey
from fleetbatch.settings import Settings, load_settings
from fleetbatch.units import Night

Words = Mapping[str, Any]
Answer = dict[str, Any]

_LEFT_ALONE: Final = 3
"""Exit code of a step whose starter is gone."""


def run(step: str, words: Words) -> Answer:
    """Run one step and return what its task hands on: keys, never data; errors of ours are answers here."""
    try:
        return _STEPS[step](load_settings(Path(words["settings"])), words)
    except RejectedError as error:
        return {"rejected": str(error)}
    except TransientError as error:
        return {"transient": str(error)}


def _order(settings: Settings, words: Words) -> Answer:
    from fleetbatch.orders import AlreadyPublished
    from fleetbatch.steps.opening import accept_file, accept_form, order_step

    if "file" in words:
        order = accept_file(settings, Path(words["file"]))
    else:
        order = accept_form(settings, words["form"], base=Path(words["settings"]).parent)
    night = Night(words["night"])
    match order_step(settings, order, night=night, force=words["force"], now=_now(words)):
        case AlreadyPublished(key=key):
            return {"already_published": str(key)}
        case frozen:
            return {"key": str(frozen.key)}


def _shards(settings: Settings, words: Words) -> Answer:
    from fleetbatch.steps.opening import shards_step

    shards_step(settings, _key(words))
    return {"key": words["key"]}


def _merge(settings: Settings, words: Words) -> Answer:
    from fleetbatch.steps.closing import merge_step

    merge_step(settings, _key(words), now=_now(words))
    return {"key": words["key"]}


def _check(settings: Settings, words: Words) -> Answer:
    from fleetbatch.steps.closing import check_step

    check_step(settings, _key(words))
    return {"key": words["key"]}


def _publish(settings: Settings, words: Words) -> Answer:
    from fleetbatch.steps.closing import publish_step

    published = publish_step(settings, _key(words), now=_now(words))
    return {"key": words["key"], "table": published.table, "version": published.version}


def _report(settings: Settings, words: Words) -> Answer:
    from fleetbatch.steps.closing import report_step

    report_step(settings, _key(words), task_instances=words["task_instances"], now=_now(words))
    return {"key": words["key"]}


def _keep_tables(settings: Settings, _words: Words) -> Answer:
    from fleetbatch.steps.keeping import keep_tables_step

    return {"removed_files": keep_tables_step(settings)}


def _forget(settings: Settings, words: Words) -> Answer:
    from fleetbatch.steps.keeping import forget_step

    return {"forgotten_nights": forget_step(settings, now=_now(words))}


def _forget_keys(settings: Settings, words: Words) -> Answer:
    from fleetbatch.steps.archiving import forget_keys_step

    return {"orders": forget_keys_step(settings, now=_now(words))}


def _archive_nights(settings: Settings, words: Words) -> Answer:
    from fleetbatch.steps.archiving import archive_step

    return {"moved": archive_step(settings, now=_now(words))}


def _forget_rounds(settings: Settings, words: Words) -> Answer:
    from fleetbatch.steps.archiving import forget_rounds_step

    return {"removed_files": forget_rounds_step(settings, now=_now(words))}


def _windows_ingest(settings: Settings, words: Words) -> Answer:
    from fleetbatch.steps.windows import ingest_step

    return ingest_step(settings, date.fromisoformat(words["day"]), now=_now(words))


def _windows_tune(settings: Settings, words: Words) -> Answer:
    from fleetbatch.steps.windows import tune_step

    return tune_step(settings, date.fromisoformat(words["day"]), now=_now(words))


def _windows_refit(settings: Settings, words: Words) -> Answer:
    from fleetbatch.steps.windows import refit_step

    return refit_step(settings, date.fromisoformat(words["day"]), now=_now(words))


_STEPS: Final[Mapping[str, Callable[[Settings, Words], Answer]]] = {
    "order": _order,
    "shards": _shards,
    "merge": _merge,
    "check": _check,
    "publish": _publish,
    "report": _report,
    "keep_tables": _keep_tables,
    "forget": _forget,
    "forget_keys": _forget_keys,
    "archive_nights": _archive_nights,
    "forget_rounds": _forget_rounds,
    "windows_ingest": _windows_ingest,
    "windows_tune": _windows_tune,
    "windows_refit": _windows_refit,
}


def _key(words: Words) -> OrderKey:
    return OrderKey.parse(words["key"])


def _now(words: Words) -> datetime:
    return datetime.fromisoformat(words["now"])


def _end_when_left_alone() -> None:
    while os.read(0, 1):
        pass
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(_LEFT_ALONE)


def main() -> None:
    """Run the step that the command line names."""
    step, words, answer = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
    threading.Thread(target=_end_when_left_alone, daemon=True).start()
    log_to_stderr("step", step=step, **({"order": words["key"]} if "key" in words else {}))
    written = answer.with_suffix(".part")
    written.write_text(json.dumps(run(step, words)))
    written.replace(answer)


if __name__ == "__main__":
    main()
