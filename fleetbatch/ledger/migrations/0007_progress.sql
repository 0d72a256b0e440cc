-- Beats alone do not renew a lease for ever: what counts is when its work last moved, in time of service.

CREATE FUNCTION fleetbatch.progressed_at(l fleetbatch.open_leases) RETURNS timestamptz LANGUAGE sql STABLE
    SET search_path = pg_catalog AS
$$
SELECT greatest(
    l.granted_at,
    (SELECT resumed_at FROM fleetbatch.service),
    (SELECT max(p.confirmed_at) FROM fleetbatch.parts p
     WHERE p.night = l.night AND p.shard_id = l.shard_id AND p.fence = l.fence)
)
$$;
COMMENT ON FUNCTION fleetbatch.progressed_at IS
    'When a lease was granted or last delivered; time in which the cell answered nobody does not count.';
REVOKE ALL ON FUNCTION fleetbatch.progressed_at FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleetbatch_gateway') THEN
        GRANT EXECUTE ON FUNCTION fleetbatch.progressed_at TO fleetbatch_gateway, fleetbatch_trusted;
    END IF;
END
$$;
