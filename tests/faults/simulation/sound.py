"""What must never be in the ledger's tables, as statements that look at all rows at once."""

from typing import Any

import psycopg
from ledger_sound import MONEY

_LEASES = """(SELECT shard_id, fence, delivered_rows FROM (
    SELECT shard_id, fence, delivered_rows FROM fleetbatch.open_leases
    UNION ALL SELECT shard_id, fence, delivered_rows FROM fleetbatch.leases) a)"""

UNSOUND = {
    "P2 a lease is open exactly where its shard is out": """
        SELECT coalesce(s.shard_id, l.shard_id) FROM (SELECT * FROM fleetbatch.shards WHERE state = 'out') s
        FULL JOIN fleetbatch.open_leases l ON l.night = s.night AND l.shard_id = s.shard_id AND l.fence = s.fence
        WHERE s.shard_id IS NULL OR l.shard_id IS NULL""",
    "P2 every fence was one lease, open or ended": f"""
        SELECT s.shard_id FROM fleetbatch.shards s LEFT JOIN (
            SELECT shard_id, count(*) AS n, count(DISTINCT fence) AS d, max(fence) AS m FROM {_LEASES} x GROUP BY 1
        ) l USING (shard_id)
        WHERE (s.fence, s.fence, s.fence) <> (coalesce(n, 0), coalesce(d, 0), coalesce(m, 0))""",
    "P1 valid parts follow each other from 0 to done_through": """
        SELECT shard_id FROM (
            SELECT s.shard_id, s.done_through, p.start, p.stop,
                   lag(p.stop, 1, 0::smallint) OVER w AS before, max(p.stop) OVER (PARTITION BY s.shard_id) AS last
            FROM fleetbatch.shards s
            LEFT JOIN fleetbatch.parts p ON p.night = s.night AND p.shard_id = s.shard_id AND p.fence > s.void_fence
            WINDOW w AS (PARTITION BY s.shard_id ORDER BY p.start)
        ) x
        WHERE start <> before OR done_through <> coalesce(last, 0)""",
    "P2 a shard waits for an audit exactly while it is returned": """
        SELECT coalesce(s.shard_id, a.shard_id) FROM (SELECT * FROM fleetbatch.shards WHERE state = 'returned') s
        FULL JOIN fleetbatch.audits a ON a.shard_id = s.shard_id AND a.fence = s.fence
        WHERE s.shard_id IS NULL OR a.shard_id IS NULL""",
    "P2 what came back is complete": """
        SELECT shard_id FROM fleetbatch.shards
        WHERE state IN ('returned', 'valid', 'done') AND done_through <> row_groups""",
    "P3 a lease counts what its parts hold": f"""
        SELECT l.shard_id FROM {_LEASES} l
        LEFT JOIN (SELECT shard_id, fence, sum(rows) AS rows FROM fleetbatch.parts GROUP BY 1, 2) p
            USING (shard_id, fence)
        WHERE l.delivered_rows <> coalesce(p.rows, 0)""",
    "P3 what stands of an audited shard is credited for each row once": """
        SELECT s.shard_id FROM fleetbatch.shards s
        LEFT JOIN (SELECT l.shard_id, sum(l.delivered_rows) AS rows FROM fleetbatch.leases l
                   JOIN fleetbatch.shards v ON v.night = l.night AND v.shard_id = l.shard_id AND l.fence > v.void_fence
                   WHERE l.credit = 'credited' GROUP BY 1) c
            USING (shard_id)
        WHERE coalesce(c.rows, 0) <> CASE WHEN s.car_made AND s.state IN ('valid', 'done') THEN s.rows ELSE 0 END
          AND NOT (s.reason LIKE '%recalled%' AND c.rows = s.rows)""",  # its owners keep what they earned
    "P3 a car's score is the sum of its leases'": """
        SELECT c.car_id FROM fleetbatch.cars c
        LEFT JOIN (SELECT car_id, sum(audited_rows) AS rows, sum(disagreements) AS wrong,
                          count(*) FILTER (WHERE credit = 'refused') AS strikes
                   FROM fleetbatch.leases GROUP BY 1) l USING (car_id)
        LEFT JOIN simulation.forgotten f USING (car_id)
        WHERE (c.audited_rows, c.disagreements, c.strikes)
           <> (coalesce(l.rows, 0) + coalesce(f.rows, 0), coalesce(l.wrong, 0) + coalesce(f.wrong, 0),
               coalesce(l.strikes, 0) + coalesce(f.strikes, 0))""",
    "P4 no car that may not work holds a lease": """
        SELECT l.car_id FROM fleetbatch.open_leases l JOIN fleetbatch.cars c ON c.car_id = l.car_id
        WHERE c.revoked_at IS NOT NULL OR NOT 'compute' = ANY (c.consents)""",
    "P4 what a car may do is what its newest consents say": """
        SELECT c.car_id FROM fleetbatch.cars c
        LEFT JOIN (SELECT car_id, array_agg(purpose ORDER BY purpose) FILTER (WHERE granted) AS now
                   FROM (SELECT DISTINCT ON (car_id, purpose) * FROM fleetbatch.consents
                         ORDER BY car_id, purpose, number DESC) d GROUP BY 1) n USING (car_id)
        WHERE c.car_id <> 0 AND ARRAY(SELECT unnest(c.consents) ORDER BY 1) <> coalesce(n.now, '{}')""",
    "P4 each consent names the one before it": """
        SELECT car_id FROM (
            SELECT *, lag(sha256, 1, repeat('0', 64)) OVER w AS before, row_number() OVER w AS place
            FROM fleetbatch.consents WINDOW w AS (PARTITION BY car_id, purpose ORDER BY number)
        ) x WHERE previous <> before OR number <> place""",
    "P2 a car holds one lease": """
        SELECT car_id FROM fleetbatch.open_leases WHERE car_id <> 0 GROUP BY 1 HAVING count(*) > 1""",
    "P5 no lease is kept after its time in service": """
        SELECT l.shard_id FROM fleetbatch.open_leases l, fleetbatch.service v
        WHERE greatest(l.expires_at, v.resumed_at + l.lease_for) < v.served_at - interval '2 minutes'""",
    "P2 no lease is open under an order that is cancelled or closed": """
        SELECT l.shard_id FROM fleetbatch.open_leases l JOIN fleetbatch.orders o ON o.order_no = l.order_no
        WHERE o.state IN ('closed', 'cancelled')""",
    **{f"P3 {claim}": query for claim, query in MONEY.items()},
}

SIDE = """
    CREATE SCHEMA simulation;
    CREATE TABLE simulation.forgotten (car_id bigint PRIMARY KEY, rows bigint, wrong bigint, strikes bigint)"""
"""What cars earned in nights that were dropped."""

ARCHIVED = """
    INSERT INTO simulation.forgotten AS f VALUES (%(car_id)s, %(rows)s, %(wrong)s, %(strikes)s)
    ON CONFLICT (car_id) DO UPDATE
        SET rows = f.rows + excluded.rows, wrong = f.wrong + excluded.wrong, strikes = f.strikes + excluded.strikes"""
"""What an archive holds of one car."""


def unsound(connection: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    """Return what is wrong, by rule."""
    found = {}
    for claim, query in UNSOUND.items():
        rows = connection.execute(query.encode()).fetchall()
        if rows:
            found[claim] = rows[:5]
    return found
