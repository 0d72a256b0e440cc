-- Attempts at a shard are as many as cars failed at it: none is given it once more.

CREATE FUNCTION fleetbatch.failed_before(of_night date, of_shard bigint, of_car bigint) RETURNS boolean LANGUAGE sql STABLE
    SET search_path = pg_catalog AS
$$
SELECT EXISTS (
    SELECT FROM fleetbatch.leases l
    WHERE l.night = of_night AND l.shard_id = of_shard AND l.car_id = of_car
      AND (l.state = 'released' AND l.reason = 'refused' OR l.credit = 'refused')
)
$$;
COMMENT ON FUNCTION fleetbatch.failed_before IS
    'Whether a car said of a shard that it cannot be computed, or did it wrongly, as far as audits have looked.';
REVOKE ALL ON FUNCTION fleetbatch.failed_before FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleetbatch_gateway') THEN
        GRANT EXECUTE ON FUNCTION fleetbatch.failed_before TO fleetbatch_gateway, fleetbatch_trusted;
    END IF;
END
$$;
