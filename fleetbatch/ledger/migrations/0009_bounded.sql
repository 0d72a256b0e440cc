-- What was one statement without a bound is done in batches, each a transaction of its own.

-- The states of an order's shards that are to be named missing, as long as some may be left: whoever was interrupted between
-- two batches is followed by whoever looks next, and nothing of the order is granted or published meanwhile.
ALTER TABLE fleetbatch.orders
    ADD COLUMN giving_up fleetbatch.shard_state[] NOT NULL DEFAULT '{}',
    ADD COLUMN giving_up_reason text NOT NULL DEFAULT '';

-- Assertions are forgotten oldest first.
CREATE INDEX used_assertions_by_end ON fleetbatch.used_assertions (used_until);

CREATE OR REPLACE FUNCTION fleetbatch.drop_offers(before date) RETURNS integer LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '5s' AS
$$
DECLARE
    child regclass;
BEGIN
    SELECT inhrelid::regclass INTO child FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
    WHERE inhparent = 'fleetbatch.offers'::regclass AND c.relname < 'offers' || to_char(before, '_YYYYMMDD')
    ORDER BY c.relname LIMIT 1;
    IF child IS NULL THEN
        RETURN 0;
    END IF;
    EXECUTE format('ALTER TABLE fleetbatch.offers DETACH PARTITION %s', child);
    EXECUTE format('DROP TABLE %s', child);
    RETURN 1;
END
$$;
COMMENT ON FUNCTION fleetbatch.drop_offers IS 'Drop the oldest day of offers before a day; say how many days that were.';
