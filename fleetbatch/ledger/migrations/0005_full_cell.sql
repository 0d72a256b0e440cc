-- What a full cell asks of its tables, who may turn its clock, what people do to orders, and what is said only once.

-- Whoever could turn the ledger's clock could end anybody's lease. Tests replace this function in databases of their own.
CREATE OR REPLACE FUNCTION fleetbatch.now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE AS
$$SELECT clock_timestamp()$$;
COMMENT ON FUNCTION fleetbatch.now() IS 'The only clock of the ledger.';

-- Few shards are left to trusted machines; looking for them must not read all the others. Grants and parts do not touch
-- the column, so their updates stay in the page.
CREATE INDEX shards_for_trusted_machines ON fleetbatch.shards (night, order_no, shard_id) WHERE cloud_only;

-- Rows of open leases change with every beat and leave with every shard: dead rows must go, and the planner must hear how
-- many there are, long before a fifth of the table has changed.
ALTER TABLE fleetbatch.open_leases SET (
    autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_threshold = 1000, autovacuum_analyze_scale_factor = 0.1
);
ALTER TABLE fleetbatch.audits SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE fleetbatch.service SET (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

CREATE FUNCTION fleetbatch.analyze_shards(of_night date) RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog AS
$$
BEGIN
    EXECUTE format('ANALYZE fleetbatch.%I', 'shards' || to_char(of_night, '_YYYYMMDD'));
END
$$;
COMMENT ON FUNCTION fleetbatch.analyze_shards IS
    'Tell the planner how many shards a night has, before cars ask for them; only the owner of a table may.';

-- What people said of an order, and when.
ALTER TABLE fleetbatch.orders ADD COLUMN state_reason text NOT NULL DEFAULT '';

-- A car's strikes as they weighed at `struck_at`; they fade from then on.
ALTER TABLE fleetbatch.cars ADD COLUMN strike_weight double precision NOT NULL DEFAULT 0;
UPDATE fleetbatch.cars SET strike_weight = strikes;
CREATE FUNCTION fleetbatch.faded(since timestamptz, at timestamptz, half_life interval) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$SELECT coalesce(power(0.5, least(extract(epoch FROM at - since) / extract(epoch FROM half_life), 64)::float8), 0)$$;
COMMENT ON FUNCTION fleetbatch.faded IS 'What is left of a weight of 1; 0 of what never was.';

-- Assertions that bought a token, at any gateway of the cell, for as long as they could buy another.
CREATE TABLE fleetbatch.used_assertions (
    car_id     bigint NOT NULL,
    jti        text NOT NULL,
    used_until timestamptz NOT NULL,
    use        text NOT NULL, -- by which call
    PRIMARY KEY (car_id, jti)
) WITH (autovacuum_vacuum_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0);

REVOKE ALL ON FUNCTION fleetbatch.analyze_shards, fleetbatch.faded FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleetbatch_gateway') THEN
        GRANT SELECT, INSERT, UPDATE (use), DELETE ON fleetbatch.used_assertions TO fleetbatch_gateway;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleetbatch_trusted') THEN
        GRANT EXECUTE ON FUNCTION fleetbatch.analyze_shards, fleetbatch.faded TO fleetbatch_trusted;
        GRANT SELECT, INSERT, UPDATE, DELETE ON fleetbatch.used_assertions TO fleetbatch_trusted;
    END IF;
END
$$;
