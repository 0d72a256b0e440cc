"""How a gateway is turned; a laptop turns the times down."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """Times, limits and sizes of one gateway."""

    lease_for: timedelta = timedelta(minutes=10)
    beat_every: timedelta = timedelta(seconds=60)
    part_every: timedelta = timedelta(seconds=60)
    poll_every: timedelta = timedelta(seconds=30)
    """What an idle car is told to wait, before jitter and pressure."""
    jitter: float = 0.2
    """Share by which a wait is stretched or shortened, so that cars do not come in step."""
    pressure_max: float = 16.0
    """How far waits are stretched when the gateway is behind."""
    poll_longest: timedelta = timedelta(minutes=10)
    """No pressure makes an idle car wait longer: it must hear of its offers."""
    busy_least: float = 0.6
    busy_most: float = 0.75
    """Shares of a core: above the second, waits and beats are stretched little by little, below the first they ease;
    what is left is what answers wait for less."""
    behind_after: timedelta = timedelta(milliseconds=250)
    """A wait of the event loop from which on the gateway counts as behind."""
    in_flight_max: int = 2000
    """Requests under way from which on polls are shed."""
    requests_per_window: int = 300
    """What one car may ask in ten seconds; parts of a laptop's night come fast. These and the allowances below are each
    gateway process's own: a caller that finds several of them has as many."""
    tokens_per_window: int = 20
    """Tokens that one car may buy in ten seconds; one an hour is usual."""
    failures_per_window: int = 100
    """Assertions from one address that proved nothing in ten seconds, from which on it is seldom listened to: each
    costs a signature's check, and a look into the ledger when it names another car."""
    failing_heard: float = 0.05
    """Share of tries from such an address that is looked at all the same; honest cars may share it."""
    failing_addresses_max: int = 50_000
    """Addresses that are counted apart; those beyond share one count."""
    refusals_per_window: int = 8
    """Leases that one car may refuse in a `refusals_window`, from which on it is offered nothing until the next begins,
    at each gateway process: what so many of its shards are refused for is most likely the car's own."""
    refusals_window: timedelta = timedelta(minutes=10)
    owner_requests_per_window: int = 100
    """What one owner may ask in ten seconds."""
    owner_calls_max: int = 8
    """Calls of owners, of each kind, that are answered at one time: each keeps a thread and a connection to the ledger,
    and cars need some."""
    gather_for: timedelta = timedelta(milliseconds=2)
    """How long grants and parts are collected before they go to the ledger as one call, when there is little to do."""
    gather_busy_for: timedelta = timedelta(milliseconds=10)
    """The same when the process uses `busy_least` of its core: a call has costs of its own, and fewer are needed."""
    gather_beats_for: timedelta = timedelta(milliseconds=20)
    """The same for beats, always: most calls are beats, and no car stands still for the answer to one."""
    batch_max: int = 1000
    offers_per_poll: int = 4
    """How many offers are tried for one poll when others were faster."""
    url_for: timedelta = timedelta(hours=12)
    """Life of a signed URL to read; a lease renewed by beats must not outlive it. What it reads is sealed."""
    model_url_for: timedelta = timedelta(seconds=60)
    """How long cars are handed the same signed URL of a model."""
    put_for: timedelta = timedelta(minutes=15)
    token_for: timedelta = timedelta(minutes=60)
    assertion_for: timedelta = timedelta(minutes=5)
    clock_skew: timedelta = timedelta(seconds=30)
    """How far a car's clock may be off, and a gateway's from the database's."""
    key_for: timedelta = timedelta(seconds=60)
    """How long a car's public key is remembered before the ledger is asked again (it may have been revoked)."""
    cars_known_max: int = 50_000
    """How many cars' keys are remembered at once; a key is needed for tokens and parts only."""
    message_bytes: int = 64 << 10
    part_bytes: int = 16 << 20
    """Of one part. How much its rows can be is its workload's to know, and the auditor's, who refuses a part whose rows
    are too large; here it is a bound on what one upload stores. What a part then counts as is never a car's word: it is
    confirmed only when just so many bytes lie in the store. Nothing is paid by them; they are told to the owner."""
    unconfirmed_max: int = 4
    """Parts of one lease that a PUT is signed for before one of them is confirmed, at each gateway process; an honest
    car sends one after the other. What is stored and never confirmed is kept as long as the night's objects."""
    unconfirmed_of_car_max: int = 24
    """Parts of one car, whatever its leases, that a PUT is signed for in an `unconfirmed_window` and that are not
    confirmed, at each gateway process: a car that is cut off in the middle of a part leaves one behind."""
    unconfirmed_window: timedelta = timedelta(minutes=30)
    puts_at_once_max: int = 2
    """PUTs of one object that are under way at one time, at each gateway process."""
    leases_signed_max: int = 20_000
    """Leases whose unconfirmed parts are remembered; the one silent for longest is forgotten first."""
    body_within: timedelta = timedelta(seconds=30)
    bodies_awaited_max: int = 500
    """Messages and uploads whose rest is awaited at one time; further slow ones are sent away."""
    telemetry_every: timedelta = timedelta(seconds=60)
    telemetry_bytes: int = 512 << 20
    """How much of what cars say is kept while the store is away; the oldest is dropped first."""
    sweep_every: timedelta = timedelta(seconds=2)
    glance_for: timedelta = timedelta(seconds=10)
    """How long what the metrics say of the whole cell is kept: a scrape must not cost the ledger."""
    look_every: timedelta = timedelta(seconds=5)
    """A look for a new round and for void tokens when no notice of either came."""
    listen_for: timedelta = timedelta(seconds=0.5)
    """How long one wait for a notice lasts: a stop of the process waits for it."""
