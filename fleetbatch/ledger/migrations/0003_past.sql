-- What maintenance may take away: nights that are over and archived, rounds and offers that nobody asks about any more.
-- Partitions belong to the owner of the schema, so the trusted role drops them through functions that look first.

CREATE FUNCTION fleetbatch.drop_night(of_night date, kept_shards bigint, kept_leases bigint, kept_parts bigint)
    RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '5s' AS
$$
DECLARE
    parent text;
    child text;
    kept bigint;
    found bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('fleetbatch.partition'));
    PERFORM FROM fleetbatch.orders WHERE night = of_night ORDER BY order_no FOR UPDATE;
    IF EXISTS (SELECT FROM fleetbatch.orders WHERE night = of_night AND state NOT IN ('closed', 'cancelled'))
        OR EXISTS (SELECT FROM fleetbatch.open_leases WHERE night = of_night) THEN
        RETURN false;
    END IF;
    -- Counted before anything is locked: no statement adds to a night whose orders are all over.
    FOR parent, kept IN VALUES ('shards', kept_shards), ('leases', kept_leases), ('parts', kept_parts) LOOP
        EXECUTE format('SELECT count(*) FROM fleetbatch.%I WHERE night = %L', parent, of_night) INTO found;
        IF found <> kept THEN
            RETURN false;
        END IF;
    END LOOP;
    DELETE FROM fleetbatch.audits WHERE night = of_night;
    FOREACH parent IN ARRAY ARRAY['shards', 'leases', 'parts'] LOOP
        child := parent || to_char(of_night, '_YYYYMMDD');
        IF to_regclass('fleetbatch.' || child) IS NOT NULL THEN
            EXECUTE format('ALTER TABLE fleetbatch.%I DETACH PARTITION fleetbatch.%I', parent, child);
            EXECUTE format('DROP TABLE fleetbatch.%I', child);
        END IF;
    END LOOP;
    RETURN true;
END
$$;
COMMENT ON FUNCTION fleetbatch.drop_night IS
    'Drop a night that is over, if it holds exactly the rows that were archived; say whether that was so.';

CREATE FUNCTION fleetbatch.drop_offers(before date) RETURNS integer LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '5s' AS
$$
DECLARE
    child regclass;
    dropped integer := 0;
BEGIN
    FOR child IN
        SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
        WHERE inhparent = 'fleetbatch.offers'::regclass AND c.relname < 'offers' || to_char(before, '_YYYYMMDD')
        ORDER BY 1
    LOOP
        EXECUTE format('ALTER TABLE fleetbatch.offers DETACH PARTITION %s', child);
        EXECUTE format('DROP TABLE %s', child);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

REVOKE ALL ON FUNCTION fleetbatch.drop_night, fleetbatch.drop_offers FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleetbatch_trusted') THEN
        GRANT EXECUTE ON FUNCTION fleetbatch.drop_night, fleetbatch.drop_offers TO fleetbatch_trusted;
    END IF;
END
$$;
