-- How fast cars compute is added up once, as their leases end: who plans a round reads sums of some cars of each class,
-- not all leases of a week.

-- What ended since is found by when. An index of blocks would cost an audit a microsecond less, and find nothing: verdicts
-- move leases to wherever a vacuum made room, and five minutes of a night were then a third of its pages.
CREATE INDEX leases_by_end ON fleetbatch.leases (ended_at);

-- Up to which instant leases are added up, and the number that a cell draws its cars' lots under.
CREATE TABLE fleetbatch.rates_added (
    one           boolean PRIMARY KEY DEFAULT true CHECK (one),
    added_through timestamptz NOT NULL,
    seed          bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO fleetbatch.rates_added (added_through, seed)
VALUES ('-infinity', ('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint);

-- What cars said of a day, of those with the smallest lots in their class.
CREATE TABLE fleetbatch.voices (
    day            date NOT NULL,
    workload       text NOT NULL,
    hardware_class text NOT NULL,
    lot            bigint NOT NULL,
    car_id         bigint NOT NULL,
    provider       text NOT NULL,
    rows           bigint NOT NULL,
    busy_s         double precision NOT NULL,
    PRIMARY KEY (day, workload, hardware_class, lot, car_id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0);

CREATE FUNCTION fleetbatch.lot(car_id bigint, seed bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$SELECT hashint8extended(car_id, seed)$$;
COMMENT ON FUNCTION fleetbatch.lot IS 'By which cars are drawn to speak for their class.';

CREATE FUNCTION fleetbatch.share_below(lot bigint) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$SELECT coalesce((lot::double precision + 9223372036854775808.0) / 18446744073709551616.0, 1)$$;
COMMENT ON FUNCTION fleetbatch.share_below IS 'Which share of all cars has a smaller lot; all of them without one.';

CREATE FUNCTION fleetbatch.busy_s(car_id bigint, said_s double precision, since timestamptz, until timestamptz)
    RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$
SELECT CASE WHEN car_id = 0 THEN said_s
            ELSE greatest(least(said_s, extract(epoch FROM until - since)::double precision), 0) END
$$;
COMMENT ON FUNCTION fleetbatch.busy_s IS
    'How long a car was busy: its own word, up to the time for which it held the lease; a trusted machine''s word stands.';

REVOKE ALL ON FUNCTION fleetbatch.lot, fleetbatch.share_below, fleetbatch.busy_s FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleetbatch_trusted') THEN
        GRANT EXECUTE ON FUNCTION fleetbatch.lot, fleetbatch.share_below, fleetbatch.busy_s TO fleetbatch_trusted;
        GRANT SELECT, INSERT, UPDATE, DELETE ON fleetbatch.voices TO fleetbatch_trusted;
        GRANT SELECT, UPDATE ON fleetbatch.rates_added TO fleetbatch_trusted;
    END IF;
END
$$;
