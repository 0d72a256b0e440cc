"""Counts the words of text files: a workload without a model, in thirty lines."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from fleetbatch.workloads import Answer, Device, Workload


class Words(Workload):
    """How many words a file has, and which is the commonest."""

    name = "words"

    def open(self, model: bytes | None, device: Device, options: Mapping[str, str]) -> Answer:  # noqa: ARG002 (needs none)
        """Return what counts; `case = false` in the order's options takes upper and lower case alike."""
        fold = options.get("case") == "false"

        def answer(rows: pa.Table) -> pa.Table:
            items = rows.select(["item_id", "bytes"]).to_pylist()
            counted = [{"item_id": item["item_id"], **count(item["bytes"], fold=fold)} for item in items]
            return pa.Table.from_pylist(counted, schema=self.answer_schema)

        return answer


def count(content: bytes, *, fold: bool) -> dict[str, Any]:
    """Return one answer; what is not UTF-8 raises, and the file is a dead letter with that reason."""
    text = content.decode()
    words = Counter((text.casefold() if fold else text).split())
    if not words:
        return {"error": "the file has no words"}
    commonest = min(words, key=lambda word: (-words[word], word))
    return {"commonest": commonest, "words": words.total(), "share": words[commonest] / words.total()}
