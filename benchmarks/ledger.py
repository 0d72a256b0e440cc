"""Gateway and ledger beside their peers: CPU an operation, a round of a million offers, a full cell, an outage.

CPU is of all our processes and PostgreSQL together, from /proc; the driver's, which plays the cars, is told apart.
Sizes that fit a small machine in minutes; the scripts' own words say how to run the whole: `ledger_million.py` is a
million cars by default, `ledger_limit.py` five million and ten minutes.
"""

from benchmarks.run import Bench, Subject

_LOCK = "infra/locks/bench-ledger.txt"
_SMALL = ("--cars", "100000", "--computing", "40000", "--seconds", "30")


def _of(name: str, script: str, *arguments: str, lock: str | None = None) -> Subject:
    return Subject(name=name, script=f"benchmarks/ledger_{script}.py", arguments=arguments, lock=lock)


BENCH = Bench(
    name="ledger",
    subjects=(
        _of("ours", "poll", "ours"),
        _of("uvicorn", "poll", "uvicorn"),
        _of("fastapi", "poll", "fastapi", lock=_LOCK),
        _of("ours", "lifecycles", "direct"),
        _of("through us", "lifecycles", "folder"),
        _of("procrastinate", "queues", "procrastinate", lock=_LOCK),
        _of("pgbench", "queues", "pgbench"),
        _of("ours", "offers"),
        _of("ours", "million", "work", *_SMALL),
        _of("ours", "million", "storm", *_SMALL),
        _of("ours", "limit", "--cars", "200000", "--seconds", "30"),
    ),
    rounds=1,
    headline=(
        "poll_cpu_us",
        "lifecycles_per_core_s",
        "offers_1m_s",
        "offers_1m_mb",
        "grants_per_s",
        "grant_p99_ms",
        "storm_goodput",
    ),
)
