-- What owners earn. Each row of the book moves one amount from one account to another, so that all accounts together are
-- zero at every instant; rows are only ever added, and one lease is put into escrow once and settled once by the key.

CREATE FUNCTION fleetbatch.only_added() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION '% is only ever added to', TG_TABLE_NAME; END$$;

-- What is paid from when on; the newest row that is not in the future counts. Amounts are millionths of a credit.
CREATE TABLE fleetbatch.terms (
    number            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_at           timestamptz NOT NULL,
    micro_per_unit    double precision NOT NULL CHECK (micro_per_unit >= 0), -- for the work
    wh_per_unit_max   double precision NOT NULL CHECK (wh_per_unit_max >= 0), -- a car's claim is paid up to this
    micro_per_kwh     double precision NOT NULL CHECK (micro_per_kwh >= 0), -- for owners who named no tariff
    micro_per_kwh_max double precision NOT NULL CHECK (micro_per_kwh_max >= 0)
);
INSERT INTO fleetbatch.terms (from_at, micro_per_unit, wh_per_unit_max, micro_per_kwh, micro_per_kwh_max)
VALUES ('2000-01-01Z', 100, 1, 300000, 1000000);

CREATE TABLE fleetbatch.tariffs (
    car_id        bigint NOT NULL REFERENCES fleetbatch.cars,
    number        integer NOT NULL,
    from_at       timestamptz NOT NULL,
    micro_per_kwh double precision NOT NULL CHECK (micro_per_kwh >= 0),
    PRIMARY KEY (car_id, number)
);

CREATE TYPE fleetbatch.book_step AS ENUM ('escrow', 'settle');

CREATE TABLE fleetbatch.book (
    night        date NOT NULL,
    shard_id     bigint NOT NULL,
    fence        integer NOT NULL,
    step         fleetbatch.book_step NOT NULL,
    at           timestamptz NOT NULL,
    car_id       bigint NOT NULL,
    from_account text NOT NULL, -- fleet, escrow, owner:HEX
    to_account   text NOT NULL CHECK (to_account <> from_account),
    work_micro   bigint NOT NULL CHECK (work_micro >= 0),
    energy_micro bigint NOT NULL CHECK (energy_micro >= 0),
    PRIMARY KEY (night, shard_id, fence, step)
) PARTITION BY LIST (night);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fleetbatch.terms
    FOR EACH STATEMENT EXECUTE FUNCTION fleetbatch.only_added();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fleetbatch.tariffs
    FOR EACH STATEMENT EXECUTE FUNCTION fleetbatch.only_added();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fleetbatch.book
    FOR EACH STATEMENT EXECUTE FUNCTION fleetbatch.only_added();

-- An owner's statement reads the leases of one car.
CREATE INDEX leases_of_car ON fleetbatch.leases (car_id);

-- Tokens that were bought before this instant are void; on the car's row, so that a withdrawal voids them as it commits.
ALTER TABLE fleetbatch.cars ADD COLUMN tokens_void_at timestamptz;
CREATE INDEX cars_with_void_tokens ON fleetbatch.cars (tokens_void_at) WHERE tokens_void_at IS NOT NULL;

-- Partitions: the book of a night is made with the night, and stays when shards, leases and parts are archived.

CREATE OR REPLACE FUNCTION fleetbatch.ensure_partition(parent text, of_day date) RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog AS
$$
DECLARE
    child text := parent || to_char(of_day, '_YYYYMMDD');
    options text := CASE parent WHEN 'shards' THEN ' WITH (fillfactor = 80)' ELSE '' END;
BEGIN
    IF parent NOT IN ('shards', 'leases', 'parts', 'offers', 'book') THEN
        RAISE EXCEPTION 'no partitions are made of %', parent;
    END IF;
    IF to_regclass('fleetbatch.' || child) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('fleetbatch.partition'));
    IF to_regclass('fleetbatch.' || child) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE fleetbatch.%I (LIKE fleetbatch.%I INCLUDING ALL)%s', child, parent, options);
    EXECUTE format('ALTER TABLE fleetbatch.%I ATTACH PARTITION fleetbatch.%I FOR VALUES IN (%L)', parent, child, of_day);
END
$$;

CREATE OR REPLACE FUNCTION fleetbatch.ensure_night(of_night date) RETURNS void LANGUAGE sql
    SECURITY DEFINER SET search_path = pg_catalog AS
$$
    SELECT fleetbatch.ensure_partition(parent, of_night)
    FROM unnest(ARRAY['shards', 'leases', 'parts', 'book']) AS parent
$$;

SELECT fleetbatch.ensure_partition('book', night) FROM (SELECT DISTINCT night FROM fleetbatch.orders) o;

REVOKE ALL ON FUNCTION fleetbatch.only_added FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleetbatch_gateway') THEN
        GRANT SELECT ON fleetbatch.terms, fleetbatch.tariffs, fleetbatch.book TO fleetbatch_gateway;
        GRANT UPDATE (tokens_void_at) ON fleetbatch.cars TO fleetbatch_gateway;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleetbatch_trusted') THEN
        GRANT SELECT, INSERT ON fleetbatch.terms, fleetbatch.tariffs, fleetbatch.book TO fleetbatch_trusted;
    END IF;
END
$$;
