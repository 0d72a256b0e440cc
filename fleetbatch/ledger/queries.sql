-- The whole contract with PostgreSQL: every statement that the ledger sends, each under its name.
--
-- Rules. A statement is one transaction unless the name of a method says otherwise, and may be sent twice with the same
-- effect as once. Batches arrive sorted by key. Row locks are taken in the order cars, leases, shards, and by key within
-- each, so that two lanes never wait for each other in a circle. The instant is read once, in `clock`.

-- == work =============================================================================================================

-- name: grant
-- The car is checked (known, not distrusted, willing, without an open lease) before the shard is reserved, and the shard
-- is locked before the lease is written, so that neither a busy car nor a lost race strands a shard. Whoever failed at a
-- shard does not get it again, or one car alone could leave a whole night to the cloud lane; of a shard at which nobody
-- failed, nearly every one, that is not looked up.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
request AS MATERIALIZED (
    SELECT * FROM unnest(
        %(car_id)s::bigint[], %(shard_id)s::bigint[], %(lease_for)s::interval[], %(threads)s::smallint[],
        %(power_w)s::real[], %(hardware_class)s::text[], %(provider)s::text[], %(runner_version)s::text[]
    ) AS r (car_id, shard_id, lease_for, threads, power_w, hardware_class, provider, runner_version)
),
willing AS MATERIALIZED (
    SELECT r.*, c.consents
    FROM request r JOIN cars c ON c.car_id = r.car_id
    WHERE c.revoked_at IS NULL AND 'compute' = ANY (c.consents)
      AND NOT EXISTS (SELECT FROM open_leases l WHERE l.car_id = r.car_id AND l.car_id <> 0)
    ORDER BY r.car_id
    FOR SHARE OF c
),
free AS MATERIALIZED (
    SELECT w.*, s.night, s.order_no, s.fence + 1 AS fence, s.done_through
    FROM clock, willing w
    JOIN orders o ON o.state = 'open' AND o.giving_up = '{}'
    JOIN shards s ON s.night = o.night AND s.shard_id = w.shard_id AND s.order_no = o.order_no
    WHERE s.state = 'ready' AND o.deadline_at > clock.at
      AND (w.car_id = 0
           OR NOT s.cloud_only AND (o.data_class = 'open' OR 'data:' || o.data_class = ANY (w.consents))
              AND (s.attempts = 0 OR NOT failed_before(s.night, s.shard_id, w.car_id)))
    ORDER BY w.shard_id
    FOR UPDATE OF s SKIP LOCKED
),
lease AS (
    INSERT INTO open_leases (night, shard_id, fence, order_no, car_id, start, row_groups_done, lease_for, granted_at,
                             expires_at, beat_at, threads, power_w, hardware_class, provider, runner_version)
    SELECT night, shard_id, fence, order_no, car_id, done_through, done_through, lease_for, clock.at,
           clock.at + lease_for, clock.at, threads, power_w, hardware_class, provider, runner_version
    FROM free, clock
    ORDER BY car_id, shard_id
    ON CONFLICT DO NOTHING
    RETURNING *
)
UPDATE shards s SET state = 'out', fence = l.fence
FROM lease l JOIN orders o ON o.order_no = l.order_no
WHERE s.night = l.night AND s.shard_id = l.shard_id
RETURNING l.car_id, l.shard_id, l.fence, l.start, l.expires_at, s.row_groups, s.rows, s.size_bytes, s.sha256,
          o.night, o.name, o.generation;

-- name: grant_again
-- The open leases of cars that ask although they hold one: their answer was lost, or they restarted. It counts as a beat,
-- and renews as a beat does.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at)
UPDATE open_leases l
SET beat_at = clock.at,
    expires_at = greatest(l.expires_at, CASE
        WHEN clock.at + l.lease_for <= l.granted_at + %(stalled_after)s::interval THEN clock.at + l.lease_for
        ELSE least(clock.at + l.lease_for, progressed_at(l) + %(stalled_after)s::interval) END)
FROM clock, unnest(%(car_id)s::bigint[]) AS r (car_id), shards s, orders o
WHERE l.car_id = r.car_id AND l.car_id <> 0
  AND s.night = l.night AND s.shard_id = l.shard_id AND o.order_no = l.order_no
RETURNING l.car_id, l.shard_id, l.fence, s.done_through AS start, l.expires_at, s.row_groups, s.rows, s.size_bytes,
          s.sha256, o.night, o.name, o.generation;

-- name: grant_refused
-- Shards are found by their whole key, night by night; of orders that were over a day ago nothing is said any more.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
known AS MATERIALIZED (SELECT o.* FROM orders o, clock WHERE o.deadline_at > clock.at - interval '1 day')
SELECT r.car_id, r.shard_id, CASE
    WHEN c.car_id IS NULL THEN 'the car is not enrolled'
    WHEN c.revoked_at IS NOT NULL THEN 'the car is revoked: ' || c.revoked_reason
    WHEN NOT 'compute' = ANY (c.consents) THEN 'the owner has not consented to compute'
    WHEN s.shard_id IS NULL THEN 'the shard is not known'
    WHEN s.order_state <> 'open' THEN 'the order is ' || s.order_state
    WHEN s.giving_up <> '{}' THEN 'the order is given up: ' || s.giving_up_reason
    WHEN s.deadline_at <= clock.at THEN 'the order''s deadline has passed'
    WHEN s.state <> 'ready' THEN 'the shard is ' || s.state
    WHEN s.cloud_only AND r.car_id <> 0 THEN 'the shard is left to the cloud lane'
    WHEN s.data_class <> 'open' AND r.car_id <> 0 AND NOT 'data:' || s.data_class = ANY (c.consents)
        THEN 'the owner has not consented to ' || s.data_class || ' data'
    WHEN s.attempts > 0 AND r.car_id <> 0 AND failed_before(s.night, s.shard_id, r.car_id)
        THEN 'the car has failed at the shard'
    ELSE 'another car was faster' END AS reason
FROM clock CROSS JOIN unnest(%(car_id)s::bigint[], %(shard_id)s::bigint[]) AS r (car_id, shard_id)
LEFT JOIN cars c ON c.car_id = r.car_id
LEFT JOIN LATERAL (
    SELECT f.*, k.state AS order_state, k.giving_up, k.giving_up_reason, k.deadline_at, k.data_class
    FROM known k CROSS JOIN LATERAL (
        SELECT night, shard_id, state, cloud_only, attempts FROM shards
        WHERE night = k.night AND shard_id = r.shard_id AND order_no = k.order_no
        OFFSET 0 -- nights first, whatever the statistics say
    ) f
) s ON true;

-- name: beat
-- Beats alone renew a lease for `stalled_after` of service after its grant or its last part: whoever says for ever that it
-- computes, and delivers nothing, would keep the shard until it is missing in the morning. Young leases, nearly all of
-- them, are renewed without a look at their parts.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at)
UPDATE open_leases l
SET beat_at = clock.at,
    expires_at = greatest(l.expires_at, CASE
        WHEN clock.at + l.lease_for <= l.granted_at + %(stalled_after)s::interval THEN clock.at + l.lease_for
        ELSE least(clock.at + l.lease_for, progressed_at(l) + %(stalled_after)s::interval) END),
    row_groups_done = greatest(l.row_groups_done, r.row_groups_done),
    energy_wh = greatest(l.energy_wh, r.energy_wh), busy_s = greatest(l.busy_s, r.busy_s)
FROM clock, unnest(
    %(shard_id)s::bigint[], %(fence)s::integer[], %(car_id)s::bigint[], %(row_groups_done)s::smallint[],
    %(energy_wh)s::double precision[], %(busy_s)s::double precision[]
) AS r (shard_id, fence, car_id, row_groups_done, energy_wh, busy_s)
WHERE l.shard_id = r.shard_id AND l.fence = r.fence AND l.car_id = r.car_id
RETURNING l.shard_id, l.fence, l.car_id, l.expires_at;

