-- A cell's ledger: who may work, what is to be done, who holds what, what was delivered.
-- Hot tables (shards, open_leases) keep their primary key and at most one partial index, so that updates stay in the page.
-- shards, leases and parts are partitioned by night, offers by day: a night is detached, archived and dropped as a whole.

CREATE FUNCTION fleetbatch.now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE AS
$$SELECT coalesce(nullif(current_setting('fleetbatch.now', true), '')::timestamptz, clock_timestamp())$$;
COMMENT ON FUNCTION fleetbatch.now() IS 'The only clock of the ledger; tests and simulations turn it by the setting fleetbatch.now.';

CREATE TYPE fleetbatch.shard_state AS ENUM ('ready', 'out', 'returned', 'valid', 'done', 'missing');
CREATE TYPE fleetbatch.lease_state AS ENUM ('done', 'released', 'expired', 'revoked');
CREATE TYPE fleetbatch.credit AS ENUM ('none', 'credited', 'refused', 'voided');
CREATE TYPE fleetbatch.order_state AS ENUM ('open', 'paused', 'cancelled', 'closed');

-- Who may work.

CREATE TABLE fleetbatch.cars (
    car_id         bigint PRIMARY KEY CHECK (car_id >= 0),
    owner_id       bigint NOT NULL,
    public_key_pem text NOT NULL,
    region         text NOT NULL,
    enrolled_at    timestamptz NOT NULL,
    -- What the newest record of each purpose in `consents` says; on this row, so that a grant and a withdrawal meet in
    -- its lock and a withdrawal that has committed is seen by every later grant.
    consents       text[] NOT NULL DEFAULT '{}',
    revoked_at     timestamptz,
    revoked_reason text NOT NULL DEFAULT '',
    audited_rows   bigint NOT NULL DEFAULT 0,
    disagreements  bigint NOT NULL DEFAULT 0,
    strikes        integer NOT NULL DEFAULT 0,
    struck_at      timestamptz
) WITH (fillfactor = 80);

-- The holder of the cloud lane: trusted machines, no owner to ask, any number of open leases.
INSERT INTO fleetbatch.cars (car_id, owner_id, public_key_pem, region, enrolled_at, consents)
VALUES (0, 0, '', '', fleetbatch.now(), '{compute}');

CREATE TABLE fleetbatch.consents (
    car_id         bigint NOT NULL REFERENCES fleetbatch.cars,
    purpose        text NOT NULL,
    number         integer NOT NULL,
    granted        boolean NOT NULL,
    notice_version text NOT NULL,
    notice_sha256  text NOT NULL,
    at             timestamptz NOT NULL,
    previous       text NOT NULL, -- sha256 of the record before, 64 zeros for the first
    sha256         text NOT NULL,
    PRIMARY KEY (car_id, purpose, number)
);

CREATE FUNCTION fleetbatch.refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'consents are only ever added to'; END$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fleetbatch.consents
    FOR EACH STATEMENT EXECUTE FUNCTION fleetbatch.refuse_change();

-- What is to be done.

CREATE TABLE fleetbatch.orders (
    order_no       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    night          date NOT NULL,
    name           text NOT NULL,
    generation     integer NOT NULL,
    state          fleetbatch.order_state NOT NULL DEFAULT 'open',
    frozen         jsonb NOT NULL, -- the order as it was accepted
    workload       text NOT NULL,
    model_sha256   text NOT NULL,
    data_class     text NOT NULL,
    priority       smallint NOT NULL,
    attempts_max   integer NOT NULL,
    frozen_at      timestamptz NOT NULL,
    deadline_at    timestamptz NOT NULL,
    secret_wrapped bytea NOT NULL,
    opened_at      timestamptz NOT NULL,
    published_at   timestamptz,
    UNIQUE (night, name, generation)
);

CREATE TABLE fleetbatch.shards (
    night          date NOT NULL,
    shard_id       bigint NOT NULL,
    order_no       integer NOT NULL,
    state          fleetbatch.shard_state NOT NULL DEFAULT 'ready',
    fence          integer NOT NULL DEFAULT 0,
    void_fence     integer NOT NULL DEFAULT 0, -- parts of this fence and below were refused with their shard
    done_through   smallint NOT NULL DEFAULT 0,
    row_groups     smallint NOT NULL CHECK (row_groups > 0),
    attempts       smallint NOT NULL DEFAULT 0,
    cloud_only     boolean NOT NULL DEFAULT false,
    car_made       boolean NOT NULL DEFAULT false, -- some valid part came from a car
    rows           integer NOT NULL,
    work_units     double precision NOT NULL,
    size_bytes     bigint NOT NULL,
    sha256         bytea NOT NULL,
    row_group_rows integer[] NOT NULL,
    reason         text, -- why it was given up
    PRIMARY KEY (night, shard_id)
) PARTITION BY LIST (night);

-- Who holds what. A row lives here while its lease is open and moves to `leases` when it ends; one lease a shard by the
-- primary key, one lease a car by the index.

