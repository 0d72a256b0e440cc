-- Two roles beside the owner of the database: the public gateway may do only what its statements need; dispatcher,
-- auditor and the night's tasks are trusted with the rest. Roles belong to the server, which several cells may share;
-- an owner who may not create roles lets an administrator do it and runs the grants of this file by hand.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['fleetbatch_gateway', 'fleetbatch_trusted'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I LOGIN', wanted);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL; -- another cell of this server was faster
            WHEN insufficient_privilege THEN RAISE NOTICE 'role % is missing and may not be created here', wanted;
        END;
    END LOOP;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA fleetbatch FROM PUBLIC;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleetbatch_gateway') THEN
        GRANT USAGE ON SCHEMA fleetbatch TO fleetbatch_gateway;
        GRANT EXECUTE ON FUNCTION fleetbatch.now() TO fleetbatch_gateway;
        GRANT SELECT ON fleetbatch.cars, fleetbatch.consents, fleetbatch.orders, fleetbatch.shards,
            fleetbatch.open_leases, fleetbatch.leases, fleetbatch.parts, fleetbatch.rounds, fleetbatch.offers,
            fleetbatch.service TO fleetbatch_gateway;
        GRANT UPDATE (consents) ON fleetbatch.cars TO fleetbatch_gateway;
        GRANT INSERT ON fleetbatch.consents, fleetbatch.open_leases, fleetbatch.leases, fleetbatch.parts,
            fleetbatch.audits TO fleetbatch_gateway;
        GRANT UPDATE (state, fence, done_through, attempts, cloud_only, car_made) ON fleetbatch.shards
            TO fleetbatch_gateway;
        GRANT UPDATE, DELETE ON fleetbatch.open_leases TO fleetbatch_gateway;
        GRANT UPDATE (served_at, resumed_at) ON fleetbatch.service TO fleetbatch_gateway;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleetbatch_trusted') THEN
        GRANT USAGE ON SCHEMA fleetbatch TO fleetbatch_trusted;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA fleetbatch TO fleetbatch_trusted;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA fleetbatch TO fleetbatch_trusted;
        REVOKE UPDATE, DELETE ON fleetbatch.consents, fleetbatch.parts FROM fleetbatch_trusted;
        REVOKE DELETE ON fleetbatch.leases, fleetbatch.shards, fleetbatch.orders, fleetbatch.cars
            FROM fleetbatch_trusted;
    END IF;
END
$$;