-- name: deliver
-- A part counts when the lease is open and the part continues the shard's prefix with all rows of its row groups. The
-- last part ends the lease; a shard that only trusted machines made is valid at once, any other waits for its audit.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
request AS MATERIALIZED (
    SELECT * FROM unnest(
        %(shard_id)s::bigint[], %(fence)s::integer[], %(car_id)s::bigint[], %(start)s::smallint[], %(stop)s::smallint[],
        %(rows)s::integer[], %(size_bytes)s::bigint[], %(sha256)s::bytea[], %(energy_wh)s::double precision[],
        %(energy_source)s::text[], %(busy_s)s::double precision[], %(signature)s::text[]
    ) AS r (shard_id, fence, car_id, start, stop, rows, size_bytes, sha256, energy_wh, energy_source, busy_s, signature)
),
held AS MATERIALIZED (
    SELECT r.*, l.night, l.order_no
    FROM request r JOIN open_leases l ON l.shard_id = r.shard_id AND l.fence = r.fence AND l.car_id = r.car_id
    ORDER BY r.shard_id
    FOR UPDATE OF l
),
taken AS (
    UPDATE shards s
    SET done_through = h.stop, car_made = s.car_made OR h.car_id <> 0,
        state = CASE WHEN h.stop < s.row_groups THEN s.state
                     WHEN s.car_made OR h.car_id <> 0 THEN 'returned'
                     ELSE 'valid' END::shard_state
    FROM held h
    WHERE s.night = h.night AND s.shard_id = h.shard_id AND s.state = 'out' AND s.fence = h.fence
      AND s.done_through = h.start AND h.start < h.stop AND h.stop <= s.row_groups
      AND h.rows = (SELECT sum(n) FROM unnest(s.row_group_rows[h.start + 1 : h.stop]) AS n)
    RETURNING h.*, s.row_groups, s.state
),
kept AS (
    INSERT INTO parts (night, shard_id, fence, start, stop, rows, size_bytes, energy_wh, busy_s, confirmed_at, sha256,
                       energy_source, signature)
    SELECT night, shard_id, fence, start, stop, rows, size_bytes, energy_wh, busy_s, clock.at, sha256, energy_source,
           signature
    FROM taken, clock
),
counted AS (
    UPDATE open_leases l
    SET expires_at = greatest(l.expires_at, clock.at + l.lease_for), beat_at = clock.at,
        row_groups_done = greatest(l.row_groups_done, t.stop),
        delivered_wh = l.delivered_wh + t.energy_wh, delivered_busy_s = l.delivered_busy_s + t.busy_s,
        delivered_rows = l.delivered_rows + t.rows
    FROM taken t, clock
    WHERE l.shard_id = t.shard_id AND t.stop < t.row_groups
),
ended AS (
    DELETE FROM open_leases l USING taken t
    WHERE l.shard_id = t.shard_id AND t.stop = t.row_groups
    RETURNING l.*, t.stop, t.energy_wh AS part_wh, t.busy_s AS part_busy_s, t.rows AS part_rows
),
filed AS (
    INSERT INTO leases
    SELECT night, shard_id, fence, order_no, car_id, start, stop, lease_for, granted_at, expires_at, clock.at, threads,
           power_w, hardware_class, provider, runner_version, greatest(energy_wh, delivered_wh + part_wh),
           greatest(busy_s, delivered_busy_s + part_busy_s), delivered_wh + part_wh, delivered_busy_s + part_busy_s,
           delivered_rows + part_rows, 'done', 'the shard is complete', '', clock.at, stop
    FROM ended, clock
),
queued AS (
    INSERT INTO audits (shard_id, night, order_no, fence, queued_at)
    SELECT shard_id, night, order_no, fence, clock.at FROM taken, clock WHERE state = 'returned'
)
SELECT shard_id, fence, car_id, stop AS done_through, stop = row_groups AS complete FROM taken;

-- name: deliver_again
-- What to say of parts that were not taken now: kept before, the lease is over, or the part does not fit.
SELECT r.n, p.stop, p.sha256, s.row_groups, s.done_through, e.state, e.reason, l.shard_id IS NOT NULL AS is_open
FROM unnest(%(n)s::integer[], %(night)s::date[], %(shard_id)s::bigint[], %(fence)s::integer[], %(car_id)s::bigint[],
            %(start)s::smallint[]) AS r (n, night, shard_id, fence, car_id, start)
LEFT JOIN open_leases l ON l.shard_id = r.shard_id AND l.fence = r.fence AND l.car_id = r.car_id
LEFT JOIN leases e ON e.night = r.night AND e.shard_id = r.shard_id AND e.fence = r.fence AND e.car_id = r.car_id
LEFT JOIN shards s ON s.night = r.night AND s.shard_id = r.shard_id
LEFT JOIN parts p ON p.night = r.night AND p.shard_id = r.shard_id AND p.fence = r.fence AND p.start = r.start
    AND coalesce(l.shard_id, e.shard_id) IS NOT NULL;

-- name: release
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
held AS MATERIALIZED (
    SELECT r.*
    FROM unnest(
        %(shard_id)s::bigint[], %(fence)s::integer[], %(car_id)s::bigint[], %(reason)s::text[], %(detail)s::text[],
        %(energy_wh)s::double precision[], %(busy_s)s::double precision[]
    ) AS r (shard_id, fence, car_id, reason, detail, said_wh, said_busy_s)
    JOIN open_leases l ON l.shard_id = r.shard_id AND l.fence = r.fence AND l.car_id = r.car_id
    ORDER BY r.shard_id
    FOR UPDATE OF l
),
ended AS (
    DELETE FROM open_leases l USING held h WHERE l.shard_id = h.shard_id
    RETURNING l.*, h.reason, h.detail, h.said_wh, h.said_busy_s
),
freed AS (
    UPDATE shards s
    SET state = 'ready', attempts = s.attempts + (e.reason = 'refused')::integer,
        cloud_only = s.cloud_only OR (e.reason = 'refused' AND s.attempts + 1 >= o.attempts_max)
    FROM ended e JOIN orders o ON o.order_no = e.order_no
    WHERE s.night = e.night AND s.shard_id = e.shard_id AND s.state = 'out' AND s.fence = e.fence
    RETURNING s.shard_id, s.done_through
),
filed AS (
    INSERT INTO leases
    SELECT night, e.shard_id, fence, order_no, car_id, start, row_groups_done, lease_for, granted_at, expires_at,
           clock.at, threads, power_w, hardware_class, provider, runner_version,
           greatest(energy_wh, delivered_wh, said_wh), greatest(busy_s, delivered_busy_s, said_busy_s), delivered_wh,
           delivered_busy_s, delivered_rows, 'released', reason, detail, clock.at, f.done_through
    FROM ended e JOIN freed f ON f.shard_id = e.shard_id, clock
)
SELECT e.shard_id, e.fence, e.car_id, f.done_through FROM ended e JOIN freed f ON f.shard_id = e.shard_id;

-- name: revoke
-- End open leases from above: consent withdrawn, car distrusted, order cancelled or given up.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
held AS MATERIALIZED (
    SELECT l.shard_id FROM open_leases l
    JOIN unnest(%(shard_id)s::bigint[], %(fence)s::integer[]) AS r (shard_id, fence)
        ON l.shard_id = r.shard_id AND l.fence = r.fence
    ORDER BY l.shard_id
    FOR UPDATE OF l
),
ended AS (
    DELETE FROM open_leases l USING held h WHERE l.shard_id = h.shard_id RETURNING l.*
),
freed AS (
    UPDATE shards s SET state = CASE WHEN s.state = 'out' THEN 'ready' ELSE s.state END
    FROM ended e
    WHERE s.night = e.night AND s.shard_id = e.shard_id AND s.fence = e.fence
    RETURNING s.shard_id, s.done_through
),
filed AS (
    INSERT INTO leases
    SELECT e.*, 'revoked', %(reason)s::text, '', clock.at, f.done_through
    FROM ended e JOIN freed f ON f.shard_id = e.shard_id, clock
)
SELECT shard_id, fence FROM ended;

-- name: leases_of_car
SELECT night, shard_id, fence FROM open_leases WHERE car_id = %(car_id)s AND car_id <> 0;

-- name: leases_of_page
SELECT l.shard_id, l.fence
FROM shards s CROSS JOIN LATERAL (
    SELECT shard_id, fence FROM open_leases WHERE shard_id = s.shard_id
    OFFSET 0 -- shards first, however many leases are open
) l
WHERE s.night = %(night)s AND s.shard_id BETWEEN %(first)s AND %(last)s AND s.order_no = %(order_no)s
  AND s.state = 'out';

-- name: serve
-- Whoever answers beats says so; a gap longer than `outage_after` means that nobody did, and starts a new term of grace.
-- So does a clock that was set back by more: what it said before tells nothing about now.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at)
UPDATE service v
SET served_at = CASE WHEN v.served_at > clock.at + %(outage_after)s THEN clock.at ELSE greatest(v.served_at, clock.at) END,
    resumed_at = CASE WHEN v.served_at < clock.at - %(outage_after)s OR v.served_at > clock.at + %(outage_after)s
                      THEN clock.at ELSE v.resumed_at END
FROM clock
RETURNING v.resumed_at = clock.at AS outage,
          pg_relation_size('open_leases') / current_setting('block_size')::bigint AS pages;

-- name: sweep
-- Leases whose time has passed, by the database's clock and in time of service, in some pages of the table: an index on
-- an instant that every beat moves would cost more than reading all of it bit by bit. Locked ones are in use: the next
-- sweep. A clock that was set back does not hold a lease for as long: it is over, too, two lengths after its last beat,
-- or when that beat lies a whole length ahead.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
late AS MATERIALIZED (
    SELECT shard_id FROM open_leases
    WHERE ctid >= %(first)s::tid AND ctid < %(stop)s::tid
      AND (least(expires_at, beat_at + 2 * lease_for) <= (SELECT at FROM clock)
           OR beat_at > (SELECT at FROM clock) + lease_for)
      AND lease_for <= (SELECT clock.at - v.resumed_at FROM clock, service v)
    LIMIT %(batch)s
),
doomed AS MATERIALIZED (
    SELECT l.shard_id
    FROM late JOIN open_leases l ON l.shard_id = late.shard_id
    WHERE least(l.expires_at, l.beat_at + 2 * l.lease_for) <= (SELECT at FROM clock)
       OR l.beat_at > (SELECT at FROM clock) + l.lease_for
    ORDER BY l.shard_id
    FOR UPDATE OF l SKIP LOCKED
),
ended AS (
    DELETE FROM open_leases l USING doomed d WHERE l.shard_id = d.shard_id RETURNING l.*
),
freed AS (
    UPDATE shards s SET state = CASE WHEN s.state = 'out' THEN 'ready' ELSE s.state END
    FROM ended e
    WHERE s.night = e.night AND s.shard_id = e.shard_id AND s.fence = e.fence
    RETURNING s.shard_id, s.done_through
),
filed AS (
    INSERT INTO leases
    SELECT e.*, 'expired', 'it was not renewed in time', '', clock.at, f.done_through
    FROM ended e JOIN freed f ON f.shard_id = e.shard_id, clock
)
SELECT night, shard_id, fence FROM ended ORDER BY shard_id;

