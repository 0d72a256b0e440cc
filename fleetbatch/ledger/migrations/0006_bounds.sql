-- What people may say of money, and a gateway of leases: no more than what the statements need.

-- An amount that no 64-bit column holds would keep every audit from being put aside. Rows from before are left as they are.
ALTER TABLE fleetbatch.terms ADD CONSTRAINT payable CHECK (
    micro_per_unit <= 1e12 AND wh_per_unit_max <= 1e6 AND micro_per_kwh <= 1e9 AND micro_per_kwh_max <= 1e9
) NOT VALID;
ALTER TABLE fleetbatch.tariffs ADD CONSTRAINT payable CHECK (micro_per_kwh <= 1e9) NOT VALID;

-- A gateway renews leases and counts what they deliver; it moves none to another car or shard. It files leases without
-- a verdict, which only an audit gives.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleetbatch_gateway') THEN
        REVOKE UPDATE ON fleetbatch.open_leases FROM fleetbatch_gateway;
        GRANT UPDATE (expires_at, beat_at, row_groups_done, energy_wh, busy_s, delivered_wh, delivered_busy_s,
            delivered_rows) ON fleetbatch.open_leases TO fleetbatch_gateway;
        REVOKE INSERT ON fleetbatch.leases FROM fleetbatch_gateway;
        GRANT INSERT (night, shard_id, fence, order_no, car_id, start, row_groups_done, lease_for, granted_at,
            expires_at, beat_at, threads, power_w, hardware_class, provider, runner_version, energy_wh, busy_s,
            delivered_wh, delivered_busy_s, delivered_rows, state, reason, detail, ended_at, done_through)
            ON fleetbatch.leases TO fleetbatch_gateway;
    END IF;
END
$$;