CREATE TABLE fleetbatch.open_leases (
    night             date NOT NULL,
    shard_id          bigint NOT NULL PRIMARY KEY,
    fence             integer NOT NULL,
    order_no          integer NOT NULL,
    car_id            bigint NOT NULL,
    start             smallint NOT NULL,
    row_groups_done   smallint NOT NULL, -- as the car says, delivered or not
    lease_for         interval NOT NULL,
    granted_at        timestamptz NOT NULL,
    expires_at        timestamptz NOT NULL,
    beat_at           timestamptz NOT NULL,
    threads           smallint NOT NULL,
    power_w           real NOT NULL,
    hardware_class    text NOT NULL,
    provider          text NOT NULL,
    runner_version    text NOT NULL,
    energy_wh         double precision NOT NULL DEFAULT 0, -- since the lease began
    busy_s            double precision NOT NULL DEFAULT 0,
    delivered_wh      double precision NOT NULL DEFAULT 0, -- of confirmed parts
    delivered_busy_s  double precision NOT NULL DEFAULT 0,
    delivered_rows    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX one_open_lease_a_car ON fleetbatch.open_leases (car_id) WHERE car_id <> 0;

-- The same columns in the same order, then how it ended: `INSERT INTO leases SELECT open_leases.*, ...`.
CREATE TABLE fleetbatch.leases (
    LIKE fleetbatch.open_leases INCLUDING DEFAULTS,
    state         fleetbatch.lease_state NOT NULL,
    reason        text NOT NULL,
    detail        text NOT NULL,
    ended_at      timestamptz NOT NULL,
    done_through  smallint NOT NULL,
    credit        fleetbatch.credit NOT NULL DEFAULT 'none',
    audited_rows  integer NOT NULL DEFAULT 0,
    disagreements integer NOT NULL DEFAULT 0,
    audited_items text[] NOT NULL DEFAULT '{}',
    audit_detail  text NOT NULL DEFAULT '',
    PRIMARY KEY (night, shard_id, fence)
) PARTITION BY LIST (night);

-- What was delivered; never changed.

CREATE TABLE fleetbatch.parts (
    night         date NOT NULL,
    shard_id      bigint NOT NULL,
    fence         integer NOT NULL,
    start         smallint NOT NULL,
    stop          smallint NOT NULL,
    rows          integer NOT NULL,
    size_bytes    bigint NOT NULL,
    energy_wh     double precision NOT NULL,
    busy_s        double precision NOT NULL,
    confirmed_at  timestamptz NOT NULL,
    sha256        bytea NOT NULL,
    energy_source text NOT NULL,
    signature     text NOT NULL, -- the car's, over protocol.part_claim
    PRIMARY KEY (night, shard_id, fence, start)
) PARTITION BY LIST (night);

-- Returned shards wait here for an auditor.

CREATE TABLE fleetbatch.audits (
    shard_id      bigint PRIMARY KEY,
    night         date NOT NULL,
    order_no      integer NOT NULL,
    fence         integer NOT NULL,
    queued_at     timestamptz NOT NULL,
    claimed_until timestamptz
) WITH (fillfactor = 80);

-- Advice: what each round offers to each car.

CREATE TABLE fleetbatch.planner_locks (
    cell         text PRIMARY KEY,
    epoch        bigint NOT NULL,
    holder       text NOT NULL,
    locked_until timestamptz NOT NULL
);

CREATE TABLE fleetbatch.rounds (
    round_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cell     text NOT NULL,
    epoch    bigint NOT NULL,
    day      date NOT NULL,
    at       timestamptz NOT NULL,
    offers   integer NOT NULL,
    stats    jsonb NOT NULL
);

CREATE TABLE fleetbatch.offers (
    day      date NOT NULL,
    round_id bigint NOT NULL,
    car_id   bigint NOT NULL,
    shard_id bigint NOT NULL,
    seq      smallint NOT NULL
) PARTITION BY LIST (day);
CREATE INDEX offers_by_round ON fleetbatch.offers USING brin (round_id);

-- When the cell answered beats: nothing expires before one full lease length of service after `resumed_at`.

CREATE TABLE fleetbatch.service (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    served_at  timestamptz NOT NULL,
    resumed_at timestamptz NOT NULL
) WITH (fillfactor = 50);
INSERT INTO fleetbatch.service (served_at, resumed_at) VALUES ('-infinity', '-infinity');

-- Partitions. Attached rather than created in place, which would lock readers of the whole table out.

CREATE FUNCTION fleetbatch.ensure_partition(parent text, of_day date) RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog AS
$$
DECLARE
    child text := parent || to_char(of_day, '_YYYYMMDD');
    options text := CASE parent WHEN 'shards' THEN ' WITH (fillfactor = 80)' ELSE '' END;
BEGIN
    IF parent NOT IN ('shards', 'leases', 'parts', 'offers') THEN
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

CREATE FUNCTION fleetbatch.ensure_night(of_night date) RETURNS void LANGUAGE sql
    SECURITY DEFINER SET search_path = pg_catalog AS
$$
    SELECT fleetbatch.ensure_partition(parent, of_night) FROM unnest(ARRAY['shards', 'leases', 'parts']) AS parent
$$;