-- name: ended
SELECT r.n, e.state, e.reason, e.done_through
FROM unnest(%(n)s::integer[], %(night)s::date[], %(shard_id)s::bigint[], %(fence)s::integer[], %(car_id)s::bigint[])
    AS r (n, night, shard_id, fence, car_id)
JOIN leases e ON e.night = r.night AND e.shard_id = r.shard_id AND e.fence = r.fence AND e.car_id = r.car_id;

-- name: archived_nights
-- Of these nights those that were here once: what became of each of their leases lies in the archive.
SELECT DISTINCT night FROM orders
WHERE night = ANY (%(night)s::date[]) AND to_regclass('fleetbatch.leases' || to_char(night, '_YYYYMMDD')) IS NULL;

-- name: leases
SELECT r.n, x.*, coalesce(x.left_at, s.done_through) AS done_through, s.row_groups, s.row_group_rows,
       o.night AS order_night, o.name, o.generation, c.owner_id, c.public_key_pem,
       c.revoked_at IS NOT NULL AS revoked, 'telemetry' = ANY (c.consents) AS telemetry, c.tokens_void_at
FROM unnest(%(n)s::integer[], %(night)s::date[], %(shard_id)s::bigint[], %(fence)s::integer[])
    AS r (n, night, shard_id, fence)
CROSS JOIN LATERAL (
    SELECT night, shard_id, fence, order_no, car_id, start, NULL::smallint AS left_at, 'granted' AS state,
           '' AS reason, 'none'::credit AS credit, granted_at, expires_at, NULL::timestamptz AS ended_at, energy_wh
    FROM open_leases WHERE shard_id = r.shard_id AND fence = r.fence
    UNION ALL
    SELECT night, shard_id, fence, order_no, car_id, start, done_through, state::text, reason, credit, granted_at,
           NULL, ended_at, energy_wh
    FROM leases WHERE night = r.night AND shard_id = r.shard_id AND fence = r.fence
    LIMIT 1
) x
JOIN shards s ON s.night = x.night AND s.shard_id = x.shard_id
JOIN orders o ON o.order_no = x.order_no
JOIN cars c ON c.car_id = x.car_id;

-- == cars and owners ==================================================================================================

-- name: enrol
INSERT INTO cars (car_id, owner_id, public_key_pem, region, enrolled_at)
SELECT car_id, owner_id, public_key_pem, region, fleetbatch.now()
FROM unnest(%(car_id)s::bigint[], %(owner_id)s::bigint[], %(public_key_pem)s::text[], %(region)s::text[])
    AS r (car_id, owner_id, public_key_pem, region)
WHERE car_id <> 0
ORDER BY car_id
ON CONFLICT (car_id) DO NOTHING;

-- name: car_keys
SELECT car_id, owner_id, public_key_pem, revoked_at IS NOT NULL AS revoked, 'telemetry' = ANY (consents) AS telemetry,
       tokens_void_at
FROM cars WHERE car_id = ANY (%(car_id)s::bigint[]) AND car_id <> 0;

-- name: revoke_car
-- Tokens are voided as in `void_tokens`.
WITH revoked AS (
    UPDATE cars
    SET revoked_at = fleetbatch.now(), revoked_reason = %(reason)s,
        tokens_void_at = greatest(fleetbatch.now(), tokens_void_at + interval '1 second')
    WHERE car_id = %(car_id)s AND car_id <> 0 AND revoked_at IS NULL
    RETURNING car_id
)
SELECT pg_notify('fleetbatch_round', '') FROM revoked;

-- name: consent_lock
-- Withdrawal and grant meet here: a grant holds this row in share while it commits.
SELECT car_id FROM cars WHERE car_id = %(car_id)s AND car_id <> 0 FOR NO KEY UPDATE;

-- name: consent_standing
-- Asked once the car is locked. A car is full until a day after the last but `decisions_a_day` of its records; of each chain
-- its newest end is looked at, however long it is.
SELECT %(purpose)s::text = ANY (c.consents) AS agreed, k.*,
       coalesce(full_until.at - fleetbatch.now(), interval '0') AS full_for
FROM cars c
LEFT JOIN LATERAL (
    SELECT purpose, granted, notice_version, notice_sha256, number, at, previous, sha256 FROM consents
    WHERE car_id = c.car_id AND purpose = %(purpose)s ORDER BY number DESC LIMIT 1
) k ON true
LEFT JOIN LATERAL (
    SELECT newest.at + interval '1 day' AS at
    FROM unnest(%(purposes)s::text[]) AS p (purpose) CROSS JOIN LATERAL (
        SELECT at FROM consents WHERE car_id = c.car_id AND purpose = p.purpose
        ORDER BY number DESC LIMIT %(decisions_a_day)s
    ) newest
    ORDER BY newest.at DESC LIMIT 1 OFFSET %(decisions_a_day)s - 1
) full_until ON true
WHERE c.car_id = %(car_id)s;

