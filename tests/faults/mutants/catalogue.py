"""Guards of the ledger and its gateway, each taken away. Text edits, so that nothing of them is in the product."""

# ruff: noqa: E501 # a line a mutant

from dataclasses import dataclass

QUERIES = "ledger/queries.sql"


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the one place where `find` stands in a file, or in one statement of queries.sql."""

    find: str
    replace: str
    within: str = ""
    file: str = QUERIES


@dataclass(frozen=True, slots=True)
class Mutant:
    """A product with one guard less."""

    name: str
    edits: tuple[Edit, ...]


def _sql(name: str, within: str, find: str, replace: str) -> Mutant:
    return Mutant(name, (Edit(find, replace, within),))


def _python(name: str, file: str, find: str, replace: str) -> Mutant:
    return Mutant(name, (Edit(find, replace, file=file),))


_READY = "state = CASE WHEN s.state = 'out' THEN 'ready' ELSE s.state END"
_FILED = "FROM ended e JOIN freed f ON f.shard_id = e.shard_id, clock"
_LATE = "(least(expires_at, beat_at + 2 * lease_for) <= (SELECT at FROM clock)"
_SERVED = "AND lease_for <= (SELECT clock.at - v.resumed_at FROM clock, service v)"
_STILL_LATE = "least(l.expires_at, l.beat_at + 2 * l.lease_for) <= (SELECT at FROM clock)"
_GONE = "_UNFINISHED: Final = (*_UNCOMPUTED, ShardState.RETURNED)"
_SETTLED = 'fetch(connection, "settle_given_up", {**page, "shard_id": gone})'
_AUDITED = "cloud_only = s.cloud_only OR (NOT %(passed)s AND s.attempts + 1 >= o.attempts_max)"
_WILLING = "c.revoked_at IS NULL AND 'compute' = ANY (c.consents)"

GRANTS = (
    _sql("a distrusted car is granted work", "grant", _WILLING, "'compute' = ANY (c.consents)"),
    _sql("consent is not asked for", "grant", _WILLING, "c.revoked_at IS NULL"),
    _sql("consent to a data class is not asked for", "grant",
         "AND (o.data_class = 'open' OR 'data:' || o.data_class = ANY (w.consents))", ""),
    _sql("a grant does not wait for a withdrawal under way", "grant", "FOR SHARE OF c", ""),
    Mutant("a car holds any number of leases", (
        Edit("NOT EXISTS (SELECT FROM open_leases l WHERE l.car_id = r.car_id AND l.car_id <> 0)",
             "true", "grant"),
        Edit("CREATE UNIQUE INDEX one_open_lease_a_car", "CREATE INDEX one_open_lease_a_car",
             file="ledger/migrations/0001_cell.sql"),
    )),
    _sql("a returned shard is granted again", "grant", "s.state = 'ready'", "s.state IN ('ready', 'returned')"),
    _sql("a finished shard is granted again", "grant", "s.state = 'ready'", "s.state IN ('ready', 'valid', 'done')"),
    _sql("the fence does not grow", "grant", "s.fence + 1 AS fence", "greatest(s.fence, 1) AS fence"),
    _sql("the fence grows by two", "grant", "s.fence + 1 AS fence", "s.fence + 2 AS fence"),
    _sql("work is granted after the deadline", "grant", "AND o.deadline_at > clock.at", ""),
    _sql("a paused order is worked on", "grant", "o.state = 'open'", "o.state IN ('open', 'paused')"),
    _python("a cancelled order keeps its free shards", "ledger/operating.py", "_UNCOMPUTED: Final = (ShardState.READY, ShardState.OUT)", "_UNCOMPUTED: Final = (ShardState.OUT,)"),
    _sql("the cloud lane's shards go to cars", "grant", "NOT s.cloud_only AND (", "("),
    _sql("one car refuses a night into the cloud lane", "grant", "AND (s.attempts = 0 OR NOT failed_before(s.night, s.shard_id, w.car_id))", ""),
    _sql("the next car starts again at the beginning", "grant", "AS fence, s.done_through", "AS fence, 0::smallint AS done_through"),
    _sql("a lease is over when it begins", "grant", "clock.at + lease_for, clock.at, threads", "clock.at, clock.at, threads"),
    _sql("a grant leaves the shard's fence as it was", "grant", "SET state = 'out', fence = l.fence", "SET state = 'out'"),
    _sql("a granted shard stays free", "grant", "SET state = 'out', fence", "SET fence"),
    Mutant("whoever asks again is given another's lease", (
        Edit("WHERE l.car_id = r.car_id AND l.car_id <> 0", "WHERE l.car_id <> 0", "grant_again"),
        Edit("RETURNING l.car_id", "RETURNING r.car_id", "grant_again"),
    )),
    _sql("asking again is no beat", "grant_again", "expires_at = greatest(l.expires_at, CASE", "expires_at = least(l.expires_at, CASE"),
    _sql("who asks again starts where the lease began", "grant_again", "s.done_through AS start", "l.start"),
)  # fmt: skip

MESSAGES = (
    _sql("a beat does not renew", "beat", "expires_at = greatest(l.expires_at, CASE", "expires_at = least(l.expires_at, CASE"),
    _sql("a beat shortens a lease when the clock is set back", "beat", "expires_at = greatest(l.expires_at, CASE", "expires_at = least(NULL, CASE"),
    _sql("beats alone renew a lease for ever", "beat", "progressed_at(l)", "clock.at"),
    _sql("anyone may deliver under a lease", "deliver", "AND l.fence = r.fence AND l.car_id = r.car_id", "AND l.fence = r.fence"),
    Mutant("no fence", (
        Edit("AND l.fence = r.fence AND l.car_id = r.car_id", "AND l.car_id = r.car_id", "deliver"),
        Edit("AND s.state = 'out' AND s.fence = h.fence", "AND s.state = 'out'", "deliver"),
    )),
    _sql("a part may leave a gap", "deliver", "AND s.done_through = h.start AND", "AND s.done_through <= h.start AND"),
    _sql("a part may come twice", "deliver", "AND s.done_through = h.start AND", "AND s.done_through >= h.start AND"),
    _sql("a part may lack rows", "deliver", "AND h.rows = (SELECT sum(n) FROM unnest(s.row_group_rows[h.start + 1 : h.stop]) AS n)", ""),
    _sql("a part may reach beyond the shard", "deliver", "AND h.stop <= s.row_groups", ""),
    _sql("the last part does not end the lease", "deliver", "WHERE l.shard_id = t.shard_id AND t.stop = t.row_groups", "WHERE l.shard_id = t.shard_id AND false"),
    _sql("what cars made needs no audit", "deliver", "WHEN s.car_made OR h.car_id <> 0 THEN 'returned'", "WHEN false THEN 'returned'"),
    _sql("that a car made a part is forgotten", "deliver", "car_made = s.car_made OR h.car_id <> 0", "car_made = s.car_made"),
    _sql("progress is not kept", "deliver", "SET done_through = h.stop, car_made", "SET car_made"),
    _sql("an acknowledged part is not kept", "deliver", "           signature\n    FROM taken, clock", "           signature\n    FROM taken, clock WHERE false"),
    _sql("a finished lease forgets its last part", "deliver", "delivered_rows + part_rows, 'done'", "delivered_rows, 'done'"),
    _sql("a finished lease is not filed", "deliver", "    FROM ended, clock", "    FROM ended, clock WHERE false"),
    _sql("nobody is asked to audit", "deliver", "WHERE state = 'returned'", "WHERE false"),
    _sql("another car's part is acknowledged", "deliver_again", "AND e.fence = r.fence AND e.car_id = r.car_id", "AND e.fence = r.fence"),
    _sql("whoever asks hears that a part is kept", "deliver_again", "\n    AND coalesce(l.shard_id, e.shard_id) IS NOT NULL", ""),
    _sql("a release sets the shard back", "release", "SET state = 'ready', attempts", "SET state = 'ready', done_through = 0, attempts"),
    _sql("a release strands the shard", "release", "SET state = 'ready', attempts", "SET attempts"),
    _sql("anyone may release a lease", "release", "AND l.fence = r.fence AND l.car_id = r.car_id", "AND l.fence = r.fence"),
    _sql("unusable work goes round among cars for ever", "release", "cloud_only = s.cloud_only OR (e.reason = 'refused' AND s.attempts + 1 >= o.attempts_max)", "cloud_only = s.cloud_only"),
    _sql("a released lease is not filed", "release", _FILED, f"{_FILED} WHERE false"),
    _python("a message's fence is not looked at", "ledger/leases.py", "found = key if key.fence == message.fence else NOWHERE", "found = key"),
    _python("any end of a lease is called a release", "ledger/leases.py", "released = terminal.state is LeaseState.RELEASED", "released = True"),
    _python("the same part with other bytes is acknowledged", "ledger/leases.py", 'row["stop"] == delivery.stop and row["sha256"].hex() == delivery.sha256', 'row["stop"] == delivery.stop'),
    _python("two parts of a lease share a statement", "ledger/leases.py", "turn = seen[key] = seen.get(key, -1) + 1", "turn = seen[key] = 0"),
    _python("a repeated part is told the lease's end", "ledger/leases.py", 'if row["stop"] == delivery.stop and row["sha256"]', 'if row["state"] is None and row["stop"] == delivery.stop and row["sha256"]'),
    _python("uploads are believed", "gateway/arrivals.py", 'if size != upload.size or size > size_max:\n        return "damaged"', 'if size is not None:\n        return "whole"'),
)  # fmt: skip

TIME = (
    _sql("an outage counts against leases", "sweep", _SERVED, ""),
    Mutant("leases expire before their time", (Edit(_LATE, "(true", "sweep"), Edit(_STILL_LATE, "true", "sweep"))),
    Mutant("leases expire fifteen seconds early", (
        Edit(_LATE, _LATE.replace("at FROM", "at + interval '15 seconds' FROM"), "sweep"),
        Edit(_STILL_LATE, _STILL_LATE.replace("at FROM", "at + interval '15 seconds' FROM"), "sweep"),
    )),
    _sql("nothing ever expires", "sweep", _LATE, "(false"),
    _python("sweeps never begin again at the first page", "ledger/leases.py", 'if self._swept_pages < service["pages"] else 0', "if True else 0"),
    _sql("a sweep strands shards", "sweep", f"SET {_READY}", "SET state = s.state"),
    _sql("a sweep sets shards back", "sweep", f"SET {_READY}", f"SET done_through = 0, {_READY}"),
    _sql("a sweep frees under any fence", "sweep", f"SET {_READY}", f"SET fence = s.fence + 1, {_READY}"),
    _sql("an expired lease is not filed", "sweep", _FILED, f"{_FILED} WHERE false"),
    _sql("outages are not noticed", "serve", "v.served_at < clock.at - %(outage_after)s OR", ""),
)  # fmt: skip

ABOVE = (
    _sql("a withdrawal is written and not applied", "consent_apply", "ELSE array_remove(consents, %(purpose)s::text) END", "ELSE consents END"),
    _sql("consents are not chained", "consent_add", "coalesce((SELECT sha256 FROM last), repeat('0', 64)) AS previous", "repeat('0', 64) AS previous"),
    _python("a withdrawal leaves the open lease", "ledger/cars.py", "if not change.granted and change.purpose != PURPOSE_TELEMETRY:", "if False:"),
    _python("distrust leaves the open lease", "ledger/cars.py", 'revoke_leases(connection, "leases_of_car", {"car_id": car_id}, f"the car is revoked: {reason}")', "pass"),
    _sql("distrust is not written", "revoke_car", "SET revoked_at = fleetbatch.now()", "SET revoked_at = NULL"),
    _sql("a revoked lease strands its shard", "revoke", f"SET {_READY}", "SET state = s.state"),
    _sql("a revoked lease is not filed", "revoke", _FILED, f"{_FILED} WHERE false"),
    _python("giving up takes what is valid, too", "ledger/operating.py", _GONE, "_UNFINISHED: Final = (*_UNCOMPUTED, ShardState.RETURNED, ShardState.VALID)"),
    _python("giving up forgets what waits for its audit", "ledger/operating.py", _GONE, "_UNFINISHED: Final = _UNCOMPUTED"),
    _python("a recall leaves what is valid", "ledger/operating.py", "_UNPUBLISHED: Final = (*_UNFINISHED, ShardState.VALID)", "_UNPUBLISHED: Final = _UNFINISHED"),
    _python("what was merged before a recall is published after it", "steps/closing.py", "if parts_token(key, *_valid_and_missing(ledgers, key)) != token:", "if False:"),
    _sql("what is being published may be recalled", "close_order", "SET state = 'closed'", "SET state = state"),
    Mutant("publishing overtakes a recall that was interrupted", (
        Edit('        self.finish_giving_up(where["order_no"])\n        [row]', "        [row]", file="ledger/operating.py"),
        Edit(" AND giving_up = '{}'", "", "close_order"),
    )),
    _sql("a cancelled order may be resumed", "set_order_state", "state = CASE WHEN state IN ('open', 'paused') THEN %(state)s", "state = CASE WHEN state <> 'closed' THEN %(state)s"),
    _sql("refused work goes back to a cancelled order", "record_audit", "WHEN s.reason IS NULL THEN 'ready' ELSE 'missing' END", "ELSE 'ready' END"),
    _sql("giving up leaves audits behind", "drop_audits", "WHERE shard_id = ANY (%(shard_id)s::bigint[])", "WHERE false"),
    _python("giving up leaves leases open", "ledger/operating.py", 'revoke_leases(connection, "leases_of_page", page, page["reason"])', "0"),
    _sql("the missing is published as done", "publish_shards", "state = 'valid'", "state IN ('valid', 'missing')"),
    _sql("refused parts are published", "valid_parts", "AND p.fence > s.void_fence", ""),
    _sql("parts of given-up shards are published", "valid_parts", "s.state IN ('valid', 'done')", "s.state IN ('valid', 'done', 'missing')"),
    _sql("nobody computes what cars may not", "cloud_shards", "AND cloud_only AND state = 'ready'", "AND cloud_only AND state = 'out'"),
)  # fmt: skip

AUDITS = (
    _sql("two auditors claim one shard", "claim_audits", "(a.claimed_until IS NULL OR a.claimed_until <= clock.at) AND", ""),
    _sql("a claim is not kept", "claim_audits", "SET claimed_until = clock.at + %(claim)s", "SET claimed_until = NULL"),
    _sql("a claim never ends", "claim_audits", "OR a.claimed_until <= clock.at", ""),
    _sql("a verdict counts for any fence", "record_audit", "WHERE shard_id = %(shard_id)s AND fence = %(fence)s RETURNING *", "WHERE shard_id = %(shard_id)s RETURNING *"),
    _sql("a judged shard waits on", "record_audit", "DELETE FROM audits WHERE shard_id = %(shard_id)s AND fence = %(fence)s RETURNING *", "SELECT * FROM audits WHERE shard_id = %(shard_id)s AND fence = %(fence)s"),
    _sql("a refused shard keeps its progress", "record_audit", "done_through = CASE WHEN %(passed)s THEN s.done_through ELSE 0 END", "done_through = s.done_through"),
    _sql("refused parts are not void", "record_audit", "void_fence = CASE WHEN %(passed)s THEN s.void_fence ELSE s.fence END", "void_fence = s.void_fence"),
    _sql("refused work is valid", "record_audit", "SET state = CASE WHEN %(passed)s THEN", "SET state = CASE WHEN true THEN"),
    _sql("refused work is credited", "record_audit", "WHEN f.disagreements > 0 AND NOT %(passed)s THEN 'refused'", "WHEN f.disagreements > 0 AND NOT %(passed)s THEN 'credited'"),
    _sql("honest work in a spoiled shard is not credited", "record_audit", "WHEN %(passed)s OR f.looked_at THEN", "WHEN %(passed)s THEN"),
    _sql("what nobody looked at is credited in a spoiled shard", "record_audit", "WHEN %(passed)s OR f.looked_at THEN 'credited' ELSE 'voided'", "ELSE 'credited'"),
    _sql("voided work is credited with what replaced it", "record_audit", "AND l.fence > b.void_fence AND l.delivered_rows > 0", "AND l.delivered_rows > 0"),
    _sql("work that never passes goes round among cars", "record_audit", _AUDITED, "cloud_only = s.cloud_only"),
    _sql("a car's strikes are not counted", "record_audit", "strikes = c.strikes + x.strikes", "strikes = c.strikes"),
)  # fmt: skip

BOOK = (
    _sql("refused work is paid", "settle", "CASE l.credit WHEN 'credited' THEN", "CASE WHEN true THEN"),
    _python("nobody is paid", "ledger/audits.py", 'fetch(connection, "settle", of)', "pass"),
    _python("giving up leaves credits in escrow", "ledger/operating.py", _SETTLED, "pass"),
    _sql("the whole shard is paid to each who did a part", "escrow", "s.work_units * l.delivered_rows / s.rows * t.micro_per_unit", "s.work_units * t.micro_per_unit"),
    _sql("claimed energy is paid without bound", "escrow", "least(l.delivered_wh, s.work_units * l.delivered_rows / s.rows * t.wh_per_unit_max)", "l.delivered_wh"),
    _sql("any tariff is paid", "escrow", "least(coalesce(f.micro_per_kwh, t.micro_per_kwh), t.micro_per_kwh_max)", "coalesce(f.micro_per_kwh, t.micro_per_kwh)"),
    _sql("a tariff counts for what was granted before it", "escrow", "car_id = l.car_id AND from_at < l.granted_at", "car_id = l.car_id"),
    _sql("terms count for what was granted before them", "escrow", "SELECT * FROM terms WHERE from_at < l.granted_at", "SELECT * FROM terms"),
    _sql("the oldest tariff is paid for ever", "escrow", "AND from_at < l.granted_at ORDER BY from_at DESC, number DESC", "AND from_at < l.granted_at ORDER BY from_at, number"),
    _sql("trusted machines are paid", "escrow", "WHERE l.delivered_rows > 0 AND l.car_id <> 0", "WHERE l.delivered_rows > 0"),
    _sql("what has no verdict goes back", "settle", " AND l.credit <> 'none'", ""),
    _sql("a part of what was delivered is not put aside", "escrow", "l.fence > s.void_fence", "l.fence = s.fence"),
)  # fmt: skip

ROUNDS = (
    _sql("the planner's lock is anyone's", "lock_planner", "WHERE p.holder = excluded.holder OR p.locked_until <= fleetbatch.now()", "WHERE true"),
    _sql("the epoch does not grow", "lock_planner", "epoch = p.epoch + (p.holder <> excluded.holder)::integer", "epoch = p.epoch"),
    _sql("a planner without the lock writes", "open_round", "AND p.epoch = %(epoch)s", ""),
)  # fmt: skip

MUTANTS = (*GRANTS, *MESSAGES, *TIME, *ABOVE, *AUDITS, *BOOK, *ROUNDS)