-- name: consent_add
WITH last AS (
    SELECT number, sha256 FROM consents WHERE car_id = %(car_id)s AND purpose = %(purpose)s ORDER BY number DESC LIMIT 1
),
record AS (
    SELECT coalesce((SELECT number FROM last), 0) + 1 AS number, fleetbatch.now() AS at,
           coalesce((SELECT sha256 FROM last), repeat('0', 64)) AS previous
)
INSERT INTO consents (car_id, purpose, number, granted, notice_version, notice_sha256, at, previous, sha256)
SELECT %(car_id)s, %(purpose)s, number, %(granted)s, %(notice_version)s, %(notice_sha256)s, at, previous,
       encode(sha256(convert_to(concat_ws(
           E'\n', 'fleetbatch-consent-1', previous, %(car_id)s::bigint, %(purpose)s::text, number, %(granted)s::boolean,
           %(notice_version)s::text, %(notice_sha256)s::text,
           to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')), 'UTF8')), 'hex')
FROM record
RETURNING number, at, previous, sha256;

-- name: consent_apply
UPDATE cars
SET consents = CASE WHEN %(granted)s THEN array_append(array_remove(consents, %(purpose)s::text), %(purpose)s::text)
                    ELSE array_remove(consents, %(purpose)s::text) END
WHERE car_id = %(car_id)s;

-- name: consents
SELECT car_id, purpose, granted, notice_version, notice_sha256, number, at, previous, sha256
FROM consents WHERE car_id = %(car_id)s ORDER BY purpose, number;

-- name: consented
-- Of the next cars: what each may be used for, and every record that this must follow from, as of one instant.
SELECT c.car_id, c.consents, k.purpose, k.granted, k.notice_version, k.notice_sha256, k.number, k.at, k.previous, k.sha256
FROM (
    SELECT car_id, consents FROM cars WHERE car_id > %(after)s AND car_id <> 0 ORDER BY car_id LIMIT %(limit)s
) c
LEFT JOIN LATERAL (
    SELECT * FROM consents WHERE car_id = c.car_id
    OFFSET 0 -- cars first, however many decisions there are
) k ON true
ORDER BY c.car_id, k.purpose, k.number;

-- name: data_classes
-- Of orders that are open, above `open`: those that need a consent of their own.
SELECT DISTINCT data_class FROM orders WHERE state IN ('open', 'paused') AND data_class <> 'open' ORDER BY data_class;

-- name: cars
SELECT c.car_id, c.owner_id, 'compute' = ANY (c.consents) AS consent, c.revoked_at IS NOT NULL AS revoked,
       (c.audited_rows - c.disagreements + 1)::double precision / (c.audited_rows + 1) AS reputation,
       c.strike_weight * fleetbatch.faded(c.struck_at, clock.at, %(strike_half_life)s) AS strikes,
       coalesce(l.shard_id, -1) AS running_shard, coalesce(l.fence, 0) AS fence,
       coalesce(l.night - DATE '2000-01-01', 0) AS night,
       coalesce(s.done_through, 0::smallint) AS running_done_through,
       coalesce(extract(epoch FROM l.beat_at) * 1000000, -1)::bigint AS last_beat_us,
       (SELECT coalesce(sum(1 << (d.n - 1)::integer), 0)::integer
        FROM unnest(%(data_classes)s::text[]) WITH ORDINALITY AS d (name, n)
        WHERE 'data:' || d.name = ANY (c.consents)) AS data_bits
FROM (SELECT fleetbatch.now() AS at) clock CROSS JOIN cars c
LEFT JOIN open_leases l ON l.car_id = c.car_id AND l.car_id <> 0
LEFT JOIN shards s ON s.night = l.night AND s.shard_id = l.shard_id
WHERE c.car_id <> 0
ORDER BY c.car_id;

-- name: credited
-- What audits have let stand since a night, in units of work; whose it is follows from the car.
SELECT l.car_id, sum(s.work_units * l.delivered_rows / s.rows) AS units
FROM leases l JOIN shards s ON s.night = l.night AND s.shard_id = l.shard_id
WHERE l.night >= %(since)s AND l.credit = 'credited' AND l.car_id <> 0
GROUP BY l.car_id
ORDER BY l.car_id;

-- == orders and shards ================================================================================================

-- name: open_order
INSERT INTO orders (night, name, generation, frozen, workload, model_sha256, data_class, priority, attempts_max,
                    frozen_at, deadline_at, secret_wrapped, opened_at)
VALUES (%(night)s, %(name)s, %(generation)s, %(frozen)s, %(workload)s, %(model_sha256)s, %(data_class)s, %(priority)s,
        %(attempts_max)s, %(frozen_at)s, %(deadline_at)s, %(secret_wrapped)s, fleetbatch.now())
ON CONFLICT (night, name, generation) DO NOTHING;

-- name: orders
SELECT order_no, night, name, generation, state, frozen, model_sha256, frozen_at, deadline_at, secret_wrapped,
       opened_at, published_at
FROM orders
WHERE (%(night)s::date IS NULL OR (night, name, generation) = (%(night)s::date, %(name)s::text, %(generation)s::integer))
  AND (NOT %(only_open)s OR state IN ('open', 'paused'))
ORDER BY order_no;

-- name: newest_generation
SELECT max(generation) AS generation FROM orders WHERE night = %(night)s AND name = %(name)s;

-- name: ensure_night
SELECT fleetbatch.ensure_night(%(night)s);

-- name: set_order_state
-- Cancelled and closed are for good. With the state it is kept what must be given up because of it.
UPDATE orders
SET state = CASE WHEN state IN ('open', 'paused') THEN %(state)s::order_state ELSE state END,
    state_reason = CASE WHEN state IN ('open', 'paused') THEN %(reason)s::text ELSE state_reason END,
    giving_up = CASE WHEN state = 'closed' THEN giving_up ELSE ARRAY(
        SELECT DISTINCT unnest(giving_up || %(gone)s::shard_state[]) ORDER BY 1) END,
    giving_up_reason = CASE WHEN state = 'closed' OR %(gone)s::shard_state[] = '{}' THEN giving_up_reason
                            ELSE %(reason)s END
WHERE order_no = %(order_no)s
RETURNING state::text, published_at;

-- name: begin_give_up
-- What is begun keeps its reason: a shard that was recalled is not missing because of the deadline.
UPDATE orders
SET giving_up = ARRAY(SELECT DISTINCT unnest(giving_up || %(gone)s::shard_state[]) ORDER BY 1),
    giving_up_reason = CASE WHEN giving_up = '{}' THEN %(reason)s ELSE giving_up_reason END
WHERE order_no = %(order_no)s;

-- name: giving_up
-- What is given up and not finished, of one order or of all.
SELECT order_no, night, giving_up::text[] AS gone, giving_up_reason AS reason
FROM orders
WHERE giving_up <> '{}' AND (%(order_no)s::integer IS NULL OR order_no = %(order_no)s::integer)
ORDER BY order_no;

-- name: end_give_up
-- Unless more is to be given up since then.
UPDATE orders SET giving_up = '{}' WHERE order_no = %(order_no)s AND giving_up = %(gone)s::shard_state[];

-- name: page_of_shards
-- Of any order: a page is as long as its statement takes, whatever is in it.
SELECT max(shard_id) AS last, count(*) AS shards
FROM (
    SELECT shard_id FROM shards WHERE night = %(night)s AND shard_id >= %(first)s ORDER BY shard_id LIMIT %(batch)s
) p;

-- name: order_version
-- Whatever is done to an order writes its row, and whoever writes a row leaves another xmin.
SELECT xmin::text AS version FROM orders WHERE order_no = %(order_no)s;

-- name: close_order
-- Waits for who is turning the order, and then looks at what that has written.
UPDATE orders SET state = 'closed'
WHERE order_no = %(order_no)s AND xmin::text = %(version)s AND giving_up = '{}'
RETURNING order_no;

-- name: publish_shards
UPDATE shards SET state = 'done'
WHERE night = %(night)s AND order_no = %(order_no)s AND state = 'valid'
  AND EXISTS (SELECT FROM orders o WHERE o.order_no = %(order_no)s AND o.state = 'closed');

-- name: publish_order
UPDATE orders SET published_at = coalesce(published_at, fleetbatch.now())
WHERE order_no = %(order_no)s AND state = 'closed'
RETURNING order_no;

-- name: register
INSERT INTO shards (night, shard_id, order_no, row_groups, rows, work_units, size_bytes, sha256, row_group_rows)
SELECT %(night)s, shard_id, %(order_no)s, row_groups, rows, work_units, size_bytes, sha256, row_group_rows::integer[]
FROM unnest(
    %(shard_id)s::bigint[], %(row_groups)s::smallint[], %(rows)s::integer[], %(work_units)s::double precision[],
    %(size_bytes)s::bigint[], %(sha256)s::bytea[], %(row_group_rows)s::text[]
) AS r (shard_id, row_groups, rows, work_units, size_bytes, sha256, row_group_rows)
ORDER BY shard_id
ON CONFLICT DO NOTHING;

-- name: analyze_shards
SELECT fleetbatch.analyze_shards(%(night)s);

-- name: counts
SELECT state, count(*) FROM shards WHERE night = %(night)s AND order_no = %(order_no)s GROUP BY state;

-- name: open_shards
SELECT s.shard_id, s.order_no, s.row_groups, s.done_through, s.rows, s.work_units, s.size_bytes,
       coalesce(l.car_id, -1) AS held_by_car, coalesce(extract(epoch FROM l.granted_at) * 1000000, -1)::bigint AS held_us
FROM orders o
JOIN shards s ON s.night = o.night AND s.order_no = o.order_no
LEFT JOIN open_leases l ON l.shard_id = s.shard_id
WHERE o.state = 'open' AND s.state IN ('ready', 'out') AND NOT s.cloud_only
ORDER BY s.shard_id;

-- name: cloud_shards
WITH live AS MATERIALIZED (SELECT * FROM orders WHERE state = 'open' AND deadline_at > fleetbatch.now())
SELECT s.shard_id, o.night, o.name, o.generation, s.work_units, s.cloud_only
FROM live o CROSS JOIN LATERAL (
    SELECT shard_id, work_units, cloud_only FROM shards
    WHERE night = o.night AND order_no = o.order_no AND cloud_only AND state = 'ready'
    UNION ALL
    SELECT shard_id, work_units, cloud_only FROM shards
    WHERE o.deadline_at <= %(deadline_before)s::timestamptz
      AND night = o.night AND order_no = o.order_no AND NOT cloud_only AND state = 'ready'
) s
ORDER BY o.priority, o.deadline_at, s.shard_id
LIMIT %(limit)s;

-- name: start_rates
-- A new cell begins with its first order, or now while it has none: nothing can have ended. A clock that was set back has
-- added up a future that is still to come: it is begun anew. The row's lock makes a second dispatcher wait, and then see
-- that it was done.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
behind AS MATERIALIZED (
    SELECT a.added_through > clock.at AS set_back
    FROM rates_added a, clock
    WHERE a.added_through > clock.at OR a.added_through < clock.at - %(over)s::interval
    FOR UPDATE OF a
),
started AS (
    UPDATE rates_added SET added_through = greatest(clock.at - %(over)s::interval, coalesce((
        SELECT min(opened_at) FROM orders, clock
        WHERE deadline_at > clock.at - %(over)s::interval - interval '1 day'), clock.at))
    FROM behind, clock
)
DELETE FROM voices USING behind WHERE behind.set_back;

-- name: add_up_rates
-- No row: all is added up that has settled. Nights first, whatever the statistics say: those whose orders were not over a
-- day before. Of a day that has its voices, who has a larger lot than all of them is not kept.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
span AS MATERIALIZED (
    SELECT a.added_through AS since,
           least(a.added_through + %(batch)s::interval, clock.at - %(settled_after)s::interval) AS until
    FROM rates_added a, clock
    WHERE a.added_through < clock.at - %(settled_after)s::interval
    FOR UPDATE OF a
),
said AS MATERIALIZED (
    SELECT (l.ended_at AT TIME ZONE 'UTC')::date AS day, o.workload, l.hardware_class, l.car_id,
           max(l.provider) AS provider, sum(l.delivered_rows) AS rows,
           sum(busy_s(l.car_id, l.delivered_busy_s, l.granted_at, l.ended_at)) AS busy_s, count(*) AS leases
    FROM span CROSS JOIN LATERAL (
        SELECT DISTINCT night FROM orders
        WHERE opened_at <= span.until AND deadline_at > span.since - interval '1 day'
    ) n CROSS JOIN LATERAL (
        SELECT * FROM leases WHERE night = n.night AND ended_at > span.since AND ended_at <= span.until OFFSET 0
    ) l JOIN orders o ON o.order_no = l.order_no
    WHERE l.delivered_rows > 0 AND (l.car_id = 0 OR l.hardware_class <> %(cloud_class)s)
    GROUP BY 1, 2, 3, 4
),
full_day AS MATERIALIZED (
    SELECT g.*, f.lot AS last
    FROM (SELECT DISTINCT day, workload, hardware_class FROM said) g CROSS JOIN LATERAL (
        SELECT lot FROM voices
        WHERE day = g.day AND workload = g.workload AND hardware_class = g.hardware_class
        ORDER BY lot OFFSET %(voices)s LIMIT 1
    ) f
),
drawn AS (
    SELECT s.*, row_number() OVER (PARTITION BY day, workload, hardware_class ORDER BY lot, car_id) AS n
    FROM (SELECT s.*, lot(s.car_id, a.seed) AS lot FROM said s, rates_added a) s
    LEFT JOIN full_day f USING (day, workload, hardware_class)
    WHERE f.last IS NULL OR lot <= f.last
),
kept AS (
    INSERT INTO voices AS v (day, workload, hardware_class, lot, car_id, provider, rows, busy_s)
    SELECT day, workload, hardware_class, lot, car_id, provider, rows, busy_s
    FROM drawn
    WHERE n <= %(voices)s + 1
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (day, workload, hardware_class, lot, car_id) DO UPDATE
    SET rows = v.rows + excluded.rows, busy_s = v.busy_s + excluded.busy_s,
        provider = greatest(v.provider, excluded.provider)
)
UPDATE rates_added SET added_through = span.until FROM span
RETURNING coalesce((SELECT sum(leases) FROM said), 0)::bigint AS leases;

-- name: forget_rates
-- Days that are over, and whom others with smaller lots have outnumbered. One more than speak stays: its lot says how
-- large their share is.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
full_day AS MATERIALIZED (
    SELECT day, workload, hardware_class FROM voices GROUP BY 1, 2, 3 HAVING count(*) > %(voices)s + 1
),
last AS MATERIALIZED (
    SELECT f.*, (SELECT lot FROM voices v
                 WHERE v.day = f.day AND v.workload = f.workload AND v.hardware_class = f.hardware_class
                 ORDER BY lot OFFSET %(voices)s LIMIT 1) AS lot
    FROM full_day f
),
outnumbered AS (
    DELETE FROM voices v USING last f
    WHERE v.day = f.day AND v.workload = f.workload AND v.hardware_class = f.hardware_class AND v.lot > f.lot
)
DELETE FROM voices USING clock WHERE day < ((clock.at - %(over)s::interval) AT TIME ZONE 'UTC')::date;

-- name: rates
-- How long a car computed is its own word: it counts up to the time for which it held the lease, a car has one voice in
-- a class whatever it delivered and with whatever providers, and the seconds a row are what the middle car says. Whoever
-- was struck since is not asked. Nobody but a trusted machine, whose word stands, speaks for the trusted machines. What is
-- not added up yet is read beside what is: open leases, and those that ended just now.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
added AS MATERIALIZED (
    SELECT a.seed, greatest(a.added_through, clock.at - %(over)s::interval) AS through FROM rates_added a, clock
),
known AS MATERIALIZED (
    SELECT v.* FROM voices v, clock WHERE v.day >= ((clock.at - %(over)s::interval) AT TIME ZONE 'UTC')::date
),
last AS MATERIALIZED (
    SELECT workload, hardware_class, lot
    FROM (SELECT workload, hardware_class, lot,
                 row_number() OVER (PARTITION BY workload, hardware_class ORDER BY lot) AS n
          FROM (SELECT DISTINCT workload, hardware_class, lot FROM known) k) k
    WHERE n = %(voices)s + 1
),
recent AS (
    SELECT order_no, car_id, hardware_class, provider, delivered_rows AS rows,
           busy_s(car_id, delivered_busy_s, granted_at, clock.at) AS busy_s
    FROM open_leases, clock WHERE delivered_rows > 0
    UNION ALL
    SELECT l.order_no, l.car_id, l.hardware_class, l.provider, l.delivered_rows,
           busy_s(l.car_id, l.delivered_busy_s, l.granted_at, l.ended_at)
    FROM added CROSS JOIN LATERAL (
        SELECT DISTINCT night FROM orders WHERE deadline_at > added.through - interval '1 day'
    ) n CROSS JOIN LATERAL (
        SELECT * FROM leases WHERE night = n.night AND ended_at > added.through OFFSET 0
    ) l
    WHERE l.delivered_rows > 0
),
heard AS (
    SELECT workload, hardware_class, lot, car_id, provider, rows, busy_s FROM known
    UNION ALL
    SELECT o.workload, r.hardware_class, lot(r.car_id, added.seed), r.car_id, r.provider, r.rows, r.busy_s
    FROM added CROSS JOIN recent r JOIN orders o ON o.order_no = r.order_no
    LEFT JOIN last ON last.workload = o.workload AND last.hardware_class = r.hardware_class
    WHERE (r.car_id = 0 OR r.hardware_class <> %(cloud_class)s)
      AND (last.lot IS NULL OR lot(r.car_id, added.seed) <= last.lot)
),
speak AS MATERIALIZED (
    SELECT workload, hardware_class, lot, car_id, max(provider) AS provider, sum(rows)::double precision AS rows,
           sum(busy_s) AS busy_s, row_number() OVER (PARTITION BY workload, hardware_class ORDER BY lot, car_id) AS n
    FROM heard
    GROUP BY workload, hardware_class, lot, car_id
),
asked AS (
    SELECT v.*, share_below(b.lot) AS share
    FROM speak v
    LEFT JOIN speak b
        ON b.workload = v.workload AND b.hardware_class = v.hardware_class AND b.n = %(voices)s + 1
    WHERE v.n <= %(voices)s
)
SELECT workload, hardware_class, provider, count(*) AS cars, (sum(rows) / max(share))::bigint AS rows,
       sum(rows) / max(share) * percentile_disc(0.5) WITHIN GROUP (ORDER BY busy_s / rows) AS busy_s
FROM asked, clock
WHERE NOT coalesce((SELECT struck_at > clock.at - %(over)s::interval FROM cars c WHERE c.car_id = asked.car_id), false)
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3;

-- name: give_up
-- What waits for its audit, and is not among what is given up, keeps the first reason for the case that it is refused. A
-- shard that is out is given up after its lease has ended: no lease is ever open on a shard that is not out.
UPDATE shards
SET state = CASE WHEN state = ANY (%(gone)s::shard_state[]) THEN 'missing' ELSE state END, reason = %(reason)s
WHERE night = %(night)s AND shard_id BETWEEN %(first)s AND %(last)s AND order_no = %(order_no)s AND state <> 'out'
  AND (state = ANY (%(gone)s::shard_state[]) OR state = 'returned' AND reason IS NULL)
RETURNING shard_id, state::text;

-- name: left_in_page
-- A grant that was under way may have been first: its shard is out by now.
SELECT EXISTS (
    SELECT FROM shards
    WHERE night = %(night)s AND shard_id BETWEEN %(first)s AND %(last)s AND order_no = %(order_no)s
      AND state = ANY (%(gone)s::shard_state[])
) AS something;

-- name: drop_audits
DELETE FROM audits WHERE shard_id = ANY (%(shard_id)s::bigint[]) AND order_no = %(order_no)s;

-- name: missing_shards
-- A car that refused a shard said why: the last of them is part of the reason, in one short line, for it is a car's word.
SELECT s.shard_id, coalesce(s.reason, '') || coalesce('; refused by a car: ' || r.why, '') AS reason
FROM shards s
LEFT JOIN LATERAL (
    SELECT nullif(left(btrim(regexp_replace(l.detail, '[[:space:][:cntrl:]]+', ' ', 'g')), 200), '') AS why
    FROM leases l
    WHERE l.night = s.night AND l.shard_id = s.shard_id AND l.state = 'released' AND l.reason = 'refused'
    ORDER BY l.fence DESC LIMIT 1
) r ON s.attempts > 0
WHERE s.night = %(night)s AND s.order_no = %(order_no)s AND s.state = 'missing' ORDER BY s.shard_id;

-- name: valid_parts
-- What a car says that its parts have drawn counts, in proportion, up to what may be drawn while it held the lease.
SELECT p.shard_id, p.start AS row_group_start, p.stop AS row_group_stop, p.fence, p.rows, p.size_bytes,
       encode(p.sha256, 'hex') AS sha256, l.hardware_class, l.provider, l.runner_version,
       p.energy_wh
       * CASE WHEN l.car_id = 0 THEN 1 ELSE least(1, h.most_wh / nullif(l.delivered_wh, 0)) END AS energy_wh,
       p.energy_source, p.confirmed_at, l.car_id, l.credit AS audit_state, l.audited_items
FROM shards s
JOIN parts p ON p.night = s.night AND p.shard_id = s.shard_id AND p.fence > s.void_fence
JOIN leases l ON l.night = p.night AND l.shard_id = p.shard_id AND l.fence = p.fence
CROSS JOIN LATERAL (
    SELECT greatest(extract(epoch FROM l.ended_at - l.granted_at)::double precision, 0) * %(power_w_max)s / 3600
        AS most_wh
) h
WHERE s.night = %(night)s AND s.order_no = %(order_no)s AND s.state IN ('valid', 'done')
ORDER BY p.shard_id, p.start;

-- name: night_stats
-- What a car says of its time and energy counts up to what can be in the time for which it held the lease.
WITH said AS (
    SELECT shard_id, fence, car_id, start, 'granted' AS state, 'none' AS credit, 0 AS audited_rows, 0 AS disagreements,
           greatest(energy_wh, delivered_wh) AS energy_wh, delivered_wh AS standing_wh, busy_s, delivered_rows,
           extract(epoch FROM fleetbatch.now() - granted_at)::double precision AS held_s
    FROM open_leases WHERE order_no = %(order_no)s
    UNION ALL
    SELECT l.shard_id, l.fence, l.car_id, l.start, l.state::text, l.credit::text, l.audited_rows, l.disagreements,
           greatest(l.energy_wh, l.delivered_wh), CASE WHEN l.fence > s.void_fence THEN l.delivered_wh ELSE 0 END,
           l.busy_s, l.delivered_rows, extract(epoch FROM l.ended_at - l.granted_at)::double precision
    FROM leases l JOIN shards s ON s.night = l.night AND s.shard_id = l.shard_id
    WHERE l.night = %(night)s AND l.order_no = %(order_no)s
),
all_leases AS (
    SELECT shard_id, car_id, start, state, credit, audited_rows, disagreements, delivered_rows,
           least(energy_wh, most_s * %(power_w_max)s / 3600) AS energy_wh,
           least(standing_wh, most_s * %(power_w_max)s / 3600) AS standing_wh, least(busy_s, most_s) AS busy_s
    FROM said CROSS JOIN LATERAL (SELECT CASE WHEN car_id = 0 THEN 'Infinity' ELSE greatest(held_s, 0) END AS most_s) h
)
SELECT (SELECT count(*) FROM shards WHERE night = %(night)s AND order_no = %(order_no)s) AS shards,
       count(*) AS leases,
       count(DISTINCT car_id) FILTER (WHERE car_id <> 0) AS cars,
       (SELECT count(*) FROM parts p JOIN shards s ON s.night = p.night AND s.shard_id = p.shard_id
        WHERE s.night = %(night)s AND s.order_no = %(order_no)s) AS parts,
       count(DISTINCT shard_id) FILTER (WHERE state = 'done' AND start > 0) AS resumed_shards,
       count(*) FILTER (WHERE state = 'released') AS released,
       count(*) FILTER (WHERE state = 'expired') AS expired,
       count(*) FILTER (WHERE state = 'revoked') AS revoked,
       count(*) FILTER (WHERE credit = 'refused') AS refused,
       coalesce(sum(audited_rows), 0)::bigint AS audited_rows,
       coalesce(sum(disagreements), 0)::bigint AS disagreements,
       coalesce(sum(energy_wh), 0) AS energy_wh,
       coalesce(sum(energy_wh - standing_wh), 0) AS wasted_wh,
       coalesce(sum(busy_s), 0) AS busy_s,
       count(DISTINCT shard_id) FILTER (WHERE car_id = 0 AND delivered_rows > 0) AS cloud_shards
FROM all_leases;

-- == rounds ===========================================================================================================

-- name: lock_planner
-- Free, run out, or ours: a new holder gets the next epoch, the old holder keeps its own.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at)
INSERT INTO planner_locks AS p (cell, epoch, holder, locked_until)
SELECT %(cell)s, 1, %(holder)s, clock.at + %(lock_for)s FROM clock
ON CONFLICT (cell) DO UPDATE
    SET epoch = p.epoch + (p.holder <> excluded.holder)::integer, holder = excluded.holder,
        locked_until = excluded.locked_until
    WHERE p.holder = excluded.holder OR p.locked_until <= fleetbatch.now()
RETURNING epoch;

-- name: unlock_planner
UPDATE planner_locks SET locked_until = '-infinity', holder = '', epoch = epoch + 1
WHERE cell = %(cell)s AND epoch = %(epoch)s;

-- name: open_round
-- No row: someone else has the lock. The lock's row stays locked until the round's offers have committed.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
held AS (
    UPDATE planner_locks p SET locked_until = greatest(p.locked_until, clock.at + %(lock_for)s)
    FROM clock WHERE p.cell = %(cell)s AND p.epoch = %(epoch)s
    RETURNING p.cell, p.epoch
)
INSERT INTO rounds (cell, epoch, day, at, offers, stats)
SELECT held.cell, held.epoch, (clock.at AT TIME ZONE 'UTC')::date, clock.at, %(offers)s, %(stats)s FROM held, clock
RETURNING round_id, day;

-- name: ensure_day
SELECT fleetbatch.ensure_partition('offers', %(day)s);

-- name: copy_offers
COPY offers (day, round_id, car_id, shard_id, seq) FROM STDIN (FORMAT binary);

-- name: notify_round
SELECT pg_notify('fleetbatch_round', %(round_id)s::text);

-- name: latest_round
SELECT max(round_id) AS round_id FROM rounds;

-- name: round
SELECT round_id, day, offers FROM rounds WHERE round_id = %(round_id)s;

-- name: offers
SELECT car_id, shard_id, seq FROM offers WHERE day = %(day)s AND round_id = %(round_id)s;

-- == audits ===========================================================================================================

-- name: claim_audits
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
waiting AS MATERIALIZED (
    SELECT a.shard_id
    FROM audits a JOIN orders o ON o.order_no = a.order_no, clock
    WHERE (a.claimed_until IS NULL OR a.claimed_until <= clock.at) AND o.state <> 'closed'
    ORDER BY a.queued_at, a.shard_id
    LIMIT %(limit)s
    FOR UPDATE OF a SKIP LOCKED
)
UPDATE audits a SET claimed_until = clock.at + %(claim)s
FROM waiting w, clock, orders o, shards s
WHERE a.shard_id = w.shard_id AND o.order_no = a.order_no AND s.night = a.night AND s.shard_id = a.shard_id
RETURNING a.shard_id, a.fence, a.claimed_until, o.night, o.name, o.generation, s.row_groups, s.row_group_rows, s.rows,
          s.size_bytes, encode(s.sha256, 'hex') AS sha256, s.attempts, s.void_fence;

-- name: audit_parts
SELECT p.shard_id, p.start, p.stop, p.rows, p.size_bytes, encode(p.sha256, 'hex') AS sha256, p.fence, l.car_id,
       c.owner_id, l.hardware_class, l.provider, l.runner_version
FROM unnest(%(night)s::date[], %(shard_id)s::bigint[], %(void_fence)s::integer[]) AS r (night, shard_id, void_fence)
JOIN parts p ON p.night = r.night AND p.shard_id = r.shard_id AND p.fence > r.void_fence
JOIN leases l ON l.night = p.night AND l.shard_id = p.shard_id AND l.fence = p.fence
JOIN cars c ON c.car_id = l.car_id
ORDER BY p.shard_id, p.start;

-- name: record_audit
-- The verdict counts once: for the fence under which the shard came back, while it still waits.
-- A refusal voids the parts of all its leases, and the shard is computed anew from row group 0. Whether a lease is paid is
-- a matter of its own rows only, or honest owners would work for nothing whenever a stranger spoils the rest of their
-- shard: an audit chooses rows of every car's lease, so a clean finding is as much evidence here as in a shard that passes.
-- A lease without a finding is not paid: nobody can say that its work was done. Whoever spoils a shard of an accomplice to
-- have the same row groups paid again does so `attempts_max` times at most, refused and with a strike each time. (A part
-- before the first spoiled row group could be kept; parts are void by fence, and a refusal is too rare to add a range.)
-- Cars come last and by number: a grant holds cars in that order, and passes over shards that are locked.
WITH clock AS MATERIALIZED (SELECT fleetbatch.now() AS at),
judged AS (
    DELETE FROM audits WHERE shard_id = %(shard_id)s AND fence = %(fence)s RETURNING *
),
before AS MATERIALIZED (
    SELECT s.night, s.shard_id, s.void_fence
    FROM judged j JOIN shards s ON s.night = j.night AND s.shard_id = j.shard_id AND s.fence = j.fence
    WHERE s.state = 'returned'
),
moved AS (
    UPDATE shards s
    SET state = CASE WHEN %(passed)s THEN 'valid' WHEN s.reason IS NULL THEN 'ready' ELSE 'missing' END::shard_state,
        done_through = CASE WHEN %(passed)s THEN s.done_through ELSE 0 END,
        attempts = s.attempts + (NOT %(passed)s)::integer,
        cloud_only = s.cloud_only OR (NOT %(passed)s AND s.attempts + 1 >= o.attempts_max),
        car_made = s.car_made AND %(passed)s,
        void_fence = CASE WHEN %(passed)s THEN s.void_fence ELSE s.fence END
    FROM before b, orders o
    WHERE s.night = b.night AND s.shard_id = b.shard_id AND s.state = 'returned' AND o.order_no = s.order_no
    RETURNING s.night, s.shard_id
),
found AS MATERIALIZED (
    SELECT l.night, l.shard_id, l.fence, l.car_id, f.fence IS NOT NULL AS looked_at,
           coalesce(f.audited_rows, 0) AS audited_rows, coalesce(f.disagreements, 0) AS disagreements,
           coalesce(f.audited_items, '[]') AS audited_items
    FROM moved m
    JOIN before b ON b.shard_id = m.shard_id
    JOIN leases l ON l.night = m.night AND l.shard_id = m.shard_id AND l.fence > b.void_fence AND l.delivered_rows > 0
    LEFT JOIN unnest(%(fences)s::integer[], %(audited_rows)s::integer[], %(disagreements)s::integer[],
                     %(audited_items)s::jsonb[]) AS f (fence, audited_rows, disagreements, audited_items)
        ON f.fence = l.fence
),
scored AS (
    UPDATE leases l
    SET audited_rows = f.audited_rows, disagreements = f.disagreements, audit_detail = %(detail)s,
        audited_items = ARRAY(SELECT jsonb_array_elements_text(f.audited_items)),
        credit = CASE WHEN f.disagreements > 0 AND NOT %(passed)s THEN 'refused'
                      WHEN %(passed)s OR f.looked_at THEN 'credited' ELSE 'voided' END::credit
    FROM found f
    WHERE l.night = f.night AND l.shard_id = f.shard_id AND l.fence = f.fence
),
met AS MATERIALIZED (
    SELECT c.car_id, x.audited_rows, x.disagreements, x.strikes
    FROM (
        SELECT car_id, sum(audited_rows) AS audited_rows, sum(disagreements) AS disagreements,
               count(*) FILTER (WHERE disagreements > 0 AND NOT %(passed)s) AS strikes
        FROM found GROUP BY car_id
    ) x JOIN cars c ON c.car_id = x.car_id
    ORDER BY c.car_id
    FOR NO KEY UPDATE OF c
),
struck AS (
    UPDATE cars c
    SET audited_rows = c.audited_rows + x.audited_rows, disagreements = c.disagreements + x.disagreements,
        strikes = c.strikes + x.strikes, struck_at = CASE WHEN x.strikes > 0 THEN clock.at ELSE c.struck_at END,
        strike_weight = CASE WHEN x.strikes > 0
            THEN c.strike_weight * fleetbatch.faded(c.struck_at, clock.at, %(strike_half_life)s) + x.strikes
            ELSE c.strike_weight END
    FROM clock, met x
    WHERE c.car_id = x.car_id
)
SELECT count(*) AS counted FROM moved;

-- == the cell at a glance =============================================================================================

-- name: glance_shards
SELECT o.night, o.name, o.generation, o.state AS order_state, o.deadline_at, s.state, count(s.shard_id) AS shards
FROM orders o LEFT JOIN shards s ON s.night = o.night AND s.order_no = o.order_no
WHERE o.state IN ('open', 'paused')
GROUP BY o.order_no, s.state
ORDER BY o.order_no;

-- name: glance_publishing
-- Closed for good, and not marked as published: somebody publishes it now, or was interrupted.
SELECT night, name, generation FROM orders WHERE state = 'closed' AND published_at IS NULL ORDER BY order_no;

-- name: glance_leases
SELECT width_bucket(extract(epoch FROM fleetbatch.now() - granted_at)::double precision, %(ages_s)s::double precision[]) AS age,
       count(*) AS leases, count(*) FILTER (WHERE car_id = 0) AS cloud
FROM open_leases GROUP BY 1;

-- name: glance_cars
SELECT count(*) AS enrolled, count(*) FILTER (WHERE revoked_at IS NOT NULL) AS revoked,
       count(*) FILTER (WHERE revoked_at IS NULL AND 'compute' = ANY (consents)) AS willing
FROM cars WHERE car_id <> 0;

-- name: glance_round
SELECT round_id, offers, extract(epoch FROM fleetbatch.now() - at)::double precision AS age_s
FROM rounds ORDER BY round_id DESC LIMIT 1;

-- name: glance_locks
-- Partitions and their indexes as the catalogue has them: to open them, as pg_partition_tree does, would lock them all.
WITH kept AS MATERIALIZED (
    SELECT inhparent, inhrelid FROM pg_inherits
    WHERE inhparent IN ('shards'::regclass, 'leases'::regclass, 'parts'::regclass)
)
SELECT (SELECT count(*) FROM kept WHERE inhparent = 'shards'::regclass) AS nights,
       (SELECT count(*) FROM kept) + (SELECT count(*) FROM pg_index JOIN kept ON indrelid = inhrelid) AS relations,
       (SELECT numbackends FROM pg_stat_database WHERE datname = current_database()) AS connections,
       current_setting('max_locks_per_transaction')::integer AS per_transaction,
       current_setting('max_connections')::integer + current_setting('max_prepared_transactions')::integer AS transactions;

-- == the past ===========================================================================================================

-- name: closed_nights
-- An order that is closed and not published is being published: its publish task may have to be run again.
SELECT night FROM orders
GROUP BY night
HAVING bool_and(CASE state WHEN 'closed' THEN coalesce(published_at, 'infinity') WHEN 'cancelled' THEN deadline_at
                ELSE 'infinity' END < %(before)s)
   AND to_regclass('fleetbatch.shards' || to_char(night, '_YYYYMMDD')) IS NOT NULL
ORDER BY night;

-- name: keys_to_forget
SELECT order_no, night, name, generation, state, frozen, model_sha256, frozen_at, deadline_at, secret_wrapped,
       opened_at, published_at
FROM orders
WHERE CASE state WHEN 'closed' THEN coalesce(published_at, 'infinity') WHEN 'cancelled' THEN deadline_at
      ELSE 'infinity' END < %(before)s AND secret_wrapped <> ''
ORDER BY order_no;

-- name: forget_key
UPDATE orders SET secret_wrapped = ''
WHERE night = %(night)s::date AND name = %(name)s AND generation = %(generation)s AND state IN ('closed', 'cancelled');

-- name: close_audits
-- Whoever has just given a verdict is waited for; whoever comes later is told that it does not count.
DELETE FROM audits
WHERE night = %(night)s
  AND NOT EXISTS (SELECT FROM orders WHERE night = %(night)s AND state NOT IN ('closed', 'cancelled'));

-- name: archive_shards
SELECT * FROM shards WHERE night = %(night)s ORDER BY shard_id;

-- name: archive_leases
-- By car, so that an owner's statement finds a car's leases in a few pages of the file, with what it tells of each beside.
SELECT l.*, s.size_bytes * (l.done_through - l.start) / s.row_groups AS bytes_read,
       coalesce(p.size_bytes, 0)::bigint AS bytes_sent
FROM leases l
JOIN shards s ON s.night = l.night AND s.shard_id = l.shard_id
LEFT JOIN (
    SELECT shard_id, fence, sum(size_bytes) AS size_bytes FROM parts WHERE night = %(night)s GROUP BY shard_id, fence
) p ON p.shard_id = l.shard_id AND p.fence = l.fence
WHERE l.night = %(night)s
ORDER BY l.car_id, l.shard_id, l.fence;

-- name: archive_parts
SELECT * FROM parts WHERE night = %(night)s ORDER BY shard_id, fence, start;

-- name: drop_night
SELECT fleetbatch.drop_night(%(night)s, %(shards)s, %(leases)s, %(parts)s) AS dropped;

-- name: rounds_before
-- The newest round stays: gateways hold it.
SELECT max(round_id) AS round_id FROM rounds
WHERE at < %(before)s AND round_id < (SELECT max(round_id) FROM rounds);

-- name: forget_rounds
DELETE FROM rounds
WHERE round_id = ANY (ARRAY(SELECT round_id FROM rounds WHERE round_id <= %(through)s ORDER BY round_id LIMIT %(batch)s))
RETURNING round_id;

-- name: drop_offers
SELECT fleetbatch.drop_offers((%(before)s::timestamptz AT TIME ZONE 'UTC')::date) AS dropped;

-- == the book =========================================================================================================

-- name: escrow
-- What cars delivered to returned shards goes into escrow before anybody looks at it. Amounts are computed in the order
-- of operations that `fleetbatch.owners` recomputes them in, so that both find the same millionth. Terms and tariffs
-- count for leases granted after their instant, not at it: what is added now cannot change what was put aside.
INSERT INTO book (night, shard_id, fence, step, at, car_id, from_account, to_account, work_micro, energy_micro)
SELECT l.night, l.shard_id, l.fence, 'escrow', fleetbatch.now(), l.car_id, 'fleet', 'escrow',
       floor(s.work_units * l.delivered_rows / s.rows * t.micro_per_unit)::bigint,
       floor(least(l.delivered_wh, s.work_units * l.delivered_rows / s.rows * t.wh_per_unit_max)
             * least(coalesce(f.micro_per_kwh, t.micro_per_kwh), t.micro_per_kwh_max) / 1000.0)::bigint
FROM unnest(%(night)s::date[], %(shard_id)s::bigint[]) AS r (night, shard_id)
JOIN shards s ON s.night = r.night AND s.shard_id = r.shard_id AND s.state = 'returned'
JOIN leases l ON l.night = s.night AND l.shard_id = s.shard_id AND l.fence > s.void_fence
CROSS JOIN LATERAL (
    SELECT * FROM terms WHERE from_at < l.granted_at ORDER BY from_at DESC, number DESC LIMIT 1
) t
LEFT JOIN LATERAL (
    SELECT * FROM tariffs WHERE car_id = l.car_id AND from_at < l.granted_at ORDER BY from_at DESC, number DESC LIMIT 1
) f ON true
WHERE l.delivered_rows > 0 AND l.car_id <> 0
ORDER BY l.night, l.shard_id, l.fence
ON CONFLICT DO NOTHING;

-- name: settle
-- A verdict is there: escrow goes to the owner, or back.
INSERT INTO book (night, shard_id, fence, step, at, car_id, from_account, to_account, work_micro, energy_micro)
SELECT e.night, e.shard_id, e.fence, 'settle', fleetbatch.now(), e.car_id, 'escrow',
       CASE l.credit WHEN 'credited' THEN 'owner:' || lpad(to_hex(c.owner_id), 16, '0') ELSE 'fleet' END,
       e.work_micro, e.energy_micro
FROM book e
JOIN leases l ON l.night = e.night AND l.shard_id = e.shard_id AND l.fence = e.fence AND l.credit <> 'none'
JOIN cars c ON c.car_id = e.car_id
WHERE e.night = %(night)s AND e.shard_id = %(shard_id)s AND e.step = 'escrow'
ORDER BY e.fence
ON CONFLICT DO NOTHING;

-- name: settle_given_up
-- No verdict will come: these shards were given up.
INSERT INTO book (night, shard_id, fence, step, at, car_id, from_account, to_account, work_micro, energy_micro)
SELECT night, shard_id, fence, 'settle', fleetbatch.now(), car_id, 'escrow', 'fleet', work_micro, energy_micro
FROM book
WHERE night = %(night)s AND shard_id = ANY (%(shard_id)s::bigint[]) AND step = 'escrow'
ORDER BY shard_id, fence
ON CONFLICT DO NOTHING;

-- name: settle_unaudited
-- No verdict will come: the whole night is over.
INSERT INTO book (night, shard_id, fence, step, at, car_id, from_account, to_account, work_micro, energy_micro)
SELECT e.night, e.shard_id, e.fence, 'settle', fleetbatch.now(), e.car_id, 'escrow', 'fleet', e.work_micro, e.energy_micro
FROM shards s JOIN book e ON e.night = s.night AND e.shard_id = s.shard_id AND e.step = 'escrow'
WHERE s.night = %(night)s AND s.state NOT IN ('valid', 'done')
ORDER BY e.shard_id, e.fence
ON CONFLICT DO NOTHING;

-- name: book
SELECT night, shard_id, fence, step, at, car_id, from_account, to_account, work_micro, energy_micro
FROM book
WHERE night = %(night)s AND shard_id BETWEEN %(first)s AND %(last)s
ORDER BY night, shard_id, fence, step;

-- name: booked_rows
-- Of a night: moves, and the leases that are not archived.
SELECT (SELECT count(*) FROM book WHERE night = %(night)s) + (SELECT count(*) FROM leases WHERE night = %(night)s) AS rows;

-- name: nights
-- Those of which the book alone tells are none that it should tell of.
SELECT night FROM orders UNION SELECT night FROM book ORDER BY night;

-- name: balances
SELECT account, sum(amount)::bigint AS micro
FROM (
    SELECT to_account AS account, work_micro + energy_micro AS amount FROM book
    UNION ALL
    SELECT from_account, -(work_micro + energy_micro) FROM book
) legs
GROUP BY account ORDER BY account;

-- name: owner_balance
-- By the index of what was settled: owners are paid by no other step, and the book is kept for ever.
SELECT coalesce(sum(work_micro + energy_micro), 0)::bigint AS micro
FROM book WHERE step = 'settle' AND to_account = %(account)s;

-- name: delivered_leases
-- What a night's book follows from.
SELECT l.night, l.shard_id, l.fence, l.car_id, c.owner_id, l.granted_at, l.delivered_rows, l.delivered_wh, l.credit::text,
       s.work_units, s.rows
FROM leases l
JOIN shards s ON s.night = l.night AND s.shard_id = l.shard_id
JOIN cars c ON c.car_id = l.car_id
WHERE l.night = %(night)s AND l.shard_id BETWEEN %(first)s AND %(last)s AND l.delivered_rows > 0 AND l.car_id <> 0
ORDER BY l.shard_id, l.fence;

-- name: car_owners
SELECT car_id, owner_id FROM cars WHERE car_id <> 0;

-- name: terms
SELECT from_at, micro_per_unit, wh_per_unit_max, micro_per_kwh, micro_per_kwh_max FROM terms ORDER BY from_at, number;

-- name: add_terms
-- A clock that was set back does not let them reach leases that were granted before, by what it said then.
INSERT INTO terms (from_at, micro_per_unit, wh_per_unit_max, micro_per_kwh, micro_per_kwh_max)
VALUES (greatest(%(from_at)s, fleetbatch.now(), (SELECT max(granted_at) FROM open_leases),
                 (SELECT max(granted_at) FROM leases WHERE night >= (fleetbatch.now() - interval '7 days')::date)),
        %(micro_per_unit)s, %(wh_per_unit_max)s, %(micro_per_kwh)s, %(micro_per_kwh_max)s);

-- name: tariffs
SELECT car_id, from_at, micro_per_kwh FROM tariffs ORDER BY car_id, from_at, number;

-- name: kept_nights
-- That are not archived yet. Their names are looked up, and nothing is locked.
SELECT DISTINCT night FROM orders WHERE to_regclass('fleetbatch.leases' || to_char(night, '_YYYYMMDD')) IS NOT NULL
ORDER BY night;

-- name: last_open
SELECT max(granted_at) AS granted_at FROM open_leases WHERE car_id = %(car_id)s;

-- name: last_ended
-- In one night.
SELECT max(granted_at) AS granted_at FROM leases WHERE night = %(night)s AND car_id = %(car_id)s;

-- name: set_tariff
-- A clock that was set back does not let it reach leases that were granted before, by what it said then.
INSERT INTO tariffs (car_id, number, from_at, micro_per_kwh)
SELECT c.car_id, coalesce((SELECT max(number) FROM tariffs t WHERE t.car_id = c.car_id), 0) + 1,
       greatest(fleetbatch.now(), %(granted_at)s::timestamptz), %(micro_per_kwh)s
FROM cars c WHERE c.car_id = %(car_id)s AND c.car_id <> 0
RETURNING number;

-- name: ended_leases
-- What a car did in a night that is still here, lease by lease; one that is still open is not told yet.
SELECT l.night, l.shard_id, l.fence, l.order_no, l.credit::text, l.delivered_rows, l.busy_s, l.energy_wh, l.delivered_wh,
       s.size_bytes * (l.done_through - l.start) / s.row_groups AS bytes_read,
       coalesce(p.size_bytes, 0)::bigint AS bytes_sent
FROM leases l
JOIN shards s ON s.night = l.night AND s.shard_id = l.shard_id
LEFT JOIN LATERAL (
    SELECT sum(size_bytes) AS size_bytes FROM parts
    WHERE night = %(night)s AND shard_id = l.shard_id AND fence = l.fence
) p ON true
WHERE l.night = %(night)s AND s.night = %(night)s AND l.car_id = %(car_id)s
ORDER BY l.shard_id, l.fence;

-- name: booked
-- Of some leases of one night, here or archived: the orders that they were for, and what the book says of each order's.
SELECT o.order_no, o.night, o.name, o.generation, o.workload, o.data_class,
       coalesce(sum(b.amount) FILTER (WHERE b.state = 'paid'), 0)::bigint AS paid_micro,
       coalesce(sum(b.amount) FILTER (WHERE b.state = 'escrow'), 0)::bigint AS escrow_micro
FROM unnest(%(order_no)s::integer[], %(shard_id)s::bigint[], %(fence)s::integer[]) AS r (order_no, shard_id, fence)
JOIN orders o ON o.order_no = r.order_no
LEFT JOIN LATERAL (
    SELECT max(work_micro + energy_micro) AS amount,
           CASE WHEN bool_or(to_account LIKE 'owner:%%') THEN 'paid' WHEN bool_and(step = 'escrow') THEN 'escrow'
                ELSE 'returned' END AS state
    FROM book WHERE night = %(night)s::date AND shard_id = r.shard_id AND fence = r.fence
) b ON true
GROUP BY o.order_no
ORDER BY o.name, o.generation;

-- name: void_tokens
-- Gateways hear of it where they hear of rounds, and look at both. A token that is sold after a withdrawal outlives all
-- those that it voids by up to a second, so the next withdrawal, however soon or by what clock, counts a second later.
WITH voided AS (
    UPDATE cars SET tokens_void_at = greatest(fleetbatch.now(), tokens_void_at + interval '1 second')
    WHERE car_id = %(car_id)s
    RETURNING car_id
)
SELECT pg_notify('fleetbatch_round', '') FROM voided;

-- name: use_assertions
-- The first use of each, whichever gateway asks; no row for any other. `use` tells a repeated statement from a replay.
INSERT INTO used_assertions AS u (car_id, jti, used_until, use)
SELECT car_id, jti, used_until, %(use)s
FROM unnest(%(car_id)s::bigint[], %(jti)s::text[], %(until)s::timestamptz[]) AS r (car_id, jti, used_until)
ORDER BY car_id, jti
ON CONFLICT (car_id, jti) DO UPDATE SET use = excluded.use WHERE u.use = excluded.use
RETURNING car_id, jti;

-- name: forget_assertions
-- Oldest first; what another gateway is forgetting is left to it.
DELETE FROM used_assertions
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM used_assertions WHERE used_until <= (SELECT fleetbatch.now())
    ORDER BY used_until LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
))
RETURNING car_id;

-- name: voided_tokens
SELECT car_id, tokens_void_at FROM cars WHERE tokens_void_at > fleetbatch.now() - %(within)s::interval;
